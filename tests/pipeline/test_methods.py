"""`regcls methods`, and `--methods all`."""

import re

import pytest

from regcls.cli import main
from regcls.errors import UserError
from regcls.methods import KINDS, canonical
from regcls.params import load_params
from regcls.tasks import TASKS, task_params
from regcls.tasks.planning import asked_for


def test_all_parts_are_listed_with_their_options_and_the_tasks_that_can_use_them(make_project, monkeypatch, capsys):
    monkeypatch.chdir(make_project())
    assert main(["methods"]) == 0
    out = capsys.readouterr().out
    for name, kind in KINDS.items():
        (row,) = re.findall(rf"^ {re.escape(name)}  .*$", out, re.M)
        assert all(f"{key}={value:g}" in out for key, value in kind.options.items())
        marks = ["✓" if kind.needs in (None, *task_params(task).provides) else "–" for task in TASKS]
        assert row.split()[-len(TASKS) :] == marks


@pytest.mark.parametrize("task", TASKS)
def test_all_means_each_part_that_the_task_can_use(task):
    found = asked_for(["all"], task)
    usable = {name for name, kind in KINDS.items() if kind.needs in (None, *task_params(task).provides)} - {"reg"}
    assert {name.removeprefix("reg+") for name in found} == usable and all(canonical(name) == name for name in found)
    assert asked_for(["reg+cls", "all"], task)[0] == "reg+cls" and len(asked_for(["reg+cls", "all"], task)) == len(found)


def test_a_method_that_needs_what_a_task_lacks_is_refused_at_the_start(make_project, monkeypatch):
    root = make_project({"diabetes": {"grids": {"main": {"methods": ["reg", "lds"]}}}})
    load_params(root / "params.yaml")
    monkeypatch.setitem(KINDS, "lds", KINDS["lds"].__class__(**{**vars(KINDS["lds"]), "needs": "features"}))
    with pytest.raises(UserError, match=r"diabetes.grids.main.methods: lds: lds needs features, which the networks here do not have"):
        load_params(root / "params.yaml")
    with pytest.raises(UserError, match=r"--methods: lds\+cls: lds needs features"):
        asked_for(["lds+cls"], "table")
    assert "lds" in asked_for(["all"], "images") and "lds" not in asked_for(["all"], "table")
