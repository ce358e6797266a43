"""Files are complete or absent. For full and read-only disks, see test_bad_input.py and data/test_store.py."""

import errno
import fcntl
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest

from regcls import files
from regcls.cli import main
from regcls.errors import UserError
from regcls.files import check_locks, folder_written_aside, lock, temporary_folder, try_lock, write_json, write_text


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


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_file_locks_is_a_clear_error(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / ".regcls" / "run.lock"
    for attempt in (lambda: try_lock(path), lambda: lock(path, on_wait=pytest.fail).__enter__(), lambda: check_locks(tmp_path)):
        with pytest.raises(
            UserError, match=r"cannot lock .*/.*lock: the disk of .* has no file locks .*Put the folder on another disk, or "
        ):
            attempt()
    assert os.listdir(tmp_path) == [".regcls"]


# Folders that are links to another disk


def test_a_linked_folder_is_replaced_where_the_link_points_and_the_link_stays(tmp_path):
    (tmp_path / "disk" / "big").mkdir(parents=True)
    (tmp_path / "disk" / "big" / "old").touch()
    (tmp_path / "a").symlink_to("disk/big")
    with folder_written_aside(tmp_path / "a") as aside:
        assert aside.parent == tmp_path / "disk"
        (aside / "new").touch()
    assert (tmp_path / "a").is_symlink() and os.listdir(tmp_path / "disk" / "big") == ["new"]
    assert sorted(os.listdir(tmp_path)) == ["a", "disk"] and os.listdir(tmp_path / "disk") == ["big"]
    with pytest.raises(RuntimeError), folder_written_aside(tmp_path / "a"):
        raise RuntimeError
    assert os.listdir(tmp_path / "a") == ["new"]


def test_a_link_to_an_unmounted_disk_is_a_clear_error_and_creates_nothing(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "unmounted" / "big")
    with pytest.raises(UserError, match=rf"a is a link to {tmp_path}/unmounted/big, but there is no folder .*Mount its disk, or"):
        folder_written_aside(tmp_path / "a").__enter__()
    assert os.listdir(tmp_path) == ["a"]


def test_a_mounted_disk_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path / "a")
    with pytest.raises(
        UserError, match="is a mounted disk, which cannot be replaced as a whole. Make .*/a a link to a folder on that disk"
    ):
        folder_written_aside(tmp_path / "a").__enter__()
    assert os.listdir(tmp_path) == ["a"]


# The folder of temporary files


@pytest.fixture
def full_tmpdir(tmp_path, monkeypatch):
    """TMPDIR on a disk of its own, with 1 KB of free space."""
    temporary = tmp_path / "tmpdir"
    temporary.mkdir()
    monkeypatch.setattr(files, "gettempdir", lambda: str(temporary))
    stat, usage = Path.stat, namedtuple("usage", "free")
    monkeypatch.setattr(
        files.shutil, "disk_usage", lambda path: usage(1_000 if Path(path).is_relative_to(temporary) else 10**12), raising=True
    )
    monkeypatch.setattr(Path, "stat", lambda path, **more: SimpleNamespace(st_dev=7) if path == temporary else stat(path, **more))
    return temporary


def fail(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_tmpdir_is_not_taken_for_the_disk_that_is_written(tmp_path, full_tmpdir):
    message = f"no space left in {full_tmpdir}, the folder of temporary files, .*set TMPDIR to a folder on another disk"
    with pytest.raises(UserError, match=message.replace(", .*", rf", while writing {tmp_path}/a; .*")):
        files.write_atomically(tmp_path / "a", fail)  # a library that writes temporary files
    with pytest.raises(UserError, match=message.replace(", .*", "; .*")), temporary_folder():
        fail()


def test_a_full_disk_of_the_project_is_not_taken_for_tmpdir(tmp_path, full_tmpdir, monkeypatch):
    usage = shutil.disk_usage(full_tmpdir)._replace(free=10**10)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=f"no space left on the disk while writing {tmp_path}/a; nothing was replaced"):
        files.write_atomically(tmp_path / "a", fail)


def test_a_disk_so_full_that_there_is_no_tmpdir_is_called_full(tmp_path, monkeypatch):
    def none():
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(files, "gettempdir", none)
    with pytest.raises(UserError, match=f"no space left on the disk while writing {tmp_path}/a; nothing was replaced"):
        files.write_atomically(tmp_path / "a", fail)


def test_another_full_disk_is_not_taken_for_tmpdir():
    with pytest.raises(OSError, match="No space left"), temporary_folder():
        fail()


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk of the output, of temporary files"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/a', '/tmp']"), "set TMPDIR to a writable folder"),
    ],
)
def test_errors_of_temporary_files_anywhere_are_one_message(make_project, monkeypatch, capsys, full_tmpdir, error, message):
    monkeypatch.chdir(make_project())

    def raise_error(*_):
        raise error

    monkeypatch.setattr("regcls.pipeline.inputs.write_inputs", raise_error)
    assert main(["inputs"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("regcls: error: no ") and message in shown
