"""The repair of what a killed DVC leaves behind. tests/test_dvc.py repairs a real dvc.lock."""

import json
import os
import subprocess
import sys

import pytest

from regcls.cli import main
from regcls.dvc_lock import faults, keep, repair
from regcls.errors import UserError
from regcls.files import try_lock

WHOLE = "schema: '2.0'\nstages:\n  inputs:\n    cmd: regcls inputs\n    outs:\n    - path: build/inputs\n      md5: 0a1b\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "dvc.lock").write_text(WHOLE)
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("damaged", ["", "s", "schema: '2.0'\n", WHOLE[:-2], WHOLE.removesuffix(": 0a1b\n"), "<<<<<<< HEAD\n" + WHOLE])
def test_only_a_whole_dvc_lock_is_kept(root, damaged):
    keep(root)
    (root / "dvc.lock").write_text(damaged)
    keep(root)
    assert list(faults(root)) == [root / "dvc.lock"]
    (line,) = repair(root)
    assert line.startswith(f"{root}/dvc.lock is ") and "replaced by its last whole version" in line
    assert (root / "dvc.lock").read_text() == WHOLE and (root / "dvc.lock.damaged").read_text() == damaged
    assert repair(root) == []


def test_a_file_cut_at_the_end_of_a_line_is_recognised_by_the_kept_one(root):
    longer = WHOLE + "  another:\n    cmd: echo\n"
    (root / "dvc.lock").write_text(longer)
    keep(root)
    (root / "dvc.lock").write_text(WHOLE)
    keep(root)
    assert faults(root) == {root / "dvc.lock": "is cut"}
    assert "replaced by its last whole version" in repair(root)[0] and (root / "dvc.lock").read_text() == longer


@pytest.mark.parametrize("text", ["[" * 5000, "stages: " + "{a: " * 3000])
def test_a_file_nested_too_deeply_is_damaged(root, text):
    (root / "dvc.lock").write_text(text + "\n")
    assert faults(root) == {root / "dvc.lock": "is damaged"}


@pytest.mark.parametrize("kept", [None, "schema: '2.0'\nstages:\n  inputs:\n"])
def test_without_a_whole_version_the_damaged_one_is_moved_away(root, kept):
    if kept:
        (root / "dvc.lock").write_text(kept)
        keep(root)  # not as strict as DVC
    (root / "dvc.lock").write_text("")
    (line,) = repair(root)
    assert "moved to dvc.lock.damaged" in line
    assert not (root / "dvc.lock").exists() and not faults(root)


def test_stages_keep_dvc_lock_and_do_not_fail_where_they_cannot(make_project, monkeypatch, signals):
    project = make_project()
    (project / "dvc.lock").write_text(WHOLE)
    monkeypatch.chdir(project)
    (project / ".regcls").touch()  # a file, not a folder
    assert main(["inputs"]) == 0
    (project / ".regcls").unlink()
    assert main(["inputs"]) == 0
    assert (project / ".regcls" / "dvc.lock.whole").read_text() == WHOLE


def test_the_repair_is_a_command_that_works_without_params(root, monkeypatch, capsys, signals):
    monkeypatch.chdir(root)
    assert main(["doctor", "--repair"]) == 0
    (root / "dvc.lock").write_text("s")
    assert main(["doctor", "--repair"]) == 0
    nothing, done = capsys.readouterr().out.splitlines()
    assert nothing == "nothing to repair" and "replaced by its last whole version" in done


def test_a_file_that_dvc_is_writing_is_left_alone(root):
    (root / "dvc.lock").write_text("s")
    with try_lock(root / ".dvc" / "tmp" / "lock"), pytest.raises(UserError, match="DVC is running"):
        repair(root)
    assert (root / "dvc.lock").read_text() == "s"


@pytest.fixture
def process(tmp_path):
    """Start a process with another name; return its pid."""
    (tmp_path / "sleep.py").write_text("import sys; sys.stdin.read()")
    started = []

    def start(name):
        (tmp_path / name).symlink_to("sleep.py")
        started.append(subprocess.Popen([sys.executable, tmp_path / name], stdin=subprocess.PIPE))
        return started[-1].pid

    yield start
    for one in started:
        one.communicate()


def test_an_rwlock_is_removed_if_it_is_damaged_or_names_another_program(root, process):
    rwlock = root / ".dvc" / "tmp" / "rwlock"
    ended = subprocess.Popen(["true"])
    ended.wait()
    for pid, faulty in ((ended.pid, False), (process("dvc"), False), (process("editor"), True)):
        rwlock.write_text(
            json.dumps({"write": {"runs/x.json": {"pid": pid, "cmd": "dvc repro"}}, "read": {"data": [{"pid": pid, "cmd": "dvc"}]}})
        )
        assert bool(faults(root)) == faulty
        assert bool(repair(root)) == faulty == (not rwlock.exists())
    rwlock.write_text("")
    assert repair(root) == [f"{rwlock} is damaged: removed"] and not rwlock.exists()
    assert os.listdir(rwlock.parent) == ["lock"]
