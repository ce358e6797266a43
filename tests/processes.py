"""Real processes and the store that they write, seen from outside."""

import os
import sqlite3
import time
from contextlib import closing

import psutil

DEADLINE = 120.0  # seconds


def session(process):
    """All living processes that `process` has started, and itself; also those that have outlived it."""
    found = []
    for other in psutil.process_iter():
        try:
            if os.getsid(other.pid) == process.pid and other.status() != psutil.STATUS_ZOMBIE:
                found.append(other)
        except (ProcessLookupError, psutil.NoSuchProcess):
            pass
    return found


def until(condition, what, *, seconds=DEADLINE):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.02)


def runs(root):
    """(run id, status, fingerprint) of all runs in the store, the earliest first."""
    query = "SELECT r.run_uuid, r.status, t.value FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid AND t.key = 'fingerprint' ORDER BY r.start_time"
    with closing(sqlite3.connect(f"file:{root}/mlflow.db?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute(query).fetchall()


def with_status(root, status):
    return {run_id for run_id, found, _ in runs(root) if found == status}
