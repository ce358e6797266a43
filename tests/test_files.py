"""Files that are whole or absent. Full and read-only disks: test_bad_input.py and datasets/test_store.py."""

import os
import subprocess
import sys
import time

import pytest

from regcls.files import folder_written_aside, lock, write_json, write_text


def test_a_file_is_replaced_whole(tmp_path):
    write_text(tmp_path / "a", "old")
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_file_stays_as_it_was_when_writing_fails(tmp_path):
    write_json(tmp_path / "a", {"n": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a", {"n": object()})
    assert (tmp_path / "a").read_text() == '{\n  "n": 1\n}\n'


def test_a_folder_stays_as_it_was_when_writing_fails(tmp_path):
    with folder_written_aside(tmp_path / "a") as aside:
        (aside / "file").write_text("old")
    with pytest.raises(RuntimeError), folder_written_aside(tmp_path / "a") as aside:
        (aside / "file").write_text("new")
        raise RuntimeError
    assert (tmp_path / "a" / "file").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_leftovers_of_a_killed_process_are_removed_and_those_of_a_living_one_are_not(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid in (ended.pid, os.getppid()):
        (tmp_path / f".a.{pid}.part").mkdir()
    with folder_written_aside(tmp_path / "a"):
        pass
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["a", f".a.{os.getppid()}.part"])


def test_a_lock_is_waited_for_and_freed_when_its_owner_is_killed(tmp_path):
    code = "import sys, time; from pathlib import Path; from regcls.files import lock\nwith lock(Path(sys.argv[1]), waiting=print): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a.lock")], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "held\n"
        said = []

        def waiting(holder):
            said.append(holder)
            owner.kill()

        started = time.monotonic()
        with lock(tmp_path / "a.lock", waiting=waiting):
            assert time.monotonic() - started < 30
    assert said == [f"process {owner.pid} on {os.uname().nodename}"]
