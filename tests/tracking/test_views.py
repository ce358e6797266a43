"""Views of the run list that reports link to: stored with the experiment, and read by the page of the pinned MLflow."""

import base64
import functools
import json
import re
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import MAX_EXPERIMENT_TAG_VAL_LENGTH

from regcls.tracking.tracker import Tracker
from regcls.tracking.views import LONGEST, TAG, View

VIEW = View(tag=("dataset", "portraits"), params=("method", "lambda"), metrics=("test/mae/all", "test/mae/few"), axes=("method",))
SEARCH = {"searchFilter", "orderByKey", "orderByAsc", "startTime", "lifecycleFilter", "modelVersionFilter", "datasetsFilter"}


@pytest.fixture
def tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return Tracker(tmp_path, experiment="regcls")


def kept(tracker: Tracker) -> dict[str, str]:
    tags = tracker._client.get_experiment(tracker.experiment_id).tags
    return {name.removeprefix(TAG): value for name, value in tags.items() if name.startswith(TAG)}


def decoded(state: str) -> dict[str, Any]:
    """Decode a view like the page does."""
    content: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(state.removeprefix("deflate;"), validate=True)))
    return content


@functools.cache
def page() -> str:
    """The JavaScript of the installed page."""
    return "".join(file.read_text() for file in Path(mlflow.__file__).parent.glob("server/js/build/static/js/*.js"))


def test_a_url_names_a_view_stored_with_the_experiment(tracker: Tracker) -> None:
    for address, mode in zip(tracker.view_urls(VIEW), (None, ["CHART"]), strict=True):
        path, query = urlsplit(address).fragment.split("?")
        parameters = parse_qs(query, strict_parsing=True)
        assert path == f"/experiments/{tracker.experiment_id}/runs" and parameters.get("compareRunsMode") == mode
        assert not SEARCH & set(parameters), "beside any of these the page does not look at the key"
        assert kept(tracker)[parameters["viewStateShareKey"][0]] == VIEW.state


def test_equal_views_are_stored_once(tracker: Tracker) -> None:
    assert tracker.view_urls(VIEW) == tracker.view_urls(VIEW) and len(kept(tracker)) == 1
    tracker.view_urls(View(tag=("dataset", "rooms"), params=(), metrics=("test/rmse/all",)))
    assert len(kept(tracker)) == 2


def test_the_search_of_a_view_finds_its_runs_best_first(tracker: Tracker) -> None:
    client = tracker._client
    for name, dataset, error in (("worse", "portraits", 9.0), ("other", "rooms", 1.0), ("better", "portraits", 8.0)):
        run = client.create_run(tracker.experiment_id, tags={"dataset": dataset}, run_name=name)
        client.log_metric(run.info.run_id, "test/mae/all", error)
    state = decoded(VIEW.state)
    order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
    found = client.search_runs([tracker.experiment_id], state["searchFilter"], order_by=[order])
    assert [run.info.run_name for run in found] == ["better", "worse"]


def test_without_permission_filter_and_order_are_put_into_the_url(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any) -> None:
        raise MlflowException("Permission denied")

    monkeypatch.setattr(tracker._client, "set_experiment_tag", refused)
    parameters = parse_qs(urlsplit(tracker.view_urls(VIEW)[0]).fragment.split("?")[1])
    assert parameters == {"searchFilter": ["tags.dataset = 'portraits'"], "orderByKey": ["metrics.`test/mae/all`"], "orderByAsc": ["true"]}


def test_columns_keep_their_order_and_the_first_metric_is_coloured() -> None:
    state = decoded(VIEW.state)
    assert state["columnOrder"] == ["params.`method`", "params.`lambda`", "metrics.`test/mae/all`", "metrics.`test/mae/few`"]
    assert state["selectedColumns"] == state["columnOrder"]
    (chart,) = state["compareRunCharts"]
    assert chart["selectedMetrics"][-1] == "test/mae/all" and chart["selectedParams"] == ["method"]
    assert chart["metricSectionId"] in {section["uuid"] for section in state["compareRunSections"]}


def test_the_installed_mlflow_page_reads_all_fields_of_a_view() -> None:
    """Fails with an MLflow whose page uses other names."""
    for word in (f'"{TAG}"', '"viewStateShareKey"', '"compareRunsMode"', '"deflate;"', 'PARALLEL="PARALLEL"'):
        assert word in page(), word
    lists = re.findall(r'\["(?:selectedColumns","columnOrder|searchFilter","orderByKey)"[^\]]*\]', page())
    assert set(decoded(VIEW.state)) <= {name for found in lists for name in json.loads(found)}
    assert len(VIEW.state) <= LONGEST == MAX_EXPERIMENT_TAG_VAL_LENGTH
