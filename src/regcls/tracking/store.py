"""Locates and opens the tracking store, and explains its errors. Does not import MLflow."""

import glob
import os
import re
import shlex
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote

from regcls import files
from regcls.errors import UserError
from regcls.processes import uninterrupted
from regcls.progress import say
from regcls.proxy import proxy_hint

LOCK_WAIT = 20.0  # seconds until a locked SQLite file counts as stuck; as in MLflow
SETTLE_WAIT = 2.0  # seconds without a change until a store of another schema counts as complete, not as being created
ELSEWHERE = "or name another store in MLFLOW_TRACKING_URI"
# Columns of MLflow's schema with file addresses.
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)


def project_root(root: Path) -> Path:
    """`root`; or, if it is a workspace of `dvc exp run --temp` (or --queue), the repository itself: runs outlive the workspace."""
    root = root.resolve()
    for folder in (root, *root.parents):
        if folder.parts[-4:-1] == (".dvc", "tmp", "exps"):
            return folder.parents[3]
    return root


def sqlite_uri(database: Path) -> str:
    """The URI of an SQLite file, encoded as MLflow does it, so that both name the same file."""
    return f"sqlite:///{quote(str(database))}"


def store_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI; a relative SQLite path is one in the project's root, whatever the current folder. By default mlflow.db there."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(root / "mlflow.db")
    if uri.startswith(("file:", "/", ".", "~")) or os.path.isdir(uri):
        raise UserError(_file_store(uri, root))
    if re.match(r"https?:(?!//[^/])|[^/:]+(:\d+)?(/|$)", uri):
        raise UserError(f"MLFLOW_TRACKING_URI={without_password(uri)} is not a URL. Write it as http://host:port, or unset it.")
    uri = re.sub(r"^postgres(ql)?://", "postgresql+psycopg2://", uri)  # SQLAlchemy would look for another driver than ours
    database = database_of(uri)
    return sqlite_uri(Path(os.path.normpath(root / database))) if database else uri.rstrip("/")


def _file_store(uri: str, root: Path) -> str:
    folder = folder_of(uri).absolute()
    what = f"MLFLOW_TRACKING_URI={uri} is a folder, but runs are tracked in an SQLite file or on a server"
    remedy = f"Unset it for {root / 'mlflow.db'}, or set it to sqlite:///FILE or http://host:port"
    new = folder.with_name(f"{folder.name}.db")  # mlflow migrate-filestore would overwrite an existing file
    move = f". To keep the folder's runs: mlflow migrate-filestore --source '{folder}' --target '{sqlite_uri(new)}', and set it to that"
    return f"{what}. {remedy}{move if folder.is_dir() and not new.exists() else ''}."


def database_of(uri: str) -> Path | None:
    """The file of an SQLite store; None for any other store."""
    if not uri.startswith("sqlite:"):
        return None
    name = unquote(re.sub(r"^sqlite:(///)?|[?].*$", "", uri))
    if name in ("", ":memory:"):
        raise UserError(f"MLFLOW_TRACKING_URI={uri} keeps nothing: name a file, as in sqlite:////home/me/mlflow.db")
    return Path(name)


def locks_of(uri: str, root: Path) -> Path:
    """The folder of the locks that keep processes from training a run twice: beside an SQLite file, which several projects may share."""
    if (database := database_of(uri)) is None:
        return root / ".regcls"
    database = database.resolve()
    # One path even if the folder is mounted in two places: a process that locked both would wait for itself.
    home = root if os.path.exists(database.parent) and database.parent.samefile(root) else database.parent
    return _locks_in(home, database)


def _locks_in(home: Path, database: Path) -> Path:
    return home / ".regcls" / ("" if database.name == "mlflow.db" else database.name)


def without_password(uri: str) -> str:
    """`uri` without user and password, for messages."""
    return re.sub(r"//[^/@]*@", "//", uri)


def address_of(folder: Path) -> str:
    """An artifact folder as MLflow stores it: it parses a path as a URI, in which %20 is a space and ? ends the path."""
    return re.sub("[%?#]", lambda match: quote(match[0]), str(folder))


def folder_of(address: str) -> Path:
    """The folder of an address in MLflow: a path or a file: URI."""
    return Path(unquote(re.sub("^file:(//[^/]*)?", "", address)))


def lock_path(database: Path) -> Path:
    """The lock for setting up the store."""
    return database.with_name(f"{database.name}.lock")


def say_waiting(holder: str) -> None:
    """Callback for files.lock."""
    say(f"waiting for {holder}, which is setting up the tracking store")


