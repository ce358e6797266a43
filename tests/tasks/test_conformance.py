"""Requirements on every task: one set of tests for all of TASKS. A task's own tests are in the folder of its name."""

import re
import sys
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import SHRUNK, overlay, shipped_tree
from regcls import provenance
from regcls.data.store import prepared_folder
from regcls.errors import UserError
from regcls.options import purpose_of
from regcls.params import load_params, option_names, parse_options
from regcls.params.types import Section
from regcls.tasks import TASKS, task_named, task_params
from regcls.tasks.task import Session, Task
from regcls.tracking.run_table import typed
from regcls.tracking.tracker import Tracker


@dataclass(frozen=True, kw_only=True)
class OwnDataset:
    """A data set of a task under its own name, which inherits from a shipped one: generated and shrunk."""

    root: Path
    kind: str  # the task's name
    like: str

    @property
    def name(self):
        return f"own-{self.kind}"

    @property
    def task(self) -> Task:
        return task_named(self.kind)

    @cached_property
    def params(self):
        return load_params(self.root / "params.yaml")

    @property
    def section(self):
        return self.params.datasets[self.name]

    @property
    def folder(self):
        return prepared_folder(self.root, self.name)

    def prepare(self, folder, *, data=None, raw=None):
        """Prepare into `folder`, optionally with other `data` than the section's; return the report lines."""
        section = replace(self.section, data=data or self.section.data)
        return self.task.prepare(section, folder, raw=raw or folder.parent / "raw", dataset=self.name, processes=1)

    @cached_property
    def data(self):
        self.prepare(self.folder)
        return self.task.open(self.folder, section=self.section, verify=False)

    def spec(self, **given):
        return self.task.single_spec(self.section, self.name, parse_options(self.kind, given))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("conformance")


@pytest.fixture(scope="module", params=TASKS)
def own(request, root) -> OwnDataset:
    tree = overlay(shipped_tree(), SHRUNK)
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    params = load_params(root / "params.yaml")
    generated = (n for n, section in params.datasets.items() if getattr(section.data, "source", "") != "raw")
    dataset = OwnDataset(root=root, kind=request.param, like=next(name for name in generated if params.task(name) == request.param))
    (root / "params.yaml").write_text(yaml.safe_dump({**tree, dataset.name: {"like": dataset.like}}, sort_keys=False))
    return dataset


@pytest.fixture(scope="module")
def tracker(root):
    return Tracker(root, experiment="regcls")


def reseeded(values: Any) -> Any:
    """A dataclass with every seed increased by one."""
    changed = {}
    for name, value in ((field.name, getattr(values, field.name)) for field in fields(values)):
        if is_dataclass(value):
            changed[name] = reseeded(value)
        elif "seed" in name:
            changed[name] = tuple(seed + 1 for seed in value) if isinstance(value, tuple) else value + 1
    return replace(values, **changed)


def test_a_section_may_inherit_from_another_under_its_own_name(own):
    assert own.params.task(own.name) == own.kind and own.section == own.params.datasets[own.like]
    assert isinstance(own.section, task_params(own.kind).section) and isinstance(own.section, Section)


def test_prepared_data_can_be_opened_and_verified(own, tmp_path):
    assert own.prepare(tmp_path / "prepared"), "lines with its counts"
    for section, verify in ((None, False), (own.section, False), (own.section, True)):
        data = own.task.open(tmp_path / "prepared", section=section, verify=verify)
        assert isinstance(data, own.task.data_type) and data.prepared.folder == tmp_path / "prepared"


def test_data_made_from_other_parameters_are_refused(own):
    other = replace(own.section, data=reseeded(own.section.data))
    assert own.task.open(own.data.prepared.folder, section=own.section, verify=False)
    with pytest.raises(UserError, match=rf"prepared with other values of .*(seed|stand_in).*: regcls prepare {own.name}"):
        own.task.open(own.data.prepared.folder, section=other, verify=False)


