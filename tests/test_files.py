"""Files are complete or absent. For full and read-only disks, see test_bad_input.py and data/test_store.py."""

import os
import resource
import subprocess
import sys
import time

import pytest

from regcls.errors import UserError
from regcls.files import folder_written_aside, lock, write_json, write_text


def test_a_file_is_replaced_atomically(tmp_path):
    write_text(tmp_path / "a", "old")
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "a", {"n": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a", {"n": object()})
    assert (tmp_path / "a").read_text() == '{\n  "n": 1\n}\n'


def test_a_failed_write_keeps_the_old_folder(tmp_path):
    with folder_written_aside(tmp_path / "a") as aside:
        (aside / "file").write_text("old")
    with pytest.raises(RuntimeError), folder_written_aside(tmp_path / "a") as aside:
        (aside / "file").write_text("new")
        raise RuntimeError
    assert (tmp_path / "a" / "file").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_only_leftovers_of_dead_processes_are_removed(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for pid in (ended.pid, os.getppid()):
        (tmp_path / f".a.{pid}.part").mkdir()
    with folder_written_aside(tmp_path / "a"):
        pass
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["a", f".a.{os.getppid()}.part"])


def test_a_lock_is_waited_for_and_released_when_its_owner_dies(tmp_path):
    code = "import sys, time; from pathlib import Path; from regcls.files import lock\nwith lock(Path(sys.argv[1]), on_wait=print): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a.lock")], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "held\n"
        expected = []

        def waiting(holder):
            expected.append(holder)
            owner.kill()

        started = time.monotonic()
        with lock(tmp_path / "a.lock", on_wait=waiting):
            assert time.monotonic() - started < 30
    assert expected == [f"process {owner.pid} on {os.uname().nodename}"]


def test_a_full_disk_at_a_lock_is_a_clear_error_and_releases_it(tmp_path):
    path = tmp_path / ".regcls" / "run.lock"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(UserError, match=f"no space left on the disk while writing {path}"), lock(path, on_wait=pytest.fail):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with lock(path, on_wait=pytest.fail):
        assert path.read_text() == f"process {os.getpid()} on {os.uname().nodename}\n"
