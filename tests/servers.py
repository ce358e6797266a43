"""Real servers on loopback, to start, kill and start again: MLflow's tracking server and PostgreSQL. All end with the test session.

The fixtures are loaded by conftest.py. tests/network.py holds what can go wrong on the way to them, tests/s3_server.py the object store.
"""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from network import black_hole, free_port, gate  # noqa: F401  # two for the tests
from nursery import DEADLINE, Nursery, die_with_parent, wait_until_gone

PASSWORD = "correct horse 1 battery"  # of the user `admin` with basic auth
AUTH = """[mlflow]
default_permission = EDIT
database_uri = sqlite:///{folder}/auth.db
admin_username = admin
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""
# What `mlflow server` sets for its uvicorn: mlflow/server/__init__.py, _run_server.
STORE, ROOT, SERVED, DESTINATION = (
    "_MLFLOW_SERVER_FILE_STORE",
    "_MLFLOW_SERVER_ARTIFACT_ROOT",
    "_MLFLOW_SERVER_SERVE_ARTIFACTS",
    "_MLFLOW_SERVER_ARTIFACT_DESTINATION",
)


class TrackingServer:
    """An MLflow tracking server on a port of its own, which it keeps when restarted.

    `store`: SQLAlchemy URI (an SQLite file in `folder`); `artifacts`: folder or s3://bucket/prefix; `environment`: for the server alone, such as
    S3's credentials. `auth`: anonymous access is refused. `command`: start `mlflow server` itself, with `options`.
    """

    def __init__(
        self,
        folder: Path,
        nursery: Nursery,
        *,
        store: str | None = None,
        artifacts: str | None = None,
        environment: dict[str, str] | None = None,
        auth: bool = False,
        command: bool = False,
        options: tuple[str, ...] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port, self._nursery, self._auth, self._command = folder, free_port(), nursery, auth, command
        self._options = options
        self.log = folder / "server.log"
        self.store = store or f"sqlite:///{folder}/server.db"
        self.artifacts = artifacts or str(folder / "artifacts")
        self._pid: int | None = None
        self._environment = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "_MLFLOW_SGI_NAME": "uvicorn",  # tells the app with basic auth what to run
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a fifth of the memory, and half of the start
            **(environment or {}),
        }
        if store is None:
            shutil.copy(nursery.empty_sqlite(), folder / "server.db")
        if auth:
            (folder / "auth.ini").write_text(AUTH.format(folder=folder, password=PASSWORD))
            self._environment |= {
                "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
                "MLFLOW_FLASK_SERVER_SECRET_KEY": "of this test only",
            }

    @property
    def uri(self) -> str:
        """http://127.0.0.1:port"""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a client."""
        login = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
        return {"MLFLOW_TRACKING_URI": self.uri} | (login if self._auth else {})

    def start(self) -> "TrackingServer":
        """Start the server on the same store, and wait until it answers."""
        assert self._pid is None, "it runs already"
        self._pid = self._start_command() if self._command else self._fork()
        end = time.monotonic() + DEADLINE
        while not self.answers():
            assert psutil.pid_exists(self._pid) and time.monotonic() < end, f"no server:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """Stop it like an administrator: SIGTERM, and wait for the end."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL all its processes."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Accept connections without answering until `thaw`, like a machine that swaps."""
        os.killpg(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue, including requests received meanwhile."""
        os.killpg(self._pid, signal.SIGCONT)

    def answers(self) -> bool:
        """Whether the server is up."""
        try:
            return requests.get(f"{self.uri}/health", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def _fork(self) -> int:
        served = {STORE: self.store, ROOT: "mlflow-artifacts:/", SERVED: "true", DESTINATION: self.artifacts}
        environment = self._environment | served
        return self._nursery.ask(
            task="serve", environment=environment, port=self.port, log=str(self.log), folder=str(self.folder), auth=self._auth
        )

    def _start_command(self) -> int:
        options = {
            "host": "127.0.0.1",
            "port": self.port,
            "workers": 1,
            "backend-store-uri": self.store,
            "artifacts-destination": self.artifacts,
        }
        command = [sys.executable, "-m", "mlflow", "server", *(f"--{name}={value}" for name, value in options.items()), *self._options]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command + (["--app-name=basic-auth"] if self._auth else []),
                cwd=self.folder,
                env=os.environ | self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        return self._process.pid

    def _end(self, number: int) -> None:
        if self._pid is not None:
            group, self._pid = self._pid, None
            with suppress(ProcessLookupError):
                os.killpg(group, number)
                os.killpg(group, signal.SIGCONT)  # a frozen one takes it only then
            if self._command:
                self._process.wait()
            wait_until_gone(group)


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Needed by the fixtures below; import it with them."""
    running = Nursery(tmp_path_factory.mktemp("nursery"))
    yield running
    running.close()


@pytest.fixture(scope="session")
def tracking_server(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    """A server that stays up: each test uses its own experiment, by MLFLOW_EXPERIMENT_NAME."""
    server = TrackingServer(tmp_path_factory.mktemp("tracking"), nursery).start()
    yield server
    server.kill()


@pytest.fixture
def make_server(nursery: Nursery, tmp_path: Path) -> Iterator[Callable[..., TrackingServer]]:
    """Make a running server with TrackingServer's options, which may be stopped, killed and started again."""
    servers: list[TrackingServer] = []

    def make(**options: Any) -> TrackingServer:
        servers.append(TrackingServer(tmp_path / f"server{len(servers)}", nursery, **options))
        return servers[-1].start()

    yield make
    for server in servers:
        server.kill()


class Postgres:
    """A PostgreSQL server with its own cluster, which survives `restart` and `kill` but not the tests."""

    def __init__(self, folder: Path, binaries: Path, nursery: Nursery) -> None:
        self.folder, self.port, self._binaries, self._nursery = folder, free_port(), binaries, nursery
        self._user = None if os.geteuid() else pwd.getpwnam("postgres" if _has_user("postgres") else "nobody")  # it refuses root
        if self._user:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        subprocess.run(
            [binaries / "initdb", "-D", folder / "data", "-U", "regcls", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"],
            **self._as_user(),
            check=True,
            capture_output=True,
        )
        self.start()
        self._execute("CREATE DATABASE empty")
        nursery.make_schema(self.uri("empty"))

    def uri(self, name: str) -> str:
        """URI of the database `name`, with its driver: SQLAlchemy 2.1 takes plain postgresql:// for psycopg 3, which MLflow does not install."""
        return f"postgresql+psycopg2://regcls@127.0.0.1:{self.port}/{name}"

    def make_store(self, name: str) -> str:
        """Make an empty MLflow store in a new database; return its URI."""
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE empty')
        return self.uri(name)

    def start(self) -> None:
        """Start it on the existing cluster, and wait until it accepts connections."""
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder, "fsync": "off"}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self.folder / "data", *(f"--{name}={value}" for name, value in options.items())],
                **self._as_user(),
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        end = time.monotonic() + DEADLINE
        ready = [self._binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:
            assert self._process.poll() is None and time.monotonic() < end, f"no PostgreSQL:\n{(self.folder / 'log').read_text()[-2000:]}"
            time.sleep(0.05)

    def stop(self) -> None:
        """Shut down fast: open connections are cut, their transactions rolled back."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait()

    def kill(self) -> None:
        """Shut down immediately, like a lost machine: `start` then recovers from the log."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def restart(self) -> None:
        """`stop`, then `start`."""
        self.stop()
        self.start()

    def _execute(self, command: str) -> None:
        import psycopg2

        with closing(psycopg2.connect(host="127.0.0.1", port=self.port, user="regcls", dbname="postgres")) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(command)

    def _as_user(self) -> dict[str, Any]:
        who = {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []} if self._user else {}
        return {**who, "cwd": self.folder}


def _has_user(name: str) -> bool:
    return any(entry.pw_name == name for entry in pwd.getpwall())


def postgres_binaries() -> Path | None:
    """The folder of the newest PostgreSQL: Debian keeps it off the PATH."""
    found = [Path(file) for file in [shutil.which("initdb")] if file]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    return found[-1].parent if found else None


@pytest.fixture(scope="session")
def postgres(nursery: Nursery) -> Iterator[Postgres]:
    """A running PostgreSQL; `make_store` gives each test its own store. In /tmp, since its user cannot enter pytest's folders."""
    pytest.importorskip("psycopg2", reason="needs psycopg2-binary, as in requirements.lock")
    if not (binaries := postgres_binaries()):
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="regcls-postgres-"))
    try:
        running = Postgres(folder, binaries, nursery)
        yield running
        running.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
