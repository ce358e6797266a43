"""The run list of `mlflow ui` with columns, order and filter already chosen: what MLflow calls a shared view, kept with the experiment.

MLflow does not document the format. Pages of 2.22 to 3.18 open it as long as the state is complete; tests/tracking/test_views.py
holds the names in it to the page that is installed.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TAG = "mlflow.sharedViewState."  # of an experiment, followed by a key
LONGEST = 20_000  # characters of a tag, that MLflow keeps
SECTION = "regcls"
NARROW = 80  # pixels of a column: MLflow's own leave no room for metrics beside the parameters


@dataclass(frozen=True, kw_only=True)
class View:
    """What the list of runs shows: runs with a tag, by a metric, with these params and metrics as columns in this order."""

    tag: tuple[str, str]  # name, value
    params: Sequence[str]
    metrics: Sequence[str]  # errors; the runs are sorted by the first one, the lowest first
    axes: Sequence[str] = ()  # params of the parallel coordinates, which all runs have: others are left out there

    @property
    def filter(self) -> str:
        """Which runs, as MLflow's search has it."""
        return f"tags.{self.tag[0]} = '{self.tag[1]}'"

    @property
    def order(self) -> str:
        """What the runs are sorted by."""
        return f"metrics.`{self.metrics[0]}`"

    @property
    def state(self) -> str:
        """As MLflow's page reads it."""
        text = json.dumps(self._content(), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return "deflate;" + base64.b64encode(zlib.compress(text.encode())).decode()

    @property
    def key(self) -> str:
        """Of the tag: the same view has the same."""
        return hashlib.sha256(self.state.encode()).hexdigest()[:32]

    def _content(self) -> Mapping[str, Any]:
        params, metrics = ([f"{kind}.`{name}`" for name in names] for kind, names in (("params", self.params), ("metrics", self.metrics)))
        columns = params + metrics
        widths = dict.fromkeys(params, NARROW) | dict.fromkeys(metrics, NARROW + 30)
        # The metric that gives the colours stands last.
        chart = {
            "type": "PARALLEL",
            "uuid": "parallel",
            "metricSectionId": SECTION,
            "displayName": "Parallel coordinates",
            "selectedParams": list(self.axes),
            "selectedMetrics": list(reversed(self.metrics)),
            "showAllRuns": True,
            "runsCountToCompare": 10,
            "deleted": False,
            "isGenerated": False,
        }
        section = {
            "uuid": SECTION,
            "name": "Test errors",
            "display": True,
            "isReordered": True,
            "deleted": False,
            "isGenerated": False,
            "columns": 1,
            "cardHeight": 520,
        }
        return {
            "searchFilter": self.filter,
            "orderByKey": self.order,
            "orderByAsc": True,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": columns,
            "columnOrder": columns,
            "columnWidths": widths,
            "runsExpanded": {},
            "runsPinned": [],
            "runsHidden": [],
            "runsVisibilityMap": {},
            "runsHiddenMode": "SHOW_ALL",
            "viewMaximized": False,
            "runListHidden": False,
            "isAccordionReordered": True,
            "useGroupedValuesInCharts": True,
            "hideEmptyCharts": True,
            "groupBy": None,
            "groupsExpanded": {},
            "autoRefreshEnabled": True,
            "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
            "compareRunCharts": [chart] if self.axes else [],
            "compareRunSections": [section] if self.axes else [],
        }
