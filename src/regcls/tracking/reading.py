"""Tracked runs as rows, from a database or over a server."""

import math
from collections.abc import Iterator

from mlflow.entities import Run
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlRun, SqlTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from sqlalchemy import Select, select

from regcls.tracking.run_table import MACHINE, ORIGIN, Row
from regcls.tracking.writer import ALIVE_TAG, JOURNAL_TAG

PAGE = 500  # runs a request to a server: about 3 s
READ_TAGS = ("fingerprint", "mlflow.parentRunId", "regcls.host", "regcls.root", "regcls.process", JOURNAL_TAG, ALIVE_TAG, *MACHINE, *ORIGIN)


def rows_of(
    client: MlflowClient, experiment_id: str, tag: str, value: str, *, status: str | None = None, values: bool = False
) -> list[Row]:
    """The runs whose `tag` is `value`, the earliest first; `values`: with params and metrics. A `value` that ends in % is a beginning."""
    store = client._tracking_client.store
    if isinstance(store, SqlAlchemyStore):
        return _rows_from_database(store, experiment_id, tag, value, status, values)
    found = _rows_from_server(client, experiment_id, f"tags.`{tag}` {_compared(value)} '{value}'", status)
    return sorted(found, key=lambda row: (row.started, row.run_id))


def runs_beginning(client: MlflowClient, experiment_id: str, beginning: str, *, most: int) -> list[Run]:
    """The runs whose id begins so or, if there is none, whose fingerprint does; `most` of them, the earliest first."""
    for key in ("attributes.run_id", "tags.fingerprint"):
        asked = f"{key} LIKE '{beginning}%'"
        if runs := client.search_runs([experiment_id], asked, max_results=most, order_by=["attributes.start_time", "attributes.run_id"]):
            return list(runs)
    return []


def _compared(value: str) -> str:
    return "LIKE" if value.endswith("%") else "="


def _rows_from_database(store: SqlAlchemyStore, experiment_id: str, tag: str, value: str, status: str | None, values: bool) -> list[Row]:
    # search_runs takes 2 ms a run, for objects that nothing here needs: ten seconds for 5000 runs.
    wanted: Select[tuple[str]] = (
        select(SqlRun.run_uuid)
        .join(SqlTag, SqlTag.run_uuid == SqlRun.run_uuid)
        .where(SqlTag.key == tag, SqlTag.value.like(value) if value.endswith("%") else SqlTag.value == value)
        .where(SqlRun.experiment_id == int(experiment_id), SqlRun.lifecycle_stage == "active")
    )
    if status:
        wanted = wanted.where(SqlRun.status == status)
    with store.ManagedSessionMaker() as session:
        columns = (SqlRun.run_uuid, SqlRun.name, SqlRun.status, SqlRun.start_time, SqlRun.end_time)
        runs = session.execute(select(*columns).where(SqlRun.run_uuid.in_(wanted)).order_by(SqlRun.start_time, SqlRun.run_uuid))
        rows = {
            run_id: Row(run_id=run_id, name=name, status=status, started=started, ended=ended, tags={}, params={}, metrics={})
            for run_id, name, status, started, ended in runs
        }
        tags = select(SqlTag.run_uuid, SqlTag.key, SqlTag.value).where(SqlTag.key.in_(READ_TAGS), SqlTag.run_uuid.in_(wanted))
        for run_id, key, text in session.execute(tags):
            rows[run_id].tags[key] = text
        if values:
            params = select(SqlParam.run_uuid, SqlParam.key, SqlParam.value).where(SqlParam.run_uuid.in_(wanted))
            for run_id, key, text in session.execute(params):
                rows[run_id].params[key] = text
            latest = select(SqlLatestMetric.run_uuid, SqlLatestMetric.key, SqlLatestMetric.value, SqlLatestMetric.is_nan)
            for run_id, key, value, is_nan in session.execute(latest.where(SqlLatestMetric.run_uuid.in_(wanted))):
                rows[run_id].metrics[key] = math.nan if is_nan else value
    return list(rows.values())


def _rows_from_server(client: MlflowClient, experiment_id: str, asked: str, status: str | None) -> Iterator[Row]:
    asked += f" and attributes.status = '{status}'" if status else ""
    token: str | None = None
    while True:
        runs = client.search_runs([experiment_id], asked, max_results=PAGE, page_token=token)
        yield from map(row_of, runs)
        token = runs.token
        if not token:
            return


def row_of(run: Run) -> Row:
    """A run of MLflow's, with all its tags."""
    info, data = run.info, run.data
    return Row(
        run_id=info.run_id,
        name=info.run_name,
        status=info.status,
        started=info.start_time,
        ended=info.end_time,
        tags=data.tags,
        params=data.params,
        metrics=data.metrics,
    )