def test_the_digest_is_reproducible_and_depends_on_the_seed(own, tmp_path):
    own.prepare(tmp_path / "again")
    own.prepare(tmp_path / "other", data=reseeded(own.section.data))
    again, other = (own.task.open(tmp_path / name, section=None, verify=False) for name in ("again", "other"))
    assert own.task.digest(own.spec(), again) == own.task.digest(own.spec(), own.data) != own.task.digest(own.spec(), other)
    assert again.prepared.digest() == own.data.prepared.digest() != other.prepared.digest()


def test_a_stand_in_is_prepared_like_raw_files_if_the_task_has_any(own, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    if not hasattr(own.section.data, "source"):
        with pytest.raises(UserError, match="there are no raw files"):
            own.task.write_stand_in(own.section, raw, processes=1)
        assert not any(raw.iterdir())
        return
    assert own.task.write_stand_in(own.section, raw, processes=1) and any(raw.iterdir())
    own.prepare(tmp_path / "prepared", data=replace(own.section.data, source="raw"), raw=raw)
    found = own.task.open(tmp_path / "prepared", section=None, verify=True)
    assert own.task.digest(own.spec(), found) == own.task.digest(own.spec(), own.data)


def test_a_run_has_a_name_and_the_tags_for_finding_it(own):
    spec = own.spec()
    assert isinstance(spec, own.task.spec_type) and (spec.task, spec.dataset) == (own.kind, own.name)
    assert spec.name.startswith(spec.method) and own.name in spec.name
    found_by = {"task": own.kind, "dataset": own.name, "method": spec.method, "classes": str(spec.classes), "seed": str(spec.seed)}
    assert found_by.items() <= spec.tags().items()


@pytest.mark.parametrize("method", ["reg", "reg+cls", "reg+cls-bal", "focal-r", "focal-r(beta=0.5)+cls", "focal-r(gamma=2)+cls-bal"])
def test_a_spec_can_be_rebuilt_from_its_logged_params(own, method):
    spec = own.spec(method=method)
    assert spec.method == method and type(spec)(**typed(spec.params(), type(spec))) == spec


def test_fingerprints_depend_on_spec_data_and_code(own, tmp_path, monkeypatch):
    own.prepare(tmp_path / "other", data=reseeded(own.section.data))
    other = own.task.open(tmp_path / "other", section=None, verify=False)
    spec, prints = own.spec(), []
    for candidate, data in ((spec, own.data), (own.spec(seed=str(spec.seed + 1)), own.data), (spec, other)):
        prints.append(own.task.fingerprint(candidate, data))
    assert own.task.fingerprint(own.spec(), own.data) == prints[0]
    for name, module in list(sys.modules.items()):
        if name.startswith(f"regcls.tasks.{own.kind}.") and hasattr(module, "result_code"):
            monkeypatch.setattr(module, "result_code", lambda: "another")
    assert own.task.code() == "another"
    assert len({*prints, own.task.fingerprint(spec, own.data)}) == 4


def test_every_option_has_a_purpose_and_a_default(own):
    options = option_names(own.kind)
    assert {"method", "seed", "epochs"} <= set(options) and all(purpose_of(option, own.kind) for option in options)
    defaults = task_params(own.kind).defaults(own.section)
    assert all(defaults[option] for option in options)


def test_the_example_in_the_help_gives_a_valid_run(own):
    words = task_params(own.kind).example.split()
    given = {option.removeprefix("--").replace("-", "_"): value for option, value in zip(words[::2], words[1::2], strict=True)}
    logged = own.spec(**given).params()
    assert given and {name: logged[name] for name in given} == given


def test_a_run_matches_its_own_data(own):
    assert own.task.misfit(own.spec(), own.data) is None


TOO_MUCH = "65,536 classes, but there are only [0-9,]+ training|training .* needs about .* GB of memory, and 1.0 GB are free"


def test_more_classes_than_samples_or_memory_are_refused_before_a_run_begins(own, tracker, monkeypatch):
    monkeypatch.setattr("regcls.processes.free_memory", lambda: 1e9)
    spec = own.spec(method="reg+cls", classes="65536")
    session = Session(params=own.params, root=own.root, dataset=own.name, tracker=tracker)
    with pytest.raises(UserError, match=TOO_MUCH):
        own.task.check_fit([spec], own.data)
        own.task.train_one(spec, own.data, session)
    if own.kind == "table":
        return  # its grids have at most as many classes as there are distinct targets
    grids = {name: replace(grid, methods=("reg+cls",), classes=(10, 65536), lambdas=(1.0,)) for name, grid in own.section.grids.items()}
    params = replace(own.params, datasets={**own.params.datasets, own.name: replace(own.section, grids=grids)})
    with pytest.raises(UserError, match=TOO_MUCH):
        own.task.train_grids(own.data, replace(session, params=params))
    assert tracker.tagged("dataset", own.name) == []


def test_a_network_larger_than_the_memory_is_refused_before_a_run_begins(own, tracker, monkeypatch):
    monkeypatch.setattr("regcls.processes.free_memory", lambda: 1e9)
    largest = {"hidden": "65536x65536"} if "hidden" in option_names(own.kind) else {"width": "1024", "model": "resnet50"}
    session = Session(params=own.params, root=own.root, dataset=own.name, tracker=tracker)
    with pytest.raises(UserError, match="needs about .* GB of memory, and 1.0 GB are free"):
        own.task.train_one(own.spec(method="reg", **largest), own.data, session)
    assert tracker.tagged("dataset", own.name) == []


# test/mae/few, train/loss, epochs/val/mse/all, selected_on_test/test/rmse/all; best_epoch
METRIC_NAME = re.compile(r"(epochs/)?((selected_on_test/)?(train|val|test)/\w+(/\w+)?|(?!(train|val|test)_)\w+)")


@pytest.mark.usefixtures("one_core")
def test_a_run_is_tracked_with_its_test_error_and_not_repeated(own, tracker, monkeypatch):
    monkeypatch.setattr(Tracker, "log_model", lambda *args, **kwargs: None)  # takes seconds and is tested elsewhere
    session = Session(params=own.params, root=own.root, dataset=own.name, tracker=tracker)
    first = own.task.train_one(own.spec(), own.data, session)
    (row,) = tracker.collect(own.name, own.task.spec_type).to_dict("records")
    assert (first.trained, first.kept, first.failed, row["status"]) == (1, 0, [], "FINISHED")
    assert row["fingerprint"] == own.task.fingerprint(own.spec(), own.data) and tracker.metrics(row["run_id"])[own.task.error[1]] > 0
    assert [name for name in tracker.metrics(row["run_id"]) if not METRIC_NAME.fullmatch(name)] == []
    again = own.task.train_one(own.spec(), own.data, session)
    assert (again.trained, again.kept, again.index[0]["run_id"]) == (0, 1, row["run_id"])
    assert len(tracker.collect(own.name, own.task.spec_type)) == 1


def code_digests(kind):
    """Digests of the code that prepares data, and of the code that affects results."""
    result_code = import_module(f"regcls.tasks.{kind}.code").result_code
    return (
        provenance.code_digest(f"regcls.tasks.{kind}.prepare", without_params=True),
        getattr(result_code, "__wrapped__", result_code)(),
    )


@pytest.mark.parametrize("kind", TASKS)
def test_only_code_that_affects_results_makes_data_and_runs_stale(kind, source_copy):
    def digests_after_appending_to(*files):
        for file in files:
            file.write_text(file.read_text() + "\nmore = 1\n")
        return code_digests(kind)

    before = code_digests(kind)
    unrelated = [source_copy / "tasks" / "__init__.py", *(source_copy / "tracking").glob("*.py"), *(source_copy / "reports").glob("*.py")]
    assert digests_after_appending_to(*unrelated) == before
    folder = source_copy / "tasks" / kind
    report_files = [
        folder / f"{name}.py"
        for name in ("report", "published", "figures", "tables", "compared", "metrics")
        if (folder / f"{name}.py").exists()
    ]
    assert len(report_files) >= 2 and digests_after_appending_to(source_copy / "metrics.py", *report_files) == before, (
        "what a report makes of a run"
    )
    assert not set(digests_after_appending_to(*(source_copy / "tasks" / kind).glob("*.py"))) & set(before)
