"""Processes recognise each other, and end when they should."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from processes import wait_until
from regcls.processes import process_identity, termination_noted


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
