"""The folder reports/: a short page over all data sets, their reports in folders of their own, and the metrics that DVC shows."""

import json
from collections.abc import Mapping
from pathlib import Path

from regcls.errors import UserError
from regcls.files import folder_written_aside
from regcls.params import Params
from regcls.reports import page
from regcls.reports.report import Report


def nothing_to_show(absent: Mapping[str, str]) -> UserError:
    """Why there is no report on any data set: see `write`."""
    return UserError("\n".join(absent.values() if len(absent) == 1 else (f"{name}: {why}" for name, why in absent.items())))


def write(
    out: Path, *, params: Params, reports: Mapping[str, Report], absent: Mapping[str, str], provenance: Mapping[str, str]
) -> list[str]:
    """Write the reports (by data set) and the page over them into `out`, in place of what is there; return what to warn of.

    `absent`: data sets without a report -> why, and what to do; a line or two. Equal input gives equal bytes.

    Raises:
        UserError: no data set has a report, or `out` cannot be written; `out` is as it was.
    """
    if not reports:
        raise nothing_to_show(absent)
    named = len(params.datasets) > 1
    metrics = {name: reports[name].metrics if name in reports else None for name in params.datasets}
    files = {f"{name}/{file}": text for name, report in reports.items() for file, text in report.files.items()}
    files["metrics.json"] = json.dumps(metrics, indent=2, ensure_ascii=False) + "\n"
    files["index.html"] = page.render("overview.html", params=params, provenance=provenance, reports=reports, absent=absent)
    with folder_written_aside(out) as folder:
        for name, text in sorted(files.items()):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    warnings = [f"{name}: {line}" if named else line for name, report in reports.items() for line in report.warnings]
    return warnings + [f"{name}: left out, because {why}" for name, why in absent.items()]
