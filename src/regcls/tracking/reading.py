"""Reads tracked runs as rows, from a database or a server."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlflow.entities import Run
from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlRun, SqlTag
from mlflow.store.tracking.rest_store import RestStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from mlflow.utils.rest_utils import http_request, verify_rest_response
from sqlalchemy import Select, select

from regcls.tracking.run_table import MACHINE, ORIGIN, TrackedRun
from regcls.tracking.writer import ALIVE_TAG, JOURNAL_TAG

PAGE = 250  # runs per response, which takes about a second; larger pages are no faster
AT_ONCE = 4  # requests: `mlflow server` has four workers by default
SEARCH = "/api/2.0/mlflow/runs/search"
READ_TAGS = (
    "task",
    "fingerprint",
    "mlflow.parentRunId",
    "regcls.host",
    "regcls.root",
    "regcls.process",
    JOURNAL_TAG,
    ALIVE_TAG,
    *MACHINE,
    *ORIGIN,
)


def rows_of(
    client: MlflowClient, experiment_id: str, tag: str, value: str, *, status: str | None = None, values: bool = False
) -> list[TrackedRun]:
    """The runs whose `tag` is `value`, or begins with it if it ends in %; earliest first. `values`: with params and metrics."""
    store = client._tracking_client.store
    if isinstance(store, SqlAlchemyStore):
        return _rows_from_database(store, experiment_id, tag, value, status, values)
    operator = "LIKE" if value.endswith("%") else "="
    rows = _rows_from_server(client, experiment_id, f"tags.`{tag}` {operator} '{value}'", status)
    by_id = {row.run_id: row for row in rows}  # a run that started between two responses is in both
    return sorted(by_id.values(), key=lambda row: (row.started, row.run_id))


def runs_beginning(client: MlflowClient, experiment_id: str, prefix: str, *, most: int) -> list[Run]:
    """The runs whose id begins with `prefix` or, if there are none, whose fingerprint does; at most `most`, earliest first."""
    for key in ("attributes.run_id", "tags.fingerprint"):
        query = f"{key} LIKE '{prefix}%'"
        if runs := client.search_runs([experiment_id], query, max_results=most, order_by=["attributes.start_time", "attributes.run_id"]):
            return list(runs)
    return []


def artifact_folders(client: MlflowClient, experiment_id: str, *, status: str) -> dict[str, str]:
    """Run id -> address of its artifacts, of all of regcls's runs in a database, earliest first; empty for a server."""
    store = client._tracking_client.store
    if not isinstance(store, SqlAlchemyStore):
        return {}
    wanted = (SqlRun.experiment_id == int(experiment_id), SqlRun.lifecycle_stage == "active", SqlRun.status == status)
    ours = (SqlTag.run_uuid == SqlRun.run_uuid, SqlTag.key == "fingerprint")
    with store.ManagedSessionMaker() as session:
        rows = session.execute(select(SqlRun.run_uuid, SqlRun.artifact_uri).where(*wanted, *ours).order_by(SqlRun.start_time))
        return {row.run_uuid: row.artifact_uri for row in rows}