def open_database(database: Path, *, schema: str, create: Callable[[Path], None], root: Path) -> None:
    """Call `create` if there is no SQLite file, then check that it can be used: MLflow itself reports errors after a minute, or not at all.

    `schema`: the revision that this version of MLflow works with. `root`: the project's; a file in it moves with it.

    Raises:
        UserError: not writable, or from another version of MLflow; or as `_follow_move`.
        sqlite3.Error: locked or damaged; see `explanation`.
    """
    if not database.exists():
        # MLflow upgrades a new file through its whole history, and two processes doing that at once corrupt it. Hence a lock for us, and a
        # rename so that a plain mlflow command never sees an incomplete file.
        with files.lock(lock_path(database), on_wait=say_waiting):
            if not database.exists():
                _create(database, create)
    for path in (database, database.parent):
        if not os.access(path, os.W_OK):
            raise UserError(f"cannot write {path}, where runs are tracked. Make it writable, {ELSEWHERE}.")
    revision = _schema(database)
    while revision != schema:
        time.sleep(SETTLE_WAIT)  # perhaps a plain mlflow command is just creating the file: wait as long as it changes
        before, revision = revision, _schema(database)
        if revision == before != schema:
            raise UserError(_another_schema(database, revision, schema))
    _restore_default(database)
    if database.is_relative_to(root):
        _follow_move(database)


def _create(database: Path, create: Callable[[Path], None]) -> None:
    """Create the SQLite file, and remove what killed processes have left of theirs. The caller must hold the lock."""
    try:
        with uninterrupted():  # SQLAlchemy may lose an exception raised by a signal handler, or report it with a traceback
            files.write_atomically(database, create)
    finally:
        for leftover in database.parent.glob(f".{glob.escape(database.name)}.*.part*"):
            leftover.unlink(missing_ok=True)


def _connect(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(database))}?mode=rw", uri=True, timeout=LOCK_WAIT, isolation_level=None)


def _schema(database: Path) -> str | None:
    """The store's schema revision; None if the SQLite file is not an MLflow store."""
    with closing(_connect(database)) as connection:
        connection.execute("BEGIN IMMEDIATE")  # needs what a writer needs
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row else None


def _restore_default(database: Path) -> None:
    """Restore experiment 0 if `mlflow gc` has removed it: MLflow would, with files in the current folder, perhaps a temporary workspace."""
    columns = "experiment_id, name, artifact_location, lifecycle_stage, creation_time, last_update_time, workspace"
    with closing(_connect(database)) as connection:
        if not connection.execute("SELECT 1 FROM experiments WHERE experiment_id = 0").fetchone():
            now, location = round(1000 * time.time()), address_of(database.parent / "mlartifacts" / "0")
            values = (0, "Default", location, "active", now, now, "default")
            connection.execute(f"INSERT OR IGNORE INTO experiments ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)


def _follow_move(database: Path) -> None:
    """If the project was moved or copied to another folder, update its file addresses, which are absolute.

    The store itself records the folder. Addresses outside it are the user's choice and stay.

    Raises:
        UserError: the project is a copy, and a link in it leads to the original's files; or a process is training under the other path.
    """
    here, remarks = database.parent, list[str]()
    with closing(_connect(database)) as connection:
        if _lies_in(_recorded_home(connection), database):
            return
        with files.lock(lock_path(database), on_wait=say_waiting):
            connection.execute("BEGIN IMMEDIATE")
            if (recorded := _recorded_home(connection)) is None:  # perhaps recorded or corrected by now
                connection.execute("CREATE TABLE regcls_home (folder TEXT NOT NULL)")
                connection.execute("INSERT INTO regcls_home VALUES (?)", [str(here)])
            home = recorded or _presumed_home(connection, database)
            if not _lies_in(home, database):
                if holder := _active_trainer(database):
                    raise UserError(f"{holder} is training in this folder under another path, {home}. Wait until it has ended.")
                remarks = _move_addresses(connection, home, database)
                connection.execute("UPDATE regcls_home SET folder = ?", [str(here)])
            connection.execute("COMMIT")
    for remark in remarks:
        say(remark)


def _recorded_home(connection: sqlite3.Connection) -> Path | None:
    """The project's folder when regcls last opened the store; None if that was never."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'regcls_home'").fetchone():
        return None
    return Path(*connection.execute("SELECT folder FROM regcls_home").fetchone())


def _presumed_home(connection: sqlite3.Connection, database: Path) -> Path:
    """Where a store without a record was, by the address of experiment 0: if the original is there still, or if files came along."""
    row = connection.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
    folder = folder_of(row[0]) if row else Path()
    home, within = folder.parent.parent, Path(*folder.parts[-2:])
    return home if os.path.exists(home / database.name) or os.path.exists(database.parent / within) else database.parent


def _lies_in(home: Path | None, database: Path) -> bool:
    """Whether the store lies in `home`, perhaps a second path of its folder. A different file there is the original of our copy."""
    return home is not None and (home == database.parent or _is_same(home / database.name, database))


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same place, even if nothing is there now."""
    return os.path.realpath(one) == os.path.realpath(other) or (
        os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)
    )


