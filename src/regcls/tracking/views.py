"""The run list of `mlflow ui` with preset columns, order and filter: a shared view of MLflow, stored with the experiment.

MLflow does not document the format. Its pages from 2.22 to 3.18 open it as long as the state is complete; tests/tracking/test_views.py
checks the names in it against the installed page.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TAG = "mlflow.sharedViewState."  # experiment tag, followed by a key
LONGEST = 20_000  # characters, MLflow's limit for a tag
SECTION = "regcls"
NARROW = 80  # pixels per column: MLflow's default width leaves no room for metrics beside the parameters


@dataclass(frozen=True, kw_only=True)
class View:
    """A list of the runs with a tag, sorted by a metric, with these params and metrics as columns in this order."""

    tag: tuple[str, str]  # name, value
    params: Sequence[str]
    metrics: Sequence[str]  # errors; runs are sorted by the first, lowest first
    axes: Sequence[str] = ()  # params of the parallel coordinates; all runs must have them, others are left out of the plot

    @property
    def filter(self) -> str:
        """Filter of the runs, in the syntax of MLflow's search."""
        return f"tags.{self.tag[0]} = '{self.tag[1]}'"

    @property
    def order(self) -> str:
        """Sort column."""
        return f"metrics.`{self.metrics[0]}`"

    @property
    def state(self) -> str:
        """The view as MLflow's page reads it."""
        text = json.dumps(self._content(), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return "deflate;" + base64.b64encode(zlib.compress(text.encode())).decode()

    @property
    def key(self) -> str:
        """Key of the view's tag; equal views have equal keys."""
        return hashlib.sha256(self.state.encode()).hexdigest()[:32]

    def _content(self) -> Mapping[str, Any]:
        params, metrics = ([f"{kind}.`{name}`" for name in names] for kind, names in (("params", self.params), ("metrics", self.metrics)))
        columns = params + metrics
        widths = dict.fromkeys(params, NARROW) | dict.fromkeys(metrics, NARROW + 30)
        # The last metric determines the colours.
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
