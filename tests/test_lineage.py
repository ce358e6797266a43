"""From a run to its origin, from data to their runs, and reruns: real, small runs in a real repository."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
import yaml

from conftest import ROOT, SHRUNK, overlay, shipped_tree
from regcls import provenance
from regcls.cli import main
from regcls.params import Compute, load_params
from regcls.pipeline.rerun import _compare_results
from regcls.pipeline.train import train
from regcls.processes import process_identity
from regcls.provenance import lineage
from regcls.runs import grids
from regcls.tasks import task_named
from regcls.tasks.depth.runs import make_spec as depth_spec
from regcls.tasks.functions.networks import FunctionNetworks
from regcls.tasks.functions.runs import all_specs as function_specs
from regcls.tasks.functions.task import FunctionsTask
from regcls.tasks.images.runs import ImageSpec
from regcls.tasks.images.runs import make_spec as image_spec
from regcls.tasks.sequences.runs import all_specs as sequence_specs
from regcls.tasks.task import Session
from regcls.tracking.files import RunFiles
from regcls.tracking.run_table import TrackedRun, typed
from regcls.tracking.tracker import Tracker
from repositories import git
from tracked import SPEC

# Four runs of one network each, two on each of two training sets.
FOUR_RUNS = {
    "functions": {
        "data": {"functions": [[0.8444218515250481, 22]], "settings": ["noisy"], "samplings": ["uniform", "severe"]},
        "grids": {
            "figure3": {"settings": ["noisy"], "methods": ["reg", "reg+cls"], "classes": [4], "repetitions": 1},
            "figure4": {"settings": ["noisy"], "methods": ["reg"]},
            "figure5": {"methods": ["reg"]},
        },
    }
}


def commit(root):
    git(root, "init", "--initial-branch=trunk")
    (root / ".gitignore").write_text("data\nmlflow.db*\nmlartifacts\n.regcls\nruns\nreports\n")
    git(root, "add", "--all")
    git(root, "commit", "-m", "first")


def regcls(capsys, *arguments):
    """Run a command; return its exit code, stdout and stderr."""
    capsys.readouterr()
    code = main(arguments)
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A repository with uncommitted changes and the four runs; do not write to it."""
    root = tmp_path_factory.mktemp("lineage") / "project"
    root.mkdir()
    tree = overlay(overlay(shipped_tree(), SHRUNK), FOUR_RUNS)
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    commit(root)
    with (root / "params.yaml").open("a") as file:
        file.write("# not committed: λ\n")
    (root / "new.py").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert main(["prepare", "functions"]) == 0
    lock = {
        "prepare@functions": {"cmd": "…", "outs": [{"path": "data/functions/prepared", "md5": "0a1b2c3d.dir", "size": 5000, "nfiles": 4}]}
    }
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": lock}))
    train(load_params(root / "params.yaml"), root, "functions")
    return root


@pytest.fixture
def project(trained, tmp_path, monkeypatch, signals):
    """A copy of `trained` as the working folder."""
    root = tmp_path / "copy"
    shutil.copytree(trained, root)
    monkeypatch.chdir(root)
    return root


def rows(root, dataset="functions"):
    return Tracker(root, experiment="regcls").tagged("dataset", dataset)


# What is recorded with a run.


def test_uncommitted_changes_are_kept_as_a_patch(tmp_path):
    (tmp_path / "a.txt").write_text("a\n")
    commit(tmp_path)
    (tmp_path / "a.txt").write_text("ä\n")
    changes = lineage(tmp_path, "functions")["changes"]
    assert changes["sha256"] == hashlib.sha256(changes["diff"].encode()).hexdigest()
    git(tmp_path, "checkout", "a.txt")
    subprocess.run(["git", "apply"], cwd=tmp_path, input=changes["diff"].encode(), check=True)
    assert (tmp_path / "a.txt").read_text() == "ä\n"


@pytest.mark.parametrize("content", [b"a\n" * provenance.DIFF_BYTES, b"\xe4\n"], ids=["large", "not UTF-8"])
def test_changes_that_cannot_be_kept_are_recorded_by_digest(tmp_path, content):
    (tmp_path / "a.txt").write_text("a\n")
    commit(tmp_path)
    (tmp_path / "a.txt").write_bytes(content)
    changes = lineage(tmp_path, "functions")["changes"]
    assert changes["diff"] is None and changes["bytes"] >= len(content) and len(changes["sha256"]) == 64
    json.dumps(changes)


