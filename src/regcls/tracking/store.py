"""Where runs are tracked, whether that place can be used, and what is wrong with it, said plainly. Imports no MLflow."""

import os
import re
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote, unquote

from regcls import files
from regcls.errors import UserError

LOCK_WAIT = 20.0  # seconds until a locked SQLite file counts as stuck; MLflow's own patience
SETTLE_WAIT = 2.0  # seconds without a change until a store of another schema counts as finished, not as one being made
ELSEWHERE = "or name another store in MLFLOW_TRACKING_URI"
# Where MLflow's schema keeps addresses of files; the root of our own, and of a store that a plain mlflow command has made.
ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)
OWN_ADDRESS = re.compile(r"((?:file:(?://[^/]*)?)?/.*)(/(?:mlartifacts|mlruns)/[^/]+)", re.DOTALL)


def project_root(root: Path) -> Path:
    """`root`, or the repository for which `dvc exp run --temp` (or --queue) made the workspace `root`: runs outlive that folder."""
    root = root.resolve()
    for folder in (root, *root.parents):
        if folder.parts[-4:-1] == (".dvc", "tmp", "exps"):
            return folder.parents[3]
    return root


def sqlite_uri(database: Path) -> str:
    """As MLflow writes it itself, so that both name the same file."""
    return f"sqlite:///{quote(str(database))}"


def store_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, with an absolute path if it is an SQLite file, or else mlflow.db in the project's root."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(root / "mlflow.db")
    if re.match(r"https?:(?!//[^/])|[^/:]+(:\d+)?(/|$)", uri):
        raise UserError(f"MLFLOW_TRACKING_URI={without_password(uri)} is no address. Write it as http://host:port, or unset it.")
    uri = re.sub(r"^postgres(ql)?://", "postgresql+psycopg2://", uri)  # SQLAlchemy would look for another driver than ours
    database = database_of(uri)
    return sqlite_uri(database) if database else uri.rstrip("/")


def database_of(uri: str) -> Path | None:
    """The file of an SQLite store, absolute; None for any other store."""
    if not uri.startswith("sqlite:"):
        return None
    name = unquote(re.sub(r"^sqlite:(///)?|[?].*$", "", uri))
    if name in ("", ":memory:"):
        raise UserError(f"MLFLOW_TRACKING_URI={uri} keeps nothing: name a file, as in sqlite:////home/me/mlflow.db")
    return Path(name).absolute()


def without_password(uri: str) -> str:
    """`uri` as it may be shown."""
    return re.sub(r"//[^/@]*@", "//", uri)


def address_of(folder: Path) -> str:
    """As MLflow keeps where artifacts are: it reads a path as it reads a URI, in which %20 is a blank and ? ends it."""
    return re.sub("[%?#]", lambda found: quote(found[0]), str(folder))


def folder_of(address: str) -> Path:
    """The folder that MLflow means by a path or a file: URI."""
    return Path(unquote(re.sub("^file:(//[^/]*)?", "", address)))


def lock_path(database: Path) -> Path:
    """Held while the store is set up."""
    return database.with_name(f"{database.name}.lock")


def say_waiting(holder: str) -> None:
    """For files.lock."""
    print(f"waiting for {holder}, which is setting up the tracking store", file=sys.stderr)


def open_database(database: Path, *, schema: str, create: Callable[[Path], None], is_own: bool) -> None:
    """Let `create` make the SQLite file where there is none, and see that it can be used: MLflow's own errors take a minute or are none.

    `schema`: the revision that this version of MLflow works with. `is_own`: the project's own file, which moves with the project.

    Raises:
        UserError: not writable, or from another version of MLflow.
        sqlite3.Error: locked, damaged; `explanation` says it plainly.
    """
    if not database.exists():
        # MLflow upgrades a new file through its whole history, and two processes doing that at once leave it broken for good. Hence a
        # lock for us, and a rename so that a plain mlflow command never meets half a file.
        with files.lock(lock_path(database), waiting=say_waiting):
            if not database.exists():
                files.write_atomically(database, create)
    for path in (database, database.parent):
        if not os.access(path, os.W_OK):
            raise UserError(f"cannot write {path}, where runs are tracked. Make it writable, {ELSEWHERE}.")
    found = _schema(database)
    while found != schema:
        time.sleep(SETTLE_WAIT)  # perhaps a plain mlflow command is creating the file at this moment: as long as it changes, wait
        before, found = found, _schema(database)
        if found == before != schema:
            raise UserError(_another_schema(database, found, schema))
    if is_own:
        _follow_move(database)


def _connect(database: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(database))}?mode=rw", uri=True, timeout=LOCK_WAIT, isolation_level=None)


def _schema(database: Path) -> str | None:
    """The store's revision; None in an SQLite file that is no MLflow store."""
    with closing(_connect(database)) as connection:
        connection.execute("BEGIN IMMEDIATE")  # needs what a writer needs
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row else None


