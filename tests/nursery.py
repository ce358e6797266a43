"""A process that forks tracking servers in 0.2 s each, where `mlflow server` takes 5 to 11 s.

That time goes into importing MLflow, twice, and making the tables of an empty store. This process imports MLflow once a session (3 s), then
forks a server whenever it is asked: the app, the uvicorn and the environment of `mlflow server`. Run as a program it is that process.
"""

import ctypes
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import psutil

DEADLINE = 60.0  # seconds that a server may take to start or end


class Nursery:
    """A process with MLflow imported that forks servers and makes empty stores."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with (folder / "nursery.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def ask(self, **task: Any) -> int:
        """Have a child do `task`; return its process id."""
        assert self._process.stdin and self._process.stdout
        print(json.dumps(task), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, f"the nursery has died:\n{(self.folder / 'nursery.log').read_text()[-2000:]}"
        return int(answer)

    def make_schema(self, uri: str) -> None:
        """Make an empty store at `uri`, with an experiment 0 whose artifacts the server stores."""
        log = self.folder / "schema.log"
        wait_until_gone(self.ask(task="schema", uri=uri, log=str(log)))
        assert "made" in log.read_text(), log.read_text()[-2000:]

    def empty_sqlite(self) -> Path:
        """An empty SQLite store to copy, made once."""
        file = self.folder / "empty.db"
        if not file.exists():
            self.make_schema(f"sqlite:///{file}")
        return file

    def close(self) -> None:
        """End the nursery and everything it forked."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, however it dies (PR_SET_PDEATHSIG)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def wait_until_gone(pid: int) -> None:
    """Wait until no process of the group `pid` lives."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            if not psutil.pid_exists(pid):  # not yet in its own group, just after the fork
                return
        assert time.monotonic() < end, f"process {pid} does not end"
        time.sleep(0.005)


def _answer_tasks(tasks: IO[str]) -> None:
    """Fork a child for each line, until the tests end."""
    import mlflow.server.fastapi_app  # takes the seconds that the nursery saves
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which end this process
    for line in tasks:
        if (pid := os.fork()) == 0:
            _be_child(json.loads(line))
        print(pid, flush=True)


def _be_child(task: dict[str, Any]) -> None:
    os.setsid()
    die_with_parent()
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    log, null = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), os.open(os.devnull, os.O_RDONLY)
    for opened, standard in ((null, 0), (log, 1), (log, 2)):
        os.dup2(opened, standard)
    try:
        _serve(task) if task["task"] == "serve" else _make_schema(task["uri"])
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(0)


def _serve(task: dict[str, Any]) -> None:
    import mlflow.server
    import uvicorn

    os.environ.update(task["environment"])
    os.chdir(task["folder"])
    app = "mlflow.server.fastapi_app:app"
    if task["auth"]:
        mlflow.server._bootstrap_basic_auth()
        app = "mlflow.server.auth:create_app"
    uvicorn.run(app, factory=task["auth"], host="127.0.0.1", port=task["port"], log_level="warning")


def _make_schema(uri: str) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(uri, "mlflow-artifacts:/")
    store.engine.dispose()
    if uri.startswith("sqlite:///"):
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
            connection.execute("VACUUM")  # a single file that can be copied
    print("made")


if __name__ == "__main__":
    _answer_tasks(sys.stdin)
