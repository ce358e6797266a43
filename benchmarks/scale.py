"""Cost of 5 000 tracked runs: seconds of `regcls compare`, its parts and the first page of `mlflow ui`; and eight parallel trainers.

    python benchmarks/scale.py sqlite|postgres [--runs 5000] [--repeats 3] [--folder FOLDER] [--look SECONDS]

`sqlite` is the file that a fresh clone tracks into, `postgres` is `mlflow server` over PostgreSQL (tests/servers.py starts both).
One run is logged through regcls's Tracker; the others are copies of its rows in MLflow's tables, each with the name, parameters, tags and
fingerprint of a spec of the published 1D study and numbers of its own: 2 780 that its grids ask for, the rest with other seeds.
--folder keeps the prepared data for the next time. Aims: `compare` under 15 s (sqlite) and 30 s (postgres); nothing lost.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import requests
import sqlalchemy
import yaml
from rich.console import Console

from regcls.data.store import prepared_folder
from regcls.params import load_params
from regcls.provenance import git_tags, machine_tags
from regcls.tasks.functions.networks import FunctionNetworks
from regcls.tasks.functions.runs import FunctionSpec, all_specs
from regcls.tasks.task import open_data
from regcls.tracking.tracker import Tracker
from regcls.training import ensemble_study
from tracking import example_result

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))

TRAINERS, EACH, EPOCHS = 8, 10, 20  # processes, runs of each, epochs logged of each
FIRST_PAGE = {"max_results": 100, "order_by": ["attributes.start_time DESC"], "run_view_type": "ACTIVE_ONLY"}  # what `mlflow ui` requests
say = Console(stderr=True).print


def make_project(folder: Path) -> None:
    """The published 1D study with smaller data sets: a report's cost depends on the runs, not on the samples."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["datasets"] = ["functions"]
    tree["functions"]["data"]["samples"] = 18432
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    if not prepared_folder(folder, "functions").exists():
        subprocess.run([sys.executable, "-m", "regcls", "prepare", "functions"], cwd=folder, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def running(kind: str, folder: Path) -> Iterator[tuple[str, str]]:
    """(tracking URI, SQL database) of an empty store; `sqlite` in the project's folder, as for a user."""
    if kind == "sqlite":
        for file in folder.glob("mlflow.db*"):
            file.unlink()
        yield f"sqlite:///{folder}/mlflow.db", f"sqlite:///{folder}/mlflow.db"
        return
    from nursery import Nursery
    from servers import Postgres, TrackingServer, postgres_binaries

    with tempfile.TemporaryDirectory(prefix="regcls-scale-") as aside:
        nursery = Nursery(Path(aside))
        (Path(aside) / "postgres").mkdir()
        Path(aside).chmod(0o755)  # PostgreSQL does not run as root
        binaries = postgres_binaries() or sys.exit("needs PostgreSQL: apt-get install postgresql")
        database = Postgres(Path(aside) / "postgres", binaries, nursery)
        store = database.make_store("scale")
        server = TrackingServer(Path(aside) / "server", nursery, store=store, command=True, options=("--workers=4",)).start()  # its default
        try:
            yield server.uri, store
        finally:
            server.stop()
            database.stop()
            nursery.close()


def fill(database: str, template: str, wanted: dict[FunctionSpec, str], count: int) -> None:
    """Copy the rows of the run `template` for each spec, and for others up to `count` in total."""
    specs = list(wanted)
    others = [replace(specs[k % len(specs)], seed=1_000_000 + k) for k in range(max(count - len(specs), 0))]
    copies = [(uuid.uuid4().hex, spec, wanted.get(spec, f"{k:032x}")) for k, spec in enumerate([*specs, *others][: count - 1])]
    engine = sqlalchemy.create_engine(database)
    tables = sqlalchemy.MetaData()
    tables.reflect(engine, only=["runs", "tags", "params", "metrics", "latest_metrics", "inputs"])
    with engine.begin() as connection:
        insert = {name: table.insert() for name, table in tables.tables.items()}
        read = {
            name: [
                dict(row)
                for row in connection.execute(
                    table.select().where(table.c.get("run_uuid", table.c.get("destination_id")) == template)
                ).mappings()
            ]
            for name, table in tables.tables.items()
        }
        [run], rng = read["runs"], np.random.default_rng(0)
        connection.execute(
            insert["runs"],
            [
                run
                | {"run_uuid": new, "name": spec.name, "artifact_uri": run["artifact_uri"].replace(template, new)}
                | {"start_time": run["start_time"] - 1000 * k, "end_time": run["end_time"] - 1000 * k}
                for k, (new, spec, _) in enumerate(copies, 1)
            ],
        )
        for name in ("params", "tags"):
            rows = []
            for new, spec, fingerprint in copies:
                own = spec.params() if name == "params" else spec.tags() | {"fingerprint": fingerprint, "mlflow.runName": spec.name}
                kept = {row["key"]: row["value"] for row in read[name]} if name == "tags" else {}
                rows += [{"run_uuid": new, "key": key, "value": value} for key, value in (kept | own).items()]
            connection.execute(insert[name], rows)
        connection.execute(
            insert["inputs"],
            [row | {"input_uuid": uuid.uuid4().hex, "destination_id": new} for new, _, _ in copies for row in read["inputs"]],
        )
        for some in np.array_split(np.arange(len(copies)), 20):  # a million points of history
            factors = {copies[k][0]: float(rng.uniform(0.5, 2)) for k in some}
            for name in ("metrics", "latest_metrics"):
                rows = [row | {"run_uuid": new, "value": row["value"] * factor} for new, factor in factors.items() for row in read[name]]
                connection.execute(insert[name], rows)
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("ANALYZE"))  # what each of them would do by itself later
    engine.dispose()