def _follow_move(database: Path) -> None:
    """Where the project was moved or copied to another folder: have its addresses, which are absolute, lead to its files again."""
    with closing(_connect(database)) as connection:
        if not _old_addresses(connection, database):
            return
        with files.lock(lock_path(database), waiting=say_waiting):
            if holder := _trainer(database.parent):
                print(f"{database} has addresses of files in another folder; they are put right once {holder} has ended", file=sys.stderr)
                return
            connection.execute("BEGIN IMMEDIATE")
            addresses = _old_addresses(connection, database)  # perhaps put right by now
            for old, new in addresses.items():
                for table, column in ADDRESSES:
                    query = f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?"
                    connection.execute(query, [new, len(old) + 1, old, len(old) + 1, f"{old}/"])
            connection.execute("COMMIT")
        for home in sorted({folder_of(old).parents[1] for old in addresses}):
            print(f"this project was in {home}: its runs' files are now looked for in {database.parent}", file=sys.stderr)


def _trainer(root: Path) -> str | None:
    """Who trains in this very folder at this moment: a container, perhaps, that knows it by another name. In a copy no lock is held."""
    for path in (root / ".regcls").glob("*.lock"):
        if (held := files.try_lock(path)) is None:
            return files.lock_holder(path)
        held.close()
    return None


def _old_addresses(connection: sqlite3.Connection, database: Path) -> dict[str, str]:
    """Where experiments had their files when the project was in another folder -> where these are now.

    Experiment 0, which comes with the store, tells the old folder. What lies outside it is the user's choice, whether it is there or not.
    """
    addresses = [address or "" for (address,) in connection.execute("SELECT artifact_location FROM experiments ORDER BY experiment_id")]
    first = OWN_ADDRESS.fullmatch(addresses[0]) if addresses else None
    if first is None or (home := folder_of(first[1])) == database.parent:
        return {}
    here, folders = database.parent, {address: folder_of(address) for address in addresses}
    if os.path.exists(store := home / database.name):
        stays = os.path.samefile(store, database)  # a folder with two names; another file there is what ours is a copy of
    else:
        root = folders[addresses[0]]
        stays = root.exists() and not (here / root.relative_to(home)).exists()  # files alone there: the user has chosen the place
    if stays:
        return {}
    return {address: address_of(here / folder.relative_to(home)) for address, folder in folders.items() if folder.is_relative_to(home)}


def _another_schema(database: Path, found: str | None, schema: str) -> str:
    if found is None:
        return f"{database} is an SQLite file, but no MLflow store. Move it away, {ELSEWHERE}."
    return (
        f"{database} was made by another version of MLflow (its schema is {found}, this one's {schema}). If by an older, save a copy "
        f"and run `mlflow db upgrade '{sqlite_uri(database)}'`; if by a newer, install that, {ELSEWHERE}."
    )


def explanation(uri: str, error: Exception) -> str | None:
    """What is wrong with the store and what to do, in a line or two; None if the error is a bug of ours."""
    text, where = " ".join(str(error).split()), database_of(uri) or without_password(uri)
    locked = f"{where} is locked: another program has been writing to it for {LOCK_WAIT:g} s."
    for sign, said in (
        ("database is locked", f"{locked} Close that program and start again."),
        ("readonly database", f"cannot write {where}, where runs are tracked. Make it and its folder writable, {ELSEWHERE}."),
        ("unable to open database file", f"cannot open {where}, where runs are tracked. Make its folder, {ELSEWHERE}."),
        ("file is not a database", f"{where} is no SQLite database: overwritten or damaged. Move it away, {ELSEWHERE}."),
        ("disk image is malformed", f"{where} is damaged. Restore a copy or move it away, {ELSEWHERE}."),
        ("database or disk is full", f"no space left on the disk of {where}. Free some space and start again."),
        ("out-of-date database schema", f"{where} was made by another version of MLflow. Save a copy and run `mlflow db upgrade` on it."),
        (
            "error code 401",
            f"the tracking server {where} does not know the user. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.",
        ),
        ("error code 403", f"the tracking server {where} does not let this user in: {text[:300]}"),
        ("failed with exception", f"no answer from the tracking server {where}. Does it run, and is MLFLOW_TRACKING_URI right?"),
        ("failed with error code", f"the tracking server {where} refuses: {text[:300]}"),
    ):
        if sign in text:
            return said
    if isinstance(error, ModuleNotFoundError):
        return f"the tracking store {where} needs the Python package {error.name}: pip install {error.name}"
    # MLflow's own exceptions have a code; these two also stand for errors in our calls.
    if getattr(error, "error_code", "INTERNAL_ERROR") not in ("INTERNAL_ERROR", "BAD_REQUEST"):
        return f"tracking store {where}: {text[:300]}"
    return None
