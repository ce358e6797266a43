"""`regcls doctor`: no check hides another or hangs, and it works where nothing else does."""

import io
import os
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console

from conftest import ROOT, SHIPPED
from regcls.checks import Place, bad, good, note, project
from regcls.mlproject import environment_link
from regcls.params import load_params
from regcls.pipeline.doctor import DEADLINE, GROUPS, Step, examine, outcome_of, patience, show
from repositories import git
from servers import black_hole
from simulated_checks import buggy, crashing, failing, hanging, passing, raising_user_error, unimportable

NAMES = [step.name for group in GROUPS for step in group]


def place_of(root):
    return Place(root=root, params=load_params(root / "params.yaml"))


@pytest.mark.slow
def test_crashing_or_hanging_checks_do_not_hide_the_others(tmp_path, capsys):
    groups = ((passing, crashing, failing), (hanging,), (buggy, failing))
    steps = tuple(tuple(Step(name=f"{number} {check.__name__}", check=check) for check in checks) for number, checks in enumerate(groups))
    started = time.monotonic()
    found = examine(steps, Place(root=tmp_path, params=None), deadline=8)
    assert 8 <= time.monotonic() - started < 11
    assert list(found) == ["0 passing", "0 crashing", "0 failing", "1 hanging", "2 buggy", "2 failing"]
    assert found["0 passing"] == good(f"in {tmp_path}")
    assert "crashed (exit code -11)" in found["0 crashing"].text
    assert "no answer within" in found["1 hanging"].text
    assert found["2 buggy"].text.startswith("the check itself failed: KeyError")
    assert found["2 failing"] == bad("broken", "mend it")
    assert "checking: " in capsys.readouterr().err  # takes seconds


def test_a_check_is_skipped_if_its_prerequisite_is_bad(tmp_path):
    first, second = Step(name="first", check=failing), Step(name="second", check=passing, after="first")
    third, fourth = Step(name="third", check=passing), Step(name="fourth", check=passing, needs_params=True)
    assert examine(((first, second), (third, fourth)), Place(root=tmp_path, params=None), deadline=20) == {
        "first": bad("broken", "mend it"),
        "second": note("not checked: first comes first"),
        "third": good(f"in {tmp_path}"),
        "fourth": note("not checked: params.yaml comes first"),
    }


def test_an_exception_gives_an_outcome(tmp_path):
    place = Place(root=tmp_path, params=None)
    assert outcome_of(raising_user_error, place) == bad("the file x is missing", "Restore it. Or make it.")
    assert outcome_of(unimportable, place).text.startswith("cannot import no_such_package")
    assert outcome_of(buggy, place).text == "the check itself failed: KeyError: 'who\\nknows'"


FOUND = {"one": good("fine [b]"), "another": note("hm", "look"), "third": bad("broken", "mend it")}


def test_without_a_terminal_the_table_is_a_line_per_check(capsys):
    show(FOUND, Console(file=io.StringIO()))
    assert capsys.readouterr().out == "ok   one: fine [b]\nnote another: hm -> look\nFAIL third: broken -> mend it\n"


def test_on_a_terminal_the_table_has_colours_and_remedies_below():
    shown = io.StringIO()
    show(FOUND, Console(file=shown, force_terminal=True, width=40, color_system="standard", _environ={}))
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown.getvalue())
    assert [line.split() for line in plain.splitlines()] == [
        ["ok", "one", "fine", "[b]"],
        ["note", "another", "hm"],
        ["→", "look"],
        ["FAIL", "third", "broken"],
        ["→", "mend", "it"],
    ]
    assert "\x1b[32mok" in shown.getvalue() and "\x1b[1;31mFAIL" in shown.getvalue()


# The project


def test_unusable_params_are_reported(make_project):
    root = make_project()
    others = ", ".join(SHIPPED[1:])
    assert project.params(place_of(root)).text == f"data sets: functions; there are also {others}"
    broken = outcome_of(project.params, Place(root=root, params=None, problem="params.yaml: x is not a known key"))
    assert broken == bad("params.yaml: x is not a known key", "")