def timed(what: Callable[[], Any], repeats: int) -> str:
    """`median s (min to max, n)`."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        what()
        seconds.append(time.perf_counter() - start)
    return f"{np.median(seconds):6.2f} s ({min(seconds):.2f} to {max(seconds):.2f}, n {repeats})"


def compare(folder: Path, uri: str) -> None:
    """Run `regcls compare` like a user."""
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-m", "regcls", "compare"], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)


def train(folder: Path, uri: str, worker: int) -> None:
    """Be one of the trainers: EACH runs, logged epoch by epoch, in a process of its own (see main)."""
    os.environ["MLFLOW_TRACKING_URI"] = uri
    tracker, rng = Tracker(folder, experiment="trainers"), np.random.default_rng(worker)
    spec = replace(all_specs(load_params(folder / "params.yaml").datasets["functions"], "functions")[0], epochs=EPOCHS)
    for k in range(EACH):
        run_id = tracker.start(replace(spec, seed=k), fingerprint=f"{worker:016x}{k:016x}", tags=machine_tags())
        for epoch in range(1, EPOCHS + 1):
            tracker.log_metrics(run_id, [("loss", epoch + worker / 10, epoch, time.time())])
        tracker.finish(run_id, example_result(rng, spec))
    tracker.deliver()


def trainers(folder: Path, uri: str, database: str) -> str:
    """Run TRAINERS in parallel, and count what arrived."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    start = time.perf_counter()
    processes = [
        subprocess.Popen([sys.executable, __file__, "trainer", "--folder", folder, "--uri", uri, "--worker", str(k)], env=environment)
        for k in range(TRAINERS)
    ]
    failed = sum(process.wait() != 0 for process in processes)
    seconds = time.perf_counter() - start
    engine = sqlalchemy.create_engine(database)
    with engine.connect() as connection:
        query = "FROM {} JOIN runs USING (run_uuid) JOIN experiments USING (experiment_id) WHERE experiments.name = 'trainers'"
        count = {
            name: connection.execute(sqlalchemy.text(f"SELECT count(*) {query.format(name)}")).scalar()
            for name in ("params", "metrics", "latest_metrics")
        }
        finished = connection.execute(
            sqlalchemy.text(f"SELECT count(DISTINCT run_uuid) {query.format('tags')} AND status = 'FINISHED'")
        ).scalar()
        losses = connection.execute(sqlalchemy.text(f"SELECT count(*) {query.format('metrics')} AND key = 'loss'")).scalar()
    engine.dispose()
    runs = TRAINERS * EACH
    lost = failed or finished != runs or losses != runs * EPOCHS
    verdict = f"LOST: {failed} trainers failed, {finished} runs, {losses} points of {runs * EPOCHS}" if lost else "nothing lost"
    return f"{seconds:6.1f} s for {runs} runs of {EPOCHS} epochs, start of Python included; {verdict} ({count})"


