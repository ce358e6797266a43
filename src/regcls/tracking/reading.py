"""Tracked runs as rows, from a database or over a server."""

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

from regcls.tracking.run_table import MACHINE, ORIGIN, Row
from regcls.tracking.writer import ALIVE_TAG, JOURNAL_TAG

PAGE = 250  # runs an answer: about a second; larger ones are not made faster
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
) -> list[Row]:
    """The runs whose `tag` is `value`, the earliest first; `values`: with params and metrics. A `value` that ends in % is a beginning."""
    store = client._tracking_client.store
    if isinstance(store, SqlAlchemyStore):
        return _rows_from_database(store, experiment_id, tag, value, status, values)
    found = _rows_from_server(client, experiment_id, f"tags.`{tag}` {_compared(value)} '{value}'", status)
    by_id = {row.run_id: row for row in found}  # a run that began between two answers is in both
    return sorted(by_id.values(), key=lambda row: (row.started, row.run_id))


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
    # A server needs about 4 ms of one core for a run, whatever is asked of it, so that a long list is asked for in sixteen parts, of which
    # its workers make several at once. MLflow's own client would need 1 ms more, here, to read a run into messages and then entities.
    store = client._tracking_client.store
    asked += f" and attributes.status = '{status}'" if status else ""
    first, more = _page(store, experiment_id, asked)
    if not more:
        yield from first
        return
    with ThreadPoolExecutor(AT_ONCE) as pool:
        parts = [f"{asked} and attributes.run_id LIKE '{digit}%'" for digit in "0123456789abcdef"]
        for rows in pool.map(lambda part: _part(store, experiment_id, part), parts):
            yield from rows


def _part(store: RestStore, experiment_id: str, asked: str) -> list[Row]:
    rows, token = _page(store, experiment_id, asked)
    while token:
        more, token = _page(store, experiment_id, asked, token)
        rows += more
    return rows


def _page(store: RestStore, experiment_id: str, asked: str, token: str = "") -> tuple[list[Row], str]:
    wanted = {"experiment_ids": [experiment_id], "filter": asked, "max_results": PAGE, "run_view_type": "ACTIVE_ONLY", "page_token": token}
    answer = verify_rest_response(http_request(store.get_host_creds(), SEARCH, "POST", json=wanted), SEARCH).json()
    return [_row_of_answer(run) for run in answer.get("runs", ())], answer.get("next_page_token", "")


def _row_of_answer(run: dict[str, Any]) -> Row:
    """A run in the server's JSON, where what is empty is left out."""
    info, data = run["info"], run.get("data", {})
    return Row(
        run_id=info["run_id"],
        name=info.get("run_name", ""),
        status=info["status"],
        started=int(info["start_time"]),
        ended=int(info["end_time"]) if "end_time" in info else None,
        tags={tag["key"]: tag.get("value", "") for tag in data.get("tags", ())},
        params={param["key"]: param.get("value", "") for param in data.get("params", ())},
        metrics={metric["key"]: float(metric["value"]) for metric in data.get("metrics", ())},
    )


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