def test_without_a_repository_params_yaml_and_the_machine_are_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "params.yaml").write_text("datasets: [functions]\n")
    kept = lineage(tmp_path, "functions")
    assert (kept["changes"], kept["new_files"], kept["dvc.lock"], kept["data_md5"]) == (None, [], None, "unknown")
    assert kept["params.yaml"] == "datasets: [functions]\n" and kept["machine"]["python"]


def test_a_session_says_once_that_git_refuses_the_project(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.txt").write_text("a")
    commit(tmp_path)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    session = Session(params=None, root=tmp_path, dataset="functions", tracker=None)
    assert session.tags("c")["git_commit"] == session.tags("c")["git_commit"] == "unknown"
    shown = capsys.readouterr().err
    assert shown.count("git refuses") == 1 and f"git config --global --add safe.directory {tmp_path}\n" in shown


def test_runs_of_one_call_share_one_provenance_file(trained):
    files = [trained / "mlartifacts/0" / row.run_id / "artifacts/lineage.json" for row in rows(trained)]
    assert len(files) == 4 and len({os.stat(file).st_ino for file in files}) == 1
    kept = json.loads(files[0].read_text())
    assert kept["git"]["git_commit"] == git(trained, "rev-parse", "HEAD").strip() and kept["git"]["git_dirty"] == "true"
    assert "+# not committed: λ\n" in kept["changes"]["diff"] and kept["new_files"] == ["dvc.lock", "new.py"]
    assert kept["params.yaml"] == (trained / "params.yaml").read_text()
    assert kept["dvc.lock"]["outs"][0]["md5"] == kept["data_md5"] == "0a1b2c3d.dir"


# regcls show


def test_show_reports_the_origin_of_a_run_and_that_it_matches(project, capsys):
    row = rows(project)[0]
    code, out, err = regcls(capsys, "show", row.run_id[:10])
    assert (code, err) == (0, "")
    assert out.startswith(f"{row.name}\n") and f"{row.run_id}  FINISHED\n" in out
    assert f"#/experiments/0/runs/{row.run_id}\n" in out
    head = git(project, "rev-parse", "HEAD").strip()
    assert re.search(rf"commit: {head} with uncommitted changes [0-9a-f]{{8}} \(the same here\)", out)
    assert f"  git checkout {head}\n  regcls show {row.run_id[:8]} --print diff | git apply\n" in out
    assert re.search(r"code that decides a result: [0-9a-f]{16} \(the same here\)", out)
    assert f"data: {row.tags['data_digest']} (the same here)" in out
    assert "DVC md5: 0a1b2c3d.dir (the same here)" in out and "data/functions/prepared md5 0a1b2c3d.dir, 5 kB, 4 files" in out
    assert "1 other run on these data" in out
    assert "epochs 2," in out and f"test/mse/all {row.metrics['test/mse/all']:.6g}" in out
    assert "lineage.json (" in out and "weights.safetensors (" in out


def test_parts_of_the_record_are_printed_verbatim(project, capsys):
    run_id = rows(project)[0].run_id
    assert regcls(capsys, "show", run_id, "--print", "params.yaml") == (0, (project / "params.yaml").read_text(), "")
    assert regcls(capsys, "show", run_id, "--print", "diff") == (0, git(project, "diff", "HEAD"), "")
    code, out, _ = regcls(capsys, "show", run_id, "--print", "dvc.lock")
    assert code == 0 and yaml.safe_load(out)["prepare@functions"]["outs"][0]["md5"] == "0a1b2c3d.dir"


def test_show_lists_differences_and_how_to_restore_them(project, capsys, monkeypatch):
    row = rows(project)[0]
    git(project, "commit", "--all", "-m", "second")
    for owner, name in ((FunctionsTask, "code"), (FunctionNetworks, "result_code")):
        monkeypatch.setattr(owner, name, lambda self: "f" * 64)
    shutil.rmtree(project / "data")
    (project / "dvc.lock").unlink()
    _, out, _ = regcls(capsys, "show", row.run_id)
    assert f"(here: {git(project, 'rev-parse', 'HEAD').strip()})" in out and f"(here: {'f' * 16})" in out
    assert f"data: {row.tags['data_digest']}; here: there is no prepared data in" in out
    assert "DVC md5: 0a1b2c3d.dir (here: unknown)" in out and "git log -S 0a1b2c3d.dir -- dvc.lock" in out


def test_a_run_is_found_by_id_prefix_fingerprint_or_page_url(project, capsys):
    tracker = Tracker(project, experiment="regcls")
    row = rows(project)[1]
    for text in (row.run_id, row.run_id[:8], row.tags["fingerprint"], row.tags["fingerprint"][:12], tracker.run_url(row.run_id)):
        assert regcls(capsys, "show", text)[1].startswith(f"{row.name}\n  run          {row.run_id}"), text
    again = tracker.start(SPEC, fingerprint=row.tags["fingerprint"], tags={})
    tracker.stop(again, status="KILLED", reason="a test")
    assert tracker.find(row.tags["fingerprint"][:12]).run_id == row.run_id


def test_unknown_ambiguous_and_deleted_runs_are_clear_errors(project, capsys):
    tracker = Tracker(project, experiment="regcls")
    run_id = rows(project)[0].run_id
    for text in ("zebra", "0' or 1=1", "%", "0" * 32):
        code, _, err = regcls(capsys, "show", text)
        assert code == 2 and "no run in sqlite:///" in err and repr(text) in err
    other = tracker.start(SPEC, fingerprint="f", tags={})
    while other[0] != run_id[0]:
        other = tracker.start(SPEC, fingerprint="f", tags={})
    code, _, err = regcls(capsys, "show", run_id[0])
    assert code == 2 and "with an id that begins with" in err and len(re.findall("^[0-9a-f]{32} ", err, flags=re.MULTILINE)) >= 2
    tracker._client.delete_run(run_id)
    code, _, err = regcls(capsys, "rerun", run_id)
    assert code == 2 and f"mlflow runs restore --run-id {run_id}" in err


def test_a_run_without_a_record_is_shown_as_far_as_possible(project, capsys):
    run_id = Tracker(project, experiment="regcls").start(SPEC, fingerprint="f", tags={})
    code, out, _ = regcls(capsys, "show", run_id)
    assert code == 0 and "its commit is not known" in out
    code, _, err = regcls(capsys, "show", run_id, "--print", "diff")
    assert code == 2 and "has no lineage.json" in err
    plain = Tracker(project, experiment="regcls")._client.create_run("0").info.run_id
    code, out, _ = regcls(capsys, "show", plain)
    assert code == 0 and "was not made by regcls run or regcls train" in out


def test_all_runs_on_a_data_version_are_listed(project, capsys):
    runs = rows(project)
    digest = runs[0].tags["data_digest"]
    on_it = {row.run_id[:12] for row in runs if row.tags["data_digest"] == digest}
    assert len(on_it) == 2

    def listed_runs(version):
        code, out, _ = regcls(capsys, "show", "--data", version)
        assert code == 0
        return {line.split()[0] for line in out.splitlines()[1:]}

    assert listed_runs(digest) == listed_runs(digest[:8]) == on_it
    assert listed_runs("functions") == listed_runs("0a1b2c3d.dir") == listed_runs("0a1b2c3d") == {row.run_id[:12] for row in runs}
    for version, expected in (
        ("ffff", "no run on the data ffff"),
        ("imdb_wiki", "no run on the data imdb_wiki"),
        ("all of it", "--data all of it: "),
    ):
        code, _, err = regcls(capsys, "show", "--data", version)
        assert code == 2 and expected in err


# regcls rerun


FOUND = {("reg+cls", classes): 0.1 for classes in (2, 10, 100)}
SPECS_OF = {
    "functions": function_specs,
    "images": lambda section, dataset: grids.all_specs(image_spec, section, dataset, FOUND),
    "depth": lambda section, dataset: grids.all_specs(depth_spec, section, dataset, FOUND),
    "sequences": lambda section, dataset: sequence_specs(section, dataset, {}),
}


@pytest.mark.parametrize("dataset", ["functions", "functions_small", "imdb_wiki", "portraits", "nyud2", "rooms", "breakfast", "walks"])
def test_every_spec_can_be_rebuilt_from_its_recorded_parameters(dataset):
    params = load_params(ROOT / "params.yaml")
    specs = SPECS_OF[params.task(dataset)](params.datasets[dataset], dataset)
    specs += [replace(spec, milestones=(), loss_scaling="eq4", huber_delta=1e-7) for spec in specs if isinstance(spec, ImageSpec)]
    assert len(specs) > 10
    kind = task_named(params.task(dataset)).spec_type
    assert all(kind(**typed(spec.params(), kind)).digest() == spec.digest() for spec in specs)


def test_a_rerun_is_a_new_run_with_the_same_results(project, capsys):
    row = next(row for row in rows(project) if row.params["method"] == "reg+cls")
    code, out, err = regcls(capsys, "rerun", row.run_id[:8])
    assert code == 0
    assert re.search(r"^data: the same", err, flags=re.MULTILINE) and re.search(r"^commit: the same", err, flags=re.MULTILINE)
    (again,) = Tracker(project, experiment="regcls").tagged("rerun_of", row.run_id)
    assert again.status == "FINISHED" and again.tags["fingerprint"] == row.tags["fingerprint"] and again.params == row.params
    assert {name: again.metrics[name] for name in row.metrics} == row.metrics
    assert re.search(
        rf"^test/mse/all +{row.metrics['test/mse/all']:.6g} +{row.metrics['test/mse/all']:.6g} +equal$", out, flags=re.MULTILINE
    )
    assert "final metrics are equal" in out
    assert f"repeated by  {again.run_id} FINISHED" in regcls(capsys, "show", row.run_id)[1]
    assert f"repeats      {row.run_id}" in regcls(capsys, "show", again.run_id)[1]

    code, out, err = regcls(capsys, "compare")
    assert code == 0 and "duplicates" not in err  # a deliberate rerun
    page = (project / "reports/functions/index.html").read_text()
    assert row.run_id in page and again.run_id not in page


@pytest.mark.parametrize(
    "now, same, expected",
    [
        ({"threads": "1", "gpu": "none"}, True, "code, data and kind of machine are the same. On a GPU"),
        ({"threads": "2", "gpu": "none"}, True, "threads of a run: then 1, now 2. Sums round differently"),
        ({"gpu": "none"}, True, "code, data and kind of machine are the same. On a GPU"),  # for a run without such a tag
        ({"threads": "16", "gpu": "H100"}, False, ""),
    ],
)
def test_a_rerun_names_possible_causes_of_rounding(capsys, now, same, expected):
    then = TrackedRun(
        run_id="a" * 32, name="nyud2 · reg", status="FINISHED", started=0, ended=1, tags={"task": "depth", "threads": "1", "gpu": "none"},
        params={"dataset": "nyud2"}, metrics={"test/rmse/all": 3.493, "val/rmse/all": 3.2},
    )  # fmt: skip
    _compare_results(then, replace(then, tags={"task": "depth"} | now, metrics={"test/rmse/all": 3.329, "val/rmse/all": 3.2}), same=same)
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith(expected or "1 of 2 final metrics differ")


def test_a_rerun_with_other_code_says_so_and_continues(project, capsys, monkeypatch):
    row = rows(project)[0]
    git(project, "commit", "--all", "-m", "second")
    for owner, name in ((FunctionsTask, "code"), (FunctionNetworks, "result_code")):
        monkeypatch.setattr(owner, name, lambda self: "f" * 64)
    code, out, err = regcls(capsys, "rerun", row.run_id)
    assert code == 0 and "final metrics are equal" in out
    assert re.search(rf"commit: then \w+ with uncommitted changes \w+, now {git(project, 'rev-parse', 'HEAD').strip()}\n", err)
    recorded = Tracker(project, experiment="regcls").find(row.run_id).tags["code_digest"]
    assert f"code that decides a result: then {recorded}, now {'f' * 16}\n" in err
    assert f"The recorded code: git checkout {row.tags['git_commit']}" in err


def test_a_rerun_on_other_data_needs_an_explicit_request(project, make_project, capsys):
    row = rows(project)[0]
    make_project(overlay(FOUR_RUNS, {"functions": {"data": {"samples": 20480}}}), project)
    assert regcls(capsys, "prepare", "functions")[0] == 0
    code, _, err = regcls(capsys, "rerun", row.run_id)
    assert code == 2 and f"the data here are not those of run {row.run_id}" in err and "git log -S 0a1b2c3d.dir" in err
    assert len(rows(project)) == 4
    code, out, err = regcls(capsys, "rerun", row.run_id, "--anyway")
    assert code == 0 and f"data: then {row.tags['data_digest']}, now " in err and re.search(r"\d+ of \d+ final metrics differ", out)
    (again,) = Tracker(project, experiment="regcls").tagged("rerun_of", row.run_id)
    assert again.tags["data_digest"] != row.tags["data_digest"] and again.tags["fingerprint"] != row.tags["fingerprint"]

    make_project(overlay(FOUR_RUNS, {"functions": {"data": {"data_seeds": [5, 6, 7, 8, 9]}}}), project)
    assert regcls(capsys, "prepare", "functions")[0] == 0
    code, _, err = regcls(capsys, "rerun", row.run_id, "--anyway")
    assert code == 2 and "were drawn with data seed 5, the run's with 2732" in err


def test_a_rerun_does_not_need_the_params_its_data_were_prepared_with(project, make_project, capsys):
    make_project(overlay(FOUR_RUNS, {"functions": {"data": {"samples": 20480}, "training": {"epochs": 3}}}), project)
    code, out, _ = regcls(capsys, "rerun", rows(project)[0].run_id)
    assert code == 0 and "final metrics are equal" in out


def test_a_rerun_without_data_or_of_a_running_run_is_a_clear_error(project, capsys):
    tracker = Tracker(project, experiment="regcls")
    running = tracker.start(SPEC, fingerprint="f", tags={})
    tracker._client.set_tag(running, "regcls.process", process_identity(os.getppid()))  # lives
    code, _, err = regcls(capsys, "rerun", running)
    assert code == 2 and f"run {running} is still in progress" in err
    run_id = rows(project)[0].run_id
    shutil.rmtree(project / "data")
    code, _, err = regcls(capsys, "rerun", run_id)
    assert code == 2 and "there is no prepared data in" in err and "git log -S 0a1b2c3d.dir" in err
    code, _, err = regcls(capsys, "rerun", tracker._client.create_run("0").info.run_id)
    assert code == 2 and "was not made by regcls run or regcls train" in err


@pytest.mark.slow
def test_a_rerun_on_faces_does_not_touch_an_interrupted_runs_state(make_faces, capsys, monkeypatch, one_core, signals):
    monkeypatch.setattr(Compute, "cores", 1)
    monkeypatch.setattr(RunFiles, "log_model", lambda *args, **kwargs: None)  # takes seconds and is not used here
    root = make_faces()
    monkeypatch.chdir(root)
    log_metrics = Tracker.log_metrics

    def interrupted(tracker, run, points):
        log_metrics(tracker, run, points)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "log_metrics", interrupted)
        assert regcls(capsys, "run", "imdb_wiki", "--classes", "10")[0] == 130
    (killed,) = rows(root, "imdb_wiki")
    kept = {file: file.stat().st_mtime_ns for file in (root / ".regcls/checkpoints/imdb_wiki" / killed.tags["fingerprint"]).iterdir()}
    assert killed.status == "KILLED" and len(kept) > 1

    code, out, _ = regcls(capsys, "rerun", killed.run_id)
    assert code == 0 and "the recorded run ended as KILLED: there is nothing to compare with" in out
    (first,) = Tracker(root, experiment="regcls").tagged("rerun_of", killed.run_id)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept  # an equal run can still resume from there
    assert os.listdir(root / ".regcls/checkpoints/imdb_wiki") == [killed.tags["fingerprint"]]

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, "log_metrics", interrupted)
        assert regcls(capsys, "rerun", first.run_id)[0] == 130
    code, out, _ = regcls(capsys, "rerun", first.run_id)  # goes on
    (second,) = Tracker(root, experiment="regcls").tagged("rerun_of", first.run_id)
    assert code == 0 and second.status == "FINISHED" and "final metrics are equal" in out


def test_runs_on_a_server_are_found_by_id_and_data_and_rerun(trained, project, tracking_server, capsys, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_server.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "lineage")
    assert regcls(capsys, "run", "functions", "--classes", "4")[0] == 0
    (row,) = rows(project)
    code, out, _ = regcls(capsys, "show", row.run_id[:8])
    assert code == 0 and f"{tracking_server.uri}/#/experiments/" in out and "(the same here)" in out and "lineage.json (" in out
    code, out, _ = regcls(capsys, "rerun", row.tags["fingerprint"])
    assert code == 0 and "final metrics are equal" in out
    code, out, _ = regcls(capsys, "show", "--data", row.tags["data_digest"][:8])
    assert code == 0 and len(out.splitlines()) == 3 and all("FINISHED" in line for line in out.splitlines()[1:])
