"""Processes recognise each other, and end when they should."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from processes import wait_until
from regcls.errors import UserError
from regcls.processes import check_memory, free_memory, process_identity, termination_noted


def test_a_process_is_distinguished_from_others_and_earlier_ones() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        first = process_identity(child.pid)
        assert first and first != process_identity(os.getpid())
        assert process_identity(child.pid) == first
        child.kill()
    assert process_identity(child.pid) is None


def test_a_zombie_process_counts_as_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process_identity(child.pid) is None


def test_sigterm_is_deferred_in_the_block_and_a_second_one_ends_the_process(signals: None) -> None:
    with pytest.raises(SystemExit) as exit_info, termination_noted() as requested:
        assert not requested()
        signal.raise_signal(signal.SIGTERM)
        assert requested()
        signal.raise_signal(signal.SIGTERM)
    assert exit_info.value.code == 143


CHILD = """
import os, pathlib, signal, time
from regcls.processes import end_with_launcher
signal.signal(signal.SIGTERM, lambda number, frame: (pathlib.Path("told").touch(), os._exit(0)))
end_with_launcher()
pathlib.Path("started").write_text(str(os.getpid()))
time.sleep(60)
"""
LAUNCHER = "import subprocess, sys; subprocess.call([sys.argv[1], '-c', f'{sys.executable} child.py; true'])"


@pytest.mark.parametrize("launched", [True, False], ids=["by dvc", "by hand"])
def test_processes_end_with_dvc_only_if_dvc_started_them(tmp_path: Path, launched: bool) -> None:
    """A shell is in between, and outlives the killed process."""
    (tmp_path / "child.py").write_text(CHILD)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")} | ({"DVC_STAGE": "train"} if launched else {})
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, "sh"], cwd=tmp_path, env=environment)
    wait_until((tmp_path / "started").exists, "the child to start")
    wait_until((tmp_path / "started").read_text, "the child to finish starting")
    child = int((tmp_path / "started").read_text())
    launcher.kill()
    launcher.wait()
    try:
        if launched:
            wait_until((tmp_path / "told").exists, "the signal to the child")
        else:
            with pytest.raises(AssertionError):
                wait_until((tmp_path / "told").exists, "nothing", seconds=1.5)
    finally:
        os.kill(child, signal.SIGKILL) if process_identity(child) else None


SAVES = """
import pathlib, time
from regcls.processes import POLL_SECONDS, end_with_launcher, termination_noted
end_with_launcher()
with termination_noted() as requested:
    pathlib.Path("started").touch()
    while not requested():
        time.sleep(0.02)
    time.sleep(4 * POLL_SECONDS)
pathlib.Path("told").touch()
"""


def test_a_process_that_saves_on_sigterm_is_not_told_again_when_dvc_ends(tmp_path: Path) -> None:
    """SIGTERM to the process group ends dvc at once, and saving on a cluster takes longer."""
    (tmp_path / "child.py").write_text(SAVES)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "DVC_STAGE": "train"}
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, "sh"], cwd=tmp_path, env=environment, start_new_session=True)
    wait_until((tmp_path / "started").exists, "the child to start")
    os.killpg(launcher.pid, signal.SIGTERM)
    launcher.wait()
    wait_until((tmp_path / "told").exists, "the child to save")


def machine(system: Path, files: dict[str, str]) -> Path:
    """A folder with files of the kernel."""
    for name, text in {"proc/meminfo": "MemTotal: 900 kB\nMemAvailable: 800 kB\n", **files}.items():
        (system / name).parent.mkdir(parents=True, exist_ok=True)
        (system / name).write_text(text)
    return system


@pytest.mark.parametrize(
    "files, free",
    [
        ({}, 800 * 1024),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "7\n"}, 800 * 1024),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "100\n", "sys/fs/cgroup/memory.current": "70\n"}, 30),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",  # the limit is one of a group above; cached files make room
                "sys/fs/cgroup/a/memory.max": "100\n",
                "sys/fs/cgroup/a/memory.current": "70\n",
                "sys/fs/cgroup/a/memory.stat": "anon 1\ninactive_file 20\nactive_file 3\n",
                "sys/fs/cgroup/a/b/memory.max": "90\n",
                "sys/fs/cgroup/a/b/memory.current": "10\n",
            },
            53,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/c\n4:memory,hugetlb:/docker/x\n0::/\n",  # version 1; in a container, without its own folder
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "100\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "40\n",
                "sys/fs/cgroup/memory/memory.stat": "cache 9\ntotal_inactive_file 5\n",
            },
            65,
        ),
    ],
    ids=["no group", "no limit", "version 2", "nested", "version 1"],
)
def test_free_memory_is_that_of_the_machine_and_of_its_control_groups(tmp_path: Path, files: dict[str, str], free: int) -> None:
    assert free_memory(machine(tmp_path, files)) == free


def test_memory_is_infinite_where_nothing_is_known_of_it(tmp_path: Path) -> None:
    assert free_memory(tmp_path) == float("inf")


def test_what_needs_more_memory_than_is_free_is_refused() -> None:
    check_memory(10**6, "drawing")
    with pytest.raises(UserError, match="^drawing needs about 2000000.0 GB of memory, and [0-9.]+ GB are free. Choose smaller numbers.$"):
        check_memory(2e15, "drawing")