def first_page(uri: str, experiment_id: str) -> None:
    """The request that fills the list of the page."""
    answer = requests.post(f"{uri}/ajax-api/2.0/mlflow/runs/search", json={**FIRST_PAGE, "experiment_ids": [experiment_id]}, timeout=60)
    assert len(answer.json()["runs"]) == FIRST_PAGE["max_results"], answer.text[:300]


@contextmanager
def page(uri: str, folder: Path) -> Iterator[str]:
    """Where `mlflow ui` shows the store."""
    if uri.startswith("http"):
        yield uri
        return
    from nursery import Nursery
    from servers import TrackingServer

    with tempfile.TemporaryDirectory() as aside:
        nursery = Nursery(Path(aside))
        server = TrackingServer(Path(aside) / "server", nursery, store=uri, command=True).start()
        yield server.uri
        server.stop()
        nursery.close()


def measure(kind: str, folder: Path, count: int, repeats: int, look: float) -> None:
    """Fill a store, and print a line per figure."""
    with say_and_time("preparing the data"):
        make_project(folder)
    params = load_params(folder / "params.yaml")
    networks = FunctionNetworks(open_data(params, folder, "functions", verify=False), "functions")
    wanted = ensemble_study.fingerprints(networks, all_specs(params.datasets["functions"], "functions"))
    with running(kind, folder) as (uri, database):
        os.environ["MLFLOW_TRACKING_URI"] = uri
        tracker, spec = Tracker(folder, experiment="regcls"), replace(next(iter(wanted)), seed=999_999)
        template = tracker.start(spec, fingerprint="f" * 32, tags={**git_tags(ROOT), **machine_tags(), "data_md5": "0" * 32})
        tracker.finish(template, example_result(np.random.default_rng(0), spec))
        tracker.deliver()
        [template] = tracker.finished("functions").values()
        with say_and_time(f"filling the store with {count} runs"):
            fill(database, template, wanted, count)
        print(f"{kind}: {len(tracker.finished('functions'))} finished runs; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        print("regcls compare       ", timed(lambda: compare(folder, uri), repeats))
        print("  fetching the runs  ", timed(lambda: tracker.collect("functions", FunctionSpec), repeats))
        print("  finished(), in train", timed(lambda: tracker.finished("functions"), repeats))
        with page(uri, folder) as served:
            print("mlflow ui, first page", timed(lambda: first_page(served, tracker.experiment_id), 5))
            if look:
                say(f"{served}/#/experiments/{tracker.experiment_id}/runs is there for {look:g} s")
                time.sleep(look)
        print("eight trainers       ", trainers(folder, uri, database))


@contextmanager
def say_and_time(what: str) -> Iterator[None]:
    """Announce a long step, and time it."""
    start = time.perf_counter()
    say(f"{what} ...")
    yield
    say(f"{what}: {time.perf_counter() - start:.0f} s")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", choices=["sqlite", "postgres", "trainer"], metavar="sqlite|postgres")
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the project is made (a temporary folder)")
    parser.add_argument("--look", type=float, default=0, metavar="SECONDS", help="keep the page open so long")
    parser.add_argument("--uri", help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.store == "trainer":
        train(given.folder, given.uri, given.worker)
        return
    with tempfile.TemporaryDirectory() as aside:
        folder = (given.folder or Path(aside)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        measure(given.store, folder, given.runs, given.repeats, given.look)


if __name__ == "__main__":
    main()