def test_the_commit_and_uncommitted_changes_are_reported(make_project):
    root = make_project()
    assert project.git(place_of(root)).text.startswith("no repository")
    git(root, "init", "-b", "main")
    assert project.git(place_of(root)).state == "bad"  # no commit yet
    git(root, "add", "params.yaml")
    git(root, "commit", "-m", "first")
    assert re.fullmatch(r"[0-9a-f]{12} on main, nothing changed", project.git(place_of(root)).text)
    (root / "params.yaml").write_text((root / "params.yaml").read_text() + "# more\n")
    assert (project.git(place_of(root)).state, project.git(place_of(root)).remedy) == ("note", "git commit, before runs that matter")


def test_unprepared_data_are_a_note_with_the_command(make_faces):
    root = make_faces()
    found = project.data(place_of(root))
    assert (found.state, found.remedy) == ("note", "dvc repro prepare@functions")
    assert found.text == f"prepared: imdb_wiki; there is no prepared data in {root}/data/functions/prepared"


def test_mlflow_run_uses_the_environment_of_setup(make_project, monkeypatch, tmp_path):
    place = place_of(make_project())
    monkeypatch.setenv("MLFLOW_ENV_ROOT", str(tmp_path / "envs"))
    for name in ("python_env.yaml", "requirements.lock"):
        (place.root / name).write_text((ROOT / name).read_text())
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    assert project.mlproject(place).state == "note"  # the system's Python
    (tmp_path / "venv" / "bin" / "activate").touch()
    assert project.mlproject(place).remedy == "regcls setup (make does it)"
    link = environment_link(place.root)
    link.parent.mkdir()
    link.symlink_to(tmp_path)
    assert (project.mlproject(place).state, project.mlproject(place).remedy) == ("note", "regcls setup")
    link.unlink()
    link.symlink_to(tmp_path / "venv")
    assert project.mlproject(place) == good(f"mlflow run . uses {tmp_path / 'venv'}")


# The command


def doctor(folder, **environment):
    """Run the doctor; return its exit code, name -> line, and the last line."""
    clean_environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_PROXY": "*", **environment}
    result = subprocess.run(
        [sys.executable, "-m", "regcls", "doctor"], cwd=folder, env=clean_environment, text=True, capture_output=True, timeout=60
    )
    assert "Traceback" not in result.stderr, result.stderr
    return (
        result.returncode,
        dict(re.findall(r"^(?:ok|note|FAIL) +([^:]+): (.*)$", result.stdout, flags=re.MULTILINE)),
        result.stderr.splitlines()[-1],
    )


@pytest.mark.slow
def test_a_sound_project_passes_except_for_its_environment(make_project, tmp_path):
    (tmp_path / "envs").mkdir()
    root = make_project()
    (root / "python_env.yaml").write_text((ROOT / "python_env.yaml").read_text())
    (root / "requirements.lock").write_text((ROOT / "requirements.lock").read_text())
    before = sorted(root.rglob("*"))
    code, output, last = doctor(root, MLFLOW_ENV_ROOT=str(tmp_path / "envs"))
    assert list(output) == NAMES
    assert (code, last) == (2, "regcls: error: doctor found 1 problem: MLproject")
    assert sorted(root.rglob("*")) == before


@pytest.mark.slow
def test_a_broken_params_yaml_and_a_silent_server_are_both_reported(make_project, tmp_path):
    root = make_project()
    (root / "params.yaml").write_text("datasets: [functions\n")
    started = time.monotonic()
    with black_hole() as uri:
        code, output, last = doctor(root, MLFLOW_TRACKING_URI=uri, MLFLOW_ENV_ROOT=str(tmp_path))
    assert time.monotonic() - started < 30
    assert code == 2 and {"params.yaml", "tracking"} <= set(last.rpartition(": ")[2].split(", "))
    assert "is not YAML" in output["params.yaml"] and f"no answer from the tracking server {uri}" in output["tracking"]
    assert output["data"] == "not checked: params.yaml comes first" and output["artifacts"] == "not checked: tracking comes first"
    assert list(output) == NAMES


@pytest.mark.parametrize(
    "load, cores, seconds", [(0.0, 2, DEADLINE), (2.0, 2, 2 * DEADLINE), (4.0, 16, 1.25 * DEADLINE), (500.0, 2, 3 * DEADLINE)]
)
def test_a_busy_machine_gets_more_time_within_limits(load, cores, seconds):
    assert patience(load, cores) == seconds