def _rows_from_database(
    store: SqlAlchemyStore, experiment_id: str, tag: str, value: str, status: str | None, values: bool
) -> list[TrackedRun]:
    # search_runs takes 2 ms per run, for objects that are not needed here: ten seconds for 5000 runs.
    run_ids: Select[tuple[str]] = (
        select(SqlRun.run_uuid)
        .join(SqlTag, SqlTag.run_uuid == SqlRun.run_uuid)
        .where(SqlTag.key == tag, SqlTag.value.like(value) if value.endswith("%") else SqlTag.value == value)
        .where(SqlRun.experiment_id == int(experiment_id), SqlRun.lifecycle_stage == "active")
    )
    if status:
        run_ids = run_ids.where(SqlRun.status == status)
    with store.ManagedSessionMaker() as session:
        columns = (SqlRun.run_uuid, SqlRun.name, SqlRun.status, SqlRun.start_time, SqlRun.end_time)
        runs = session.execute(select(*columns).where(SqlRun.run_uuid.in_(run_ids)).order_by(SqlRun.start_time, SqlRun.run_uuid))
        rows = {
            run_id: TrackedRun(run_id=run_id, name=name, status=status, started=started, ended=ended, tags={}, params={}, metrics={})
            for run_id, name, status, started, ended in runs
        }
        tags = select(SqlTag.run_uuid, SqlTag.key, SqlTag.value).where(SqlTag.key.in_(READ_TAGS), SqlTag.run_uuid.in_(run_ids))
        for run_id, key, text in session.execute(tags):
            rows[run_id].tags[key] = text
        if values:
            params = select(SqlParam.run_uuid, SqlParam.key, SqlParam.value).where(SqlParam.run_uuid.in_(run_ids))
            for run_id, key, text in session.execute(params):
                rows[run_id].params[key] = text
            latest = select(SqlLatestMetric.run_uuid, SqlLatestMetric.key, SqlLatestMetric.value, SqlLatestMetric.is_nan)
            for run_id, key, value, is_nan in session.execute(latest.where(SqlLatestMetric.run_uuid.in_(run_ids))):
                rows[run_id].metrics[key] = math.nan if is_nan else value
    return list(rows.values())


def _rows_from_server(client: MlflowClient, experiment_id: str, query: str, status: str | None) -> Iterator[TrackedRun]:
    # A server needs about 4 ms of one core per run, whatever the query. So a long list is requested in sixteen parts, several of which its
    # workers answer at once. Here, MLflow's own client would need 1 ms more per run, for messages and then entities.
    store = client._tracking_client.store
    if status:
        query += f" and attributes.status = '{status}'"
    first, more = _page(store, experiment_id, query)
    if not more:
        yield from first
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        queries = [f"{query} and attributes.run_id LIKE '{digit}%'" for digit in "0123456789abcdef"]
        for rows in pool.map(lambda part: _pages(store, experiment_id, part), queries):
            yield from rows


def _pages(store: RestStore, experiment_id: str, query: str) -> list[TrackedRun]:
    rows, token = _page(store, experiment_id, query)
    while token:
        more, token = _page(store, experiment_id, query, token)
        rows += more
    return rows


def _page(store: RestStore, experiment_id: str, query: str, token: str = "") -> tuple[list[TrackedRun], str]:
    body = {"experiment_ids": [experiment_id], "filter": query, "max_results": PAGE, "run_view_type": "ACTIVE_ONLY", "page_token": token}
    response = verify_rest_response(http_request(store.get_host_creds(), SEARCH, "POST", json=body), SEARCH).json()
    return [_row_of_json(run) for run in response.get("runs", ())], response.get("next_page_token", "")


def _row_of_json(run: dict[str, Any]) -> TrackedRun:
    """A run from the server's JSON, which omits empty values."""
    info, data = run["info"], run.get("data", {})
    return TrackedRun(
        run_id=info["run_id"],
        name=info.get("run_name", ""),
        status=info["status"],
        started=int(info["start_time"]),
        ended=int(info["end_time"]) if "end_time" in info else None,
        tags={tag["key"]: tag.get("value", "") for tag in data.get("tags", ())},
        params={param["key"]: param.get("value", "") for param in data.get("params", ())},
        metrics={metric["key"]: float(metric["value"]) for metric in data.get("metrics", ())},
    )


def row_of(run: Run) -> TrackedRun:
    """A run of MLflow as a row, with all its tags."""
    info, data = run.info, run.data
    return TrackedRun(
        run_id=info.run_id,
        name=info.run_name,
        status=info.status,
        started=info.start_time,
        ended=info.end_time,
        tags=data.tags,
        params=data.params,
        metrics=data.metrics,
    )
