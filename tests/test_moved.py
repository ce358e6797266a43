"""Moved and copied projects: earlier runs keep their files, new ones store theirs in the new place, and the old place is left alone."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from mlflow.entities import TraceInfo, TraceLocation, TraceState
from mlflow.tracking import MlflowClient

from conftest import ROOT
from regcls.errors import UserError
from regcls.files import try_lock
from regcls.tracking.store import address_of, sqlite_uri
from regcls.tracking.tracker import Tracker
from tracked import REG, RESULT, SPEC, TAGS

NAMES = ["moved", "é moved 50%20 of #1? +'"]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A project with a finished run in each of two experiments; `project` copies it."""
    root = tmp_path_factory.mktemp("made") / "project"
    root.mkdir()
    for experiment in ("regcls", "other"):
        finished_run(Tracker(root, experiment=experiment))
    return root


def test_a_copy_without_experiment_0_gets_addresses_of_its_own(project, tmp_path):
    execute(project, "DELETE FROM experiments WHERE experiment_id = 0")  # as mlflow gc does
    execute(project, "DELETE FROM runs WHERE experiment_id = 0")
    here = shutil.copytree(project, tmp_path / "copy")
    tracker = Tracker(here, experiment="other")
    assert_files_found(tracker, *tracker.finished("functions").values())
    assert all(address.startswith(f"{here}/mlartifacts/") for address in locations(here))