def _move_addresses(connection: sqlite3.Connection, home: Path, database: Path) -> list[str]:
    """Replace `home` in all addresses; return what the user should know."""
    here, is_copy = database.parent, os.path.exists(home / database.name)
    experiments = [address or "" for (address,) in connection.execute("SELECT artifact_location FROM experiments")]
    inside = {address: folder.relative_to(home) for address in experiments if (folder := folder_of(address)).is_relative_to(home)}
    for place in sorted({place for folder in inside.values() for place in (*folder.parents, folder) if place.parts}):
        if is_copy and _is_same(home / place, here / place):
            new, old = (shlex.quote(str(path)) for path in (here / place, os.path.realpath(home / place)))
            raise UserError(
                f"this project is a copy of {home}, but {new} leads to the same files: deleting runs here would delete them there. Give "
                f"the copy its own: rm {new} && cp -a {old} {new}"
            )
    for address, folder in inside.items():
        old_address = address.rstrip("/")
        values = [address_of(here / folder), len(old_address) + 1, old_address, len(old_address) + 1, f"{old_address}/"]
        for table, column in ADDRESSES:
            query = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?"
            connection.execute(query, values)
    remarks = [f"this project was in {home}: its runs' files are now looked for in {here}"]
    for name in sorted({folder.parts[0] for folder in inside.values() if folder.parts}):
        if os.path.exists(home / name) and not os.path.exists(here / name):
            left, new = (shlex.quote(str(path)) for path in (os.path.realpath(home / name), here / name))
            remarks.append(f"the files were left behind; bring them with: cp -a {left} {new}")
    return remarks


def _active_trainer(database: Path) -> str | None:
    """The process that is training in this very folder, perhaps a container that mounts it under another path. A copy has no locks."""
    for path in _locks_in(database.parent, database).glob("*.lock"):
        if (handle := files.try_lock(path)) is None:
            return files.lock_holder(path)
        handle.close()
    return None


def _another_schema(database: Path, revision: str | None, schema: str) -> str:
    if revision is None:
        return f"{database} is an SQLite file, but not an MLflow store. Move it away, {ELSEWHERE}."
    return (
        f"{database} was made by another version of MLflow (its schema is {revision}, this one's {schema}). If by an older one, save a "
        f"copy and run `mlflow db upgrade '{sqlite_uri(database)}'`; if by a newer one, install that, {ELSEWHERE}."
    )


def explanation(uri: str, error: Exception) -> str | None:
    """What is wrong with the store and what to do, in a line or two; None if the error is a bug of ours."""
    text, store = " ".join(str(error).split()), database_of(uri) or without_password(uri)
    hint = proxy_hint(uri)
    if re.search("error code 4.*<html", text, re.IGNORECASE):  # of a proxy, or of another server
        return f"{store} answers, but is not an MLflow server: it sends a web page. Check MLFLOW_TRACKING_URI.{hint}"
    is_full = "database or disk is full" in text
    if "disk I/O error" in text and isinstance(store, Path) and store.parent.is_dir():
        is_full = shutil.disk_usage(store.parent).free < files.SPARE
    if is_full:
        return f"no space left on the disk of {store}. Free some space and start again."
    locked = f"{store} is locked: another program has been writing to it for {LOCK_WAIT:g} s."
    for sign, message in (
        ("database is locked", f"{locked} Close that program and start again."),
        ("readonly database", f"cannot write {store}, where runs are tracked. Make it and its folder writable, {ELSEWHERE}."),
        ("unable to open database file", f"cannot open {store}, where runs are tracked. Make its folder, {ELSEWHERE}."),
        ("file is not a database", f"{store} is no SQLite database: overwritten or damaged. Move it away, {ELSEWHERE}."),
        ("locking protocol", f"the disk of {store} has no file locks, as some network mounts. Put it on another disk, {ELSEWHERE}."),
        (
            "disk I/O error",
            f"the disk of {store} fails, or has no file locks, as some network mounts. Put it on another disk, {ELSEWHERE}.",
        ),
        ("disk image is malformed", f"{store} is damaged. Restore a copy or move it away, {ELSEWHERE}."),
        ("out-of-date database schema", f"{store} was made by another version of MLflow. Save a copy and run `mlflow db upgrade` on it."),
        (
            "error code 401",
            f"the tracking server {store} does not know the user. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.",
        ),
        ("error code 403", f"the tracking server {store} does not let this user in: {text[:300]}"),
        ("failed with exception", f"no answer from the tracking server {store}. Does it run, and is MLFLOW_TRACKING_URI right?{hint}"),
        ("failed with error code", f"the tracking server {store} refuses: {text[:300]}"),
    ):
        if sign in text:
            return message
    if isinstance(error, ModuleNotFoundError):
        return f"the tracking store {store} needs the Python package {error.name}: pip install {error.name}"
    # MLflow's exceptions have a code; errors in our calls have one of these two.
    if getattr(error, "error_code", "INTERNAL_ERROR") not in ("INTERNAL_ERROR", "BAD_REQUEST"):
        return f"tracking store {store}: {text[:300]}"
    return None
