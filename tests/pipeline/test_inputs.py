"""build/inputs: the dependencies of each data set's stages change with what affects their results, and only then."""

import json
import os
import shutil
from importlib import import_module

import pytest
import yaml

from conftest import overlay, shipped_tree
from regcls import provenance
from regcls.errors import UserError
from regcls.params import load_params
from regcls.pipeline.inputs import write_inputs
from regcls.pipeline.prepare import prepare, show_raw

OF_TASK = {
    "functions": {"functions", "functions_small"},
    "images": {"imdb_wiki", "agedb", "portraits"},
    "depth": {"nyud2", "rooms"},
    "sequences": {"breakfast", "walks"},
    "table": {"diabetes"},
}


def files_of(root):
    """The files of build/inputs: ("rooms", "train") -> text."""
    return {(file.parent.name, file.stem): file.read_text() for file in (root / "build" / "inputs").glob("*/*.json")}


def changed_data_sets(before, after):
    """The data sets whose prepare.json changed, and those whose train.json did."""
    assert before.keys() == after.keys()
    changed = {key for key in before if before[key] != after[key]}
    return tuple({dataset for dataset, stage in changed if stage == which} for which in ("prepare", "train"))


@pytest.fixture(scope="module")
def affected_by(tmp_path_factory):
    """Find the data sets to be prepared and those to be trained on after changes to params.yaml."""
    root = tmp_path_factory.mktemp("params")

    def inputs_written(changes):
        tree = overlay(shipped_tree(), changes)
        (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
        write_inputs(load_params(root / "params.yaml"), root)
        return files_of(root)

    before = inputs_written({})
    return lambda changes: changed_data_sets(before, inputs_written(changes))


def test_rewriting_the_files_of_every_data_set_gives_the_same_bytes(make_project):
    root = make_project({"datasets": ["rooms"]})
    params = load_params(root / "params.yaml")
    write_inputs(params, root)
    before = files_of(root)
    assert before.keys() == {(dataset, stage) for dataset in params.datasets for stage in ("prepare", "train")}
    write_inputs(params, root)
    assert files_of(root) == before


def test_the_files_hold_what_the_stages_use_of_a_section(make_project):
    root = make_project()
    write_inputs(load_params(root / "params.yaml"), root)
    prepare, train = (json.loads(files_of(root)["rooms", stage]) for stage in ("prepare", "train"))
    assert prepare.keys() == {"task", "data", "code"} and prepare["task"] == "depth" and prepare["data"]["crop"] == [56, 76]
    assert (train["training"]["epochs"], train["data"], len(train["code"])) == (4, prepare["data"], 64)


def test_a_folder_for_raw_files_is_made_and_existing_files_are_kept(make_project):
    root = make_project()
    (root / "data/rooms/raw").mkdir(parents=True)
    (root / "data/rooms/raw/nyud2.zip").write_text("mine")
    write_inputs(load_params(root / "params.yaml"), root)
    assert (root / "data/walks/raw").is_dir() and (root / "data/rooms/raw/nyud2.zip").read_text() == "mine"


def test_nothing_is_left_of_a_removed_data_set(make_project):
    root = make_project({"houses": {"like": "portraits"}})
    write_inputs(load_params(root / "params.yaml"), root)
    make_project(folder=root)
    write_inputs(load_params(root / "params.yaml"), root)
    assert not (root / "build/inputs/houses").exists()


@pytest.mark.parametrize(
    "changes, prepared, trained",
    [
        ({"rooms": {"training": {"epochs": 1}}}, set(), {"rooms"}),
        ({"rooms": {"grids": {"table4": None}}}, set(), {"rooms"}),
        ({"rooms": {"title": "Rooms"}}, set(), {"rooms"}),
        ({"rooms": {"data": {"split_seed": 1}}}, {"rooms"}, {"rooms"}),
        ({"nyud2": {"training": {"jitter": 0.1}}}, set(), {"nyud2", "rooms"}),
        ({"nyud2": {"data": {"split_seed": 1}}}, {"nyud2", "rooms"}, {"nyud2", "rooms"}),
        ({"nyud2": {"training": {"learning_rate": 0.5}}}, set(), {"nyud2"}),  # rooms sets its own
        ({"imdb_wiki": {"training": {"flip": 0.1}}}, set(), {"imdb_wiki", "agedb", "portraits"}),
        ({"datasets": ["rooms"], "default_dataset": "rooms"}, set(), set()),
        ({"tracking": {"state_epochs": 1}, "compute": {"processes": 2}}, set(), set()),
    ],
    ids=["training", "grids", "title", "data", "like", "data of like", "overridden", "two like it", "choice", "compute"],
)
def test_a_changed_section_affects_itself_and_those_that_inherit_from_it(affected_by, changes, prepared, trained):
    assert affected_by(changes) == (prepared, trained)


@pytest.fixture(scope="module")
def affected_by_code(tmp_path_factory):
    """Find the data sets to be prepared and those to be trained on after a text was appended to a file of src/regcls."""
    root = tmp_path_factory.mktemp("code")
    source = root / provenance.SOURCE.name
    shutil.copytree(provenance.SOURCE, source, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "params.yaml").write_text(yaml.safe_dump(shipped_tree(), sort_keys=False))
    params = load_params(root / "params.yaml")

    def inputs_written():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(provenance, "SOURCE", source)  # of which digests are computed
            for task in OF_TASK:
                code = import_module(f"regcls.tasks.{task}.code")
                patch.setattr(code, "result_code", code.result_code.__wrapped__)  # not the cached one
            write_inputs(params, root)
        return files_of(root)

    before = inputs_written()

    def changed(name, text):
        file = source / name
        content = file.read_text()
        file.write_text(content + text)
        try:
            return changed_data_sets(before, inputs_written())
        finally:
            file.write_text(content)

    return changed


@pytest.mark.parametrize(
    "name, prepared, trained",
    [
        ("training/loop.py", set(), {"images", "depth"}),
        ("training/ensemble.py", set(), {"functions", "sequences", "table"}),
        ("tasks/images/train.py", set(), {"images"}),
        ("tasks/depth/class_head.py", set(), {"depth"}),
        ("tasks/functions/networks.py", set(), {"functions"}),
        ("tasks/sequences/networks.py", set(), {"sequences"}),
        ("tasks/images/prepare.py", {"images"}, set()),
        ("tasks/depth/stand_in.py", {"depth"}, set()),
        ("data/archives.py", {"images", "depth", "sequences"}, set()),
        ("data/store.py", set(OF_TASK), set()),
        ("tracking/tracker.py", set(), set()),
        ("reports/overview.py", set(), set()),
        ("pipeline/train.py", set(), set()),
        ("params/__init__.py", set(), set()),
        ("tasks/images/params.py", set(), set()),
        ("tasks/__init__.py", set(), set()),
        ("methods/__init__.py", set(), set()),
        ("methods/hl_gauss.py", set(), set()),  # not used by any grid of these data sets
        ("methods/loss.py", set(), {"images", "depth"}),
    ],
)
def test_changed_code_affects_only_the_stages_it_decides(affected_by_code, name, prepared, trained):
    expected = tuple(set().union(*(OF_TASK[task] for task in tasks)) for tasks in (prepared, trained))
    assert affected_by_code(name, "\nSOMETHING_ELSE = 1\n") == expected


def test_the_code_of_a_loss_affects_only_data_sets_whose_grids_use_it(make_project, source_copy):
    methods = {"methods": ["reg", "focal-r(beta=1)+cls"]}
    root = make_project({"rooms": {"grids": {"table2": methods}}, "walks": {"grids": {"table5": methods}}})
    params, inputs_written = load_params(root / "params.yaml"), []
    for more in ("", "\nSOMETHING_ELSE = 1\n"):
        file = source_copy / "methods" / "focal_r.py"
        file.write_text(file.read_text() + more)
        write_inputs(params, root)
        inputs_written.append(files_of(root))
    assert changed_data_sets(*inputs_written) == (set(), {"rooms", "walks"})
    assert json.loads(inputs_written[0]["rooms", "train"])["losses"].keys() == {"focal-r(beta=1)+cls"}
    assert "losses" not in json.loads(inputs_written[0]["portraits", "train"])


@pytest.mark.parametrize("name", ["training/loop.py", "training/ensemble.py", "data/store.py"])
def test_comments_and_docstrings_trigger_nothing(affected_by_code, name):
    assert affected_by_code(name, '\n# a remark\n"""Another."""\n') == (set(), set())


def test_a_temporary_workspace_sees_the_projects_raw_files(make_project, tmp_path):
    workspace = make_project().joinpath(".dvc", "tmp", "exps", "tmp1")
    workspace.mkdir(parents=True)
    shutil.copy(tmp_path / "project" / "params.yaml", workspace)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other").write_text("other")
    ours, theirs = (home / "data" / "functions" / "raw" for home in (workspace, tmp_path / "project"))
    (theirs / "deep").mkdir(parents=True)
    (theirs / "deep" / "file").write_text("text")
    (theirs / "link").symlink_to(tmp_path / "elsewhere")
    for _ in range(2):
        write_inputs(load_params(workspace / "params.yaml"), workspace)
        # What os.walk descends into, as DVC does, must be the same.
        assert [(names, sorted(files)) for _, names, files in os.walk(ours)] == [
            (names, sorted(files)) for _, names, files in os.walk(theirs)
        ]
        assert (ours / "deep" / "file").read_text() == "text" and (ours / "link" / "other").read_text() == "other"


def test_raw_files_of_the_workspace_itself_are_left_alone(make_project, tmp_path):
    workspace = make_project().joinpath(".dvc", "tmp", "exps", "tmp1")
    for home, name in ((workspace, "own"), (tmp_path / "project", "file")):
        (home / "data" / "functions" / "raw").mkdir(parents=True)
        (home / "data" / "functions" / "raw" / name).touch()
    params, raw = load_params(tmp_path / "project" / "params.yaml"), workspace / "data" / "functions" / "raw"
    raw.with_name("raw.dvc").touch()  # of dvc add
    write_inputs(params, workspace)
    assert os.listdir(raw) == ["own"] and show_raw(workspace, "functions") == raw
    raw.with_name("raw.dvc").unlink()
    write_inputs(params, workspace)  # git has only a part of the files
    assert sorted(os.listdir(raw)) == ["file", "own"] and not (raw / "own").is_symlink()


def test_raw_files_that_dvc_puts_into_the_workspace_are_prepared(make_project, tmp_path, capsys):
    houses = {"like": "diabetes", "data": {"source": "raw", "file": "houses.csv", "target": "price", "group": None, "split": None}}
    workspace = make_project({"houses": houses}).joinpath(".dvc", "tmp", "exps", "tmp1")
    workspace.mkdir(parents=True)
    shutil.copy(tmp_path / "project" / "params.yaml", workspace)
    for home, rows in ((workspace, 60), (tmp_path / "project", 90)):
        raw = home / "data" / "houses" / "raw"
        raw.mkdir(parents=True)
        raw.joinpath("houses.csv").write_text("size,price\n" + "".join(f"{row * 31 % 101},{row * row}\n" for row in range(rows)))
    (workspace / "data" / "houses" / "raw.dvc").touch()
    prepare(load_params(workspace / "params.yaml"), workspace, "houses")
    assert capsys.readouterr().out.startswith("60 rows, ")


def test_raw_files_on_a_disk_that_is_not_mounted_concern_only_their_data_set(make_project):
    root = make_project({"datasets": ["rooms", "walks"]})
    params = load_params(root / "params.yaml")
    for dataset in ("portraits", "rooms"):
        raw = root / "data" / dataset / "raw"
        shutil.rmtree(raw.parent, ignore_errors=True)  # from the first round
        raw.parent.mkdir(parents=True)
        raw.symlink_to("/not/mounted")
        if dataset == "portraits":
            write_inputs(params, root)
    with pytest.raises(UserError, match=f"{root}/data/rooms/raw links to /not/mounted, which does not exist. Mount its disk"):
        write_inputs(params, root)