@pytest.mark.parametrize("file", ["mine.db", "stores/mine.db"])
def test_a_store_of_another_name_in_the_project_moves_with_it(tmp_path, monkeypatch, file):
    (tmp_path / "project" / file).parent.mkdir(parents=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
    run = finished_run(Tracker(tmp_path / "project", experiment="regcls"))
    here = shutil.copytree(tmp_path / "project", tmp_path / "copy")
    tracker = Tracker(here, experiment="regcls")
    assert tracker._client.get_run(run).info.artifact_uri.startswith(f"{here / file}".removesuffix("mine.db"))
    assert_files_found(tracker, run)


@pytest.mark.parametrize("link", ["mlartifacts", "mlartifacts/0"])
def test_a_copy_that_links_to_the_files_of_the_original_is_refused_until_it_has_its_own(project, tmp_path, link):
    (project / link).rename(tmp_path / "big disk")
    (project / link).symlink_to(tmp_path / "big disk")
    before, here = locations(project), shutil.copytree(project, tmp_path / "copy", symlinks=True)
    (tmp_path / "big disk").rename(tmp_path / "not mounted")
    for mounted in (False, True):
        if mounted:
            (tmp_path / "not mounted").rename(tmp_path / "big disk")
        with pytest.raises(UserError, match=f"is a copy of {project}, but {here}/{link} leads to the same files") as caught:
            Tracker(here, experiment="regcls")
        assert locations(here) == before
    subprocess.run(str(caught.value).partition("Give the copy its own: ")[2], shell=True, check=True)
    tracker = Tracker(here, experiment="regcls")
    assert_files_found(tracker, *tracker.finished("functions").values())
    assert not (here / link).is_symlink() and all(address.startswith(f"{here}/") for address in locations(here))


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_files_left_behind_are_named_with_the_command_that_brings_them(project, tmp_path, capsys, how):
    here = tmp_path / "here"
    shutil.copytree(project, here, ignore=lambda *_: ["mlartifacts"])
    if how == "moved":
        (project / "mlflow.db").unlink()
    tracker = Tracker(here, experiment="regcls")
    (run,) = tracker.finished("functions").values()
    assert tracker.without_files() == {run: here / "mlartifacts" / "0" / run / "artifacts"}
    _, line = capsys.readouterr().err.splitlines()
    subprocess.run(line.removeprefix("the files were left behind; bring them with: "), shell=True, check=True)
    assert_files_found(tracker, run)
    assert (project / "mlartifacts").is_dir()  # another store may use it


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_a_store_from_before_records_moves_as_well(project, tmp_path, capsys, how):
    execute(project, "DROP TABLE regcls_home")
    here = tmp_path / "here"
    how(project, here)
    tracker = Tracker(here, experiment="regcls")
    assert f"this project was in {project}: " in capsys.readouterr().err
    assert_files_found(tracker, *tracker.finished("functions").values())
    assert all(address.startswith(f"{here}/mlartifacts/") for address in locations(here))


def test_an_address_with_a_slash_at_its_end_moves_with_its_runs(project, tmp_path):
    execute(project, "UPDATE experiments SET artifact_location = artifact_location || '/' WHERE name = 'other'")
    Tracker(project.rename(tmp_path / "moved"), experiment="other")
    assert not any(address.startswith(f"{project}/") for address in locations(tmp_path / "moved"))


def test_without_permission_to_look_into_the_original_a_copy_works(project, tmp_path, monkeypatch):
    here, stat = shutil.copytree(project, tmp_path / "copy"), os.stat

    def refuse(path, **options):
        if str(path).startswith(f"{project}/"):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", refuse)
    tracker = Tracker(here, experiment="regcls")
    assert_files_found(tracker, *tracker.finished("functions").values())


@pytest.fixture
def project(original, tmp_path, capsys):
    """A copy of the project, as if it had been made in its folder."""
    root = tmp_path / "project"
    shutil.copytree(original, root)
    Tracker(root, experiment="regcls")
    capsys.readouterr()
    return root


def finished_run(tracker, spec=SPEC, fingerprint="f"):
    run = tracker.start(spec, fingerprint=fingerprint, tags=TAGS)
    tracker.log_json(run, "more/values.json", {})
    tracker.finish(run, RESULT)
    return run


def locations(root):
    """Every file address in the store."""
    query = (
        "SELECT artifact_location FROM experiments UNION SELECT artifact_uri FROM runs UNION SELECT artifact_location FROM logged_models "
        "UNION SELECT source FROM model_versions UNION SELECT storage_location FROM model_versions UNION SELECT value FROM trace_tags"
    )
    with closing(sqlite3.connect(root / "mlflow.db")) as connection:
        return {address for (address,) in connection.execute(query)}


def execute(root, statement, *values):
    with closing(sqlite3.connect(root / "mlflow.db")) as connection, connection:
        connection.execute(statement, values)


def content(root):
    """Path -> bytes of all files except leftovers of SQLite and locks."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm", ".lock"))
    }


def assert_files_found(tracker, *runs):
    for run in runs:
        assert list(tracker.files.sizes(run)) == ["more/values.json", "weights.safetensors"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_runs_old_and_new_have_their_files_in_the_moved_project(project, tmp_path, capsys, how, name):
    before, here = content(project), tmp_path / name
    how(project, here)
    tracker = Tracker(here, experiment="regcls")
    assert capsys.readouterr().err == f"this project was in {project}: its runs' files are now looked for in {here}\n"
    (old,) = tracker.finished("functions").values()
    assert_files_found(tracker, old, finished_run(tracker, REG, "new"))
    other = Tracker(here, experiment="other")
    assert_files_found(other, *other.finished("functions").values(), finished_run(other, REG, "new"))
    assert locations(here) and all(address.startswith(f"{address_of(here)}/mlartifacts/") for address in locations(here))
    assert capsys.readouterr().err == ""
    assert content(project) == (before if how is shutil.copytree else {}) and project.exists() == (how is shutil.copytree)
    assert sorted(os.listdir(tmp_path)) == sorted({here.name} | ({"project"} if how is shutil.copytree else set()))


def test_moving_a_project_back_restores_its_addresses(project, tmp_path):
    before = locations(project)
    for home, here in ((project, tmp_path / NAMES[1]), (tmp_path / NAMES[1], tmp_path / "third"), (tmp_path / "third", project)):
        home.rename(here)
        Tracker(here, experiment="regcls")
    assert locations(project) == before


def test_registered_models_logged_models_and_traces_move_as_well(project, tmp_path):
    tracker = Tracker(project, experiment="regcls")
    (run,) = tracker.finished("functions").values()
    client = MlflowClient(sqlite_uri(project / "mlflow.db"))
    source = f"{client.get_run(run).info.artifact_uri}/weights.safetensors"
    client.create_registered_model("mine")
    client.create_model_version("mine", source, run)
    client.create_logged_model("0", name="model", source_run_id=run)
    client._tracking_client.store.start_trace(
        TraceInfo(trace_id="tr-1", trace_location=TraceLocation.from_experiment_id("0"), request_time=0, state=TraceState.OK)
    )
    addresses = {address for address in locations(project) if str(project) in address}
    assert len(addresses) == 7
    project.rename(tmp_path / "moved")
    Tracker(tmp_path / "moved", experiment="regcls")
    assert {address.replace(str(project), str(tmp_path / "moved")) for address in addresses} <= locations(tmp_path / "moved")
    assert not any(str(project) in address for address in locations(tmp_path / "moved"))


@pytest.mark.parametrize(
    "address",
    ["s3://bucket/mlartifacts/0", "mlflow-artifacts:/0", "{elsewhere}/files/0", "{elsewhere}/mlartifacts/0", "file://{elsewhere}/x"],
)
def test_files_kept_elsewhere_by_the_user_stay_there(project, tmp_path, address):
    address = address.format(elsewhere=tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "mlartifacts" / "0").mkdir(parents=True)
    execute(project, "UPDATE experiments SET artifact_location = ? WHERE name = 'other'", address)
    execute(project, "DELETE FROM runs WHERE experiment_id = 1")
    shutil.rmtree(project / "mlartifacts")
    project.rename(tmp_path / "moved")
    Tracker(tmp_path / "moved", experiment="regcls")
    assert address in locations(tmp_path / "moved")


@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("there", ["nothing", "another store"])
def test_addresses_outside_the_project_are_the_users_choice(project, tmp_path, there, moves):
    address = str(tmp_path / "disk" / "mlruns" / "mine")
    if there == "another store":
        (tmp_path / "disk" / "mlruns" / "mine").mkdir(parents=True)
        (tmp_path / "disk" / "mlflow.db").touch()
    execute(project, "UPDATE experiments SET artifact_location = ? WHERE name = 'other'", address)
    here = project.rename(tmp_path / "moved") if moves else project
    Tracker(here, experiment="regcls")
    assert address in locations(here)


@pytest.mark.parametrize("recorded", ["recorded", "not recorded"])
@pytest.mark.parametrize("disk", ["mounted", "not mounted"])
def test_an_artifact_root_chosen_for_the_whole_store_stays(project, tmp_path, disk, recorded):
    root = shutil.move(project / "mlartifacts", tmp_path / "big" / "mlartifacts")
    if recorded == "not recorded":  # as if mlflow server had made the store
        execute(project, "DROP TABLE regcls_home")
    if disk == "not mounted":
        (tmp_path / "big").rename(tmp_path / "away")
    for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
        execute(project, f"UPDATE {table} SET {column} = replace({column}, ?, ?)", f"{project}/mlartifacts", str(root))
    before = locations(project)
    Tracker(project, experiment="regcls")
    assert locations(project) == before


def test_folders_within_the_project_move_with_it(project, tmp_path):
    execute(project, "UPDATE experiments SET artifact_location = ? WHERE name = 'other'", str(project / "myart" / "deep"))
    Tracker(project.rename(tmp_path / "moved"), experiment="regcls")
    assert str(tmp_path / "moved" / "myart" / "deep") in locations(tmp_path / "moved")


def test_addresses_written_by_plain_mlflow_commands_move_as_well(project, tmp_path):
    (project / "mlartifacts").rename(project / "mlruns")
    old = (project / "mlruns").as_uri()
    for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
        execute(project, f"UPDATE {table} SET {column} = replace({column}, ?, ?)", f"{project}/mlartifacts", old)
    here = tmp_path / NAMES[1]
    project.rename(here)
    tracker = Tracker(here, experiment="regcls")
    assert_files_found(tracker, *tracker.finished("functions").values())


def test_a_store_named_by_the_user_is_never_rewritten(project, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    project.rename(shared)
    before = locations(shared)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared}/mlflow.db")
    (tmp_path / "another").mkdir()
    Tracker(tmp_path / "another", experiment="regcls")
    assert locations(shared) == before


def test_a_folder_with_two_names_is_not_a_copy(project, tmp_path):
    before = locations(project)
    (tmp_path / "again").mkdir()
    os.link(project / "mlflow.db", tmp_path / "again" / "mlflow.db")  # as good as a bind mount, for a test without root
    Tracker(tmp_path / "again", experiment="regcls")
    assert locations(project) == before


def test_addresses_do_not_change_while_a_run_is_training(project, tmp_path):
    here = tmp_path / "moved"
    project.rename(here)
    before = locations(here)
    lock = try_lock(here / ".regcls" / "train-functions.lock")
    with pytest.raises(UserError, match=f"process {os.getpid()}.* is training in this folder under another path, {project}. Wait until it"):
        Tracker(here, experiment="regcls")
    assert locations(here) == before
    lock.close()
    Tracker(here, experiment="regcls")
    assert not locations(here) & before


@pytest.mark.slow
@pytest.mark.usefixtures("all_cores")
def test_concurrent_processes_in_a_moved_project_all_find_the_files(project, tmp_path):
    here = tmp_path / "moved"
    project.rename(here)
    code = (
        "import sys\nfrom pathlib import Path\nfrom regcls.tracking.tracker import Tracker\n"
        "tracker = Tracker(Path.cwd(), experiment='regcls')\n(run,) = tracker.finished('functions').values()\nassert tracker.files.sizes(run)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=here, env=environment, stderr=subprocess.PIPE) for _ in range(3)]
    expected = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], expected
    assert sum("this project was in" in text for text in expected) == 1
