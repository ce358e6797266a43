"""Real processes, and the store that they write as seen from outside."""

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil

DEADLINE = 120.0  # seconds
# The command line, without exporting the model, which takes seconds and is tested elsewhere.
REGCLS = """
import sys
from regcls.cli import main
from regcls.tracking.tracker import Tracker
Tracker.log_model = lambda *args, **kwargs: None
sys.exit(main(sys.argv[1:]))
"""


def run_regcls(folder, *arguments, **environment):
    """Run the command line in a process of its own, as a user does."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src"), **environment}
    return subprocess.run(
        [sys.executable, "-m", "regcls", *arguments], cwd=folder, env=environment, text=True, capture_output=True, timeout=120
    )


def session(process):
    """All living processes of the session of `process`: itself and what it started, even if they outlived it."""
    found = []
    for other in psutil.process_iter():
        try:
            if os.getsid(other.pid) == process.pid and other.status() != psutil.STATUS_ZOMBIE:
                found.append(other)
        except (ProcessLookupError, psutil.NoSuchProcess):
            pass
    return found


def wait_until(condition, what, *, seconds=DEADLINE):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"timed out waiting for: {what}"
        time.sleep(0.02)


def runs(root):
    """(run id, status, fingerprint) of all runs in the store, earliest first."""
    query = "SELECT r.run_uuid, r.status, t.value FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'fingerprint' ORDER BY r.start_time"
    with closing(sqlite3.connect(f"file:{root}/mlflow.db?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(query).fetchall()


def with_status(root, status):
    return {run_id for run_id, found, _ in runs(root) if found == status}
