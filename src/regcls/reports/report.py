"""Tracked runs -> the folder reports/: figures, tables, the numbers behind them, and one page to open first."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from regcls.files import folder_written_aside
from regcls.params import Params, Sampling
from regcls.reports import figures, figures_data, page, protocol, published, shares, stats, study
from regcls.reports.collect import CELL, Collected, collect, hole_lines, in_order, records
from regcls.reports.figures_data import SyntheticSets
from regcls.reports.page import Section
from regcls.reports.tables import Table, latex, markdown
from regcls.run_table import MACHINE
from regcls.runs import RunSpec, data_key, expand

# figure3_networks.csv: one row a network.
NETWORK_COLUMNS = [
    *("setting", "sampling", "noise", "method", "classes", "lambda", "function", "repetition", "seed"),
    *("test_mse", "val_mse", "train_mse", "run_id"),
]


@dataclass(kw_only=True)
class _Report:
    """What is about to be written."""

    sections: list[Section] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)  # name -> text

    def add(self, section: Section, *, numbers: pd.DataFrame | None = None) -> None:
        """A section of the page with its files; `numbers` is the CSV behind a figure, where that is not its table's."""
        self.sections.append(section)
        if section.svg:
            self.files[f"{section.name}.svg"] = section.svg
        if numbers is not None:
            self.files[f"{section.name}.csv"] = to_csv(numbers)
        if section.table is not None:
            self.add_table(section.table)

    def add_table(self, table: Table) -> None:
        self.files.setdefault(f"{table.name}.csv", to_csv(table.frame))
        self.files[f"{table.name}.md"] = markdown(table)
        self.files[f"{table.name}.tex"] = latex(table)


def compare(
    *,
    params: Params,
    runs: pd.DataFrame,
    fingerprints: Mapping[RunSpec, str],
    run_url: Callable[[str], str],
    sets: SyntheticSets | None,
    out: Path,
    provenance: Mapping[str, str],
) -> list[str]:
    """Write the report on the 1D study into the folder `out`, in place of what is there; equal runs give equal bytes.

    `runs`: a row a tracked run; `fingerprints`: of every run that params.yaml asks for; `run_url`: run id -> its page in MLflow; `sets`:
    the prepared data, or None; `provenance`: what made the report, as it is to be shown. Returns what to warn of.

    Raises:
        UserError: no run counts, or `out` cannot be written; `out` is as it was.
    """
    collected = collect(runs, fingerprints, functions=len(params.synthetic.data.functions))
    place = {spec: position for position, spec in enumerate(fingerprints)}
    grids = {name: collected.of(expand(params.synthetic, grid), place) for name, grid in params.synthetic.grids.items()}
    warnings = _warnings(collected, grids)

    report = _Report()
    if sets is None:
        warnings.append("figure1, figure2: left out, because the prepared data are not there (make them with: dvc repro)")
    else:
        _add_data_figures(report, params, sets)
    panels = _add_figure3(report, grids["figure3"], protocol.not_comparable(params, "figure3")) if "figure3" in grids else None
    wins = _add_figure4_and_table1(report, grids["figure4"], protocol.not_comparable(params, "figure4")) if "figure4" in grids else None
    if "figure5" in grids:
        _add_figure5(report, grids["figure5"])
    holes = collected.wanted[collected.wanted["state"] != "finished"].drop(columns="run_id")
    report.files["holes.csv"] = to_csv(in_order(holes).rename(columns={"lam": "lambda"}))
    report.files["metrics.json"] = json.dumps(_metrics(collected, panels, wins), indent=2, ensure_ascii=False) + "\n"
    report.files["index.html"] = page.render(
        params=params,
        collected=collected,
        panels=panels,
        sections=report.sections,
        warnings=warnings,
        run_url=run_url,
        provenance=provenance,
        machines=_machines(runs[runs["run_id"].isin(collected.wanted["run_id"])]),
    )
    with folder_written_aside(out) as folder:
        for name, text in sorted(report.files.items()):
            (folder / name).write_text(text, encoding="utf-8")
    return warnings


def to_csv(frame: pd.DataFrame) -> str:
    """Eight significant digits: more than float32 has."""
    return str(frame.to_csv(index=False, float_format="%.8g", lineterminator="\n"))


def _warnings(collected: Collected, grids: Mapping[str, Collected]) -> list[str]:
    lines = []
    for name, grid in grids.items():
        holes = grid.wanted.loc[grid.wanted["state"] != "finished", "state"].value_counts(sort=False)
        if len(holes):
            why = ", ".join(f"{count} {state}" for state, count in sorted(holes.items(), key=str))
            lines.append(f"{name}: {int(holes.sum())} of {len(grid.wanted)} runs are holes ({why}); see the report")
    if collected.duplicates:
        shown = ", ".join(collected.duplicates[:3]) + (" …" if len(collected.duplicates) > 3 else "")
        lines.append(f"duplicates: {len(collected.duplicates)} finished runs repeat an earlier one; the earliest counts, not used: {shown}")
    if collected.stale:
        lines.append(f"stale: {len(collected.stale)} finished runs were made with other code or data; they are not used")
    return lines


def _machines(runs: pd.DataFrame) -> list[str]:
    """The kinds of machine that trained the runs, as far as the table of runs has them: `120 runs: cpus 2, gpu none`."""
    known = [name for name in MACHINE if name in runs.columns]
    if not known:
        return []
    kinds = runs[known].fillna("unknown").astype(str).groupby(known, sort=True).size().reset_index(name="runs")
    return [f"{kind['runs']} runs: {', '.join(f'{name} {kind[name]}' for name in known)}" for kind in records(kinds)]


def _add_data_figures(report: _Report, params: Params, sets: SyntheticSets) -> None:
    data, grid = params.synthetic.data, params.synthetic.grids.get("figure3")
    noise = grid.noise[0] if grid else data.noise[0]
    keys = [data_key(setting, noise) for setting in data.settings]
    points = figures_data.settings_points(sets, keys)
    report.add(
        Section(
            name="figure1",
            title="Figure 1: the data",
            svg=figures_data.settings_figure(points),
            alt=f"Scatter plots of y against x for the first function in the settings {', '.join(keys)}, over four gray bands of y.",
            caption=f"Training samples of the first function (repetition 0, uniform sampling), {figures_data.POINTS} of them at most. The "
            "gray bands group the targets into 4 classes, as an example. Out of distribution (ood), training, validation and test samples "
            "come from different ranges of x, which overlap a little.",
        ),
        numbers=points,
    )
    samplings: list[Sampling] = list(data.samplings)
    counts = figures_data.samplings_counts(sets, keys[0], samplings)
    report.add(
        Section(
            name="figure2",
            title="Figure 2: the samplings",
            svg=figures_data.samplings_figure(sets, keys[0], counts),
            alt=f"Above: samples of the first function under {', '.join(samplings)} sampling. Below: log-counts of y, ever more peaked.",
            caption=f"Training samples of the first function ({keys[0]}, repetition 0) under each sampling. Above: darker is denser in y. "
            f"Below: how many training samples fall into each of {figures_data.BINS} bins of y, on a log scale. Validation and test sets "
            "are sampled uniformly. The CSV has the counts; the samples themselves are those of data/synthetic/prepared.",
        ),
        numbers=counts,
    )


def _n_text(collected: Collected) -> str:
    wanted, functions = collected.wanted, collected.networks["function"].nunique()
    repetitions = wanted["repetition"].nunique()
    return f"{functions} functions × {repetitions} repetition{'s' if repetitions > 1 else ''}"


def _alt(what: str, *, row: str) -> str:
    return f"{what}. A row of panels is {row}, a column a sampling. The table below has the numbers."


def _add_figure3(report: _Report, collected: Collected, warning: str) -> Table:
    cells = stats.cells(collected.networks, collected.wanted, "test_mse")
    gaps = stats.gaps(collected.networks, "test_mse")
    panels = study.panels_table(collected, warning=warning)
    report.add_table(panels)
    caption = (
        f"Test MSE by number of classes, on uniformly sampled test sets. Lines: means over {_n_text(collected)}; shading: standard "
        "deviation over all of these networks, as in the paper (the standard error by repetition stands in the table). A reg network is "
        "trained once, whatever the number of classes, so reg is a level. Dotted: the authors' released values. Gap: mean of "
        "MSE(reg) − MSE(reg+cls); above 0 the class loss helps."
    )
    numbers = f"Figure 3 as numbers: test MSE, mean over {_n_text(collected)}."
    table = study.methods_table(collected, name="summary", caption=numbers, beside_released=True, warning=warning)
    svg = figures.mse_by_classes(
        cells, gaps=gaps, published=published.released(), released="released, not comparable" if warning else "released"
    )
    alt = _alt("Test MSE against the number of classes, for reg, reg+cls and reg+cls-bal", row="a setting")
    holes = hole_lines(collected.wanted)
    title = "Figure 3: MSE by number of classes"
    section = Section(name="figure3", title=title, svg=svg, alt=alt, caption=caption, table=table, warning=warning, holes=holes)
    report.add(section, numbers=figures.points(cells, "test_mse", repeat_reg=True))
    networks = in_order(collected.networks).rename(columns={"lam": "lambda"})
    report.files["figure3_networks.csv"] = to_csv(networks[NETWORK_COLUMNS])
    return panels


def _add_figure4_and_table1(report: _Report, collected: Collected, warning: str) -> Table:
    cells, holes = stats.cells(collected.networks, collected.wanted, "val_mse"), hole_lines(collected.wanted)
    others = collected.wanted[collected.wanted["method"] != "reg"]
    extent = f"{others['classes'].nunique()} class counts and {others['lam'].nunique()} values of λ"
    caption = (
        f"Validation MSE by λ, a line for each number of classes; means over {_n_text(collected)}, shading: standard deviation over "
        "repetitions (of the means over functions). reg has no λ."
    )
    table = study.lambda_table(collected, caption=f"Figure 4 as numbers: validation MSE, mean over {_n_text(collected)}.")
    alt = _alt("Validation MSE against λ, a line for each number of classes and a level for reg", row="a setting and kind of classes")
    svg = figures.mse_by_lambda(cells)
    section = Section(name="figure4", title="Figure 4: the weight λ", svg=svg, alt=alt, caption=caption, table=table, holes=holes)
    tests = stats.against_reg(collected.networks, "val_mse").rename(columns={"n": "pairs"})
    report.add(section, numbers=figures.points(cells.merge(tests, on=CELL, how="left"), "val_mse", repeat_reg=False))
    what = f"Share (%) of networks with MSE(reg+cls) < MSE(reg) on validation sets, over {extent}, {_n_text(collected)}."
    wins = shares.win_table(collected, caption=what, warning=warning)
    title = "Table 1: how often a class loss helps, whatever λ"
    report.add(Section(name="table1", title=title, caption=what, table=wins, holes=holes))
    return wins


def _add_figure5(report: _Report, collected: Collected) -> None:
    cells = stats.cells(collected.networks, collected.wanted, "test_mse")
    caption = (
        f"Test MSE by number of classes under growing noise on the targets (σ); means over {_n_text(collected)}, shading: standard "
        "deviation over all of these networks. For reg+cls-bal the axis gives the number of classes before equalisation; about half remain."
    )
    numbers = f"Figure 5 as numbers: test MSE, mean over {_n_text(collected)}."
    table = study.methods_table(collected, name="figure5", caption=numbers, beside_released=False)
    gaps = stats.gaps(collected.networks, "test_mse")
    alt = _alt("Test MSE against the number of classes, for reg, reg+cls and reg+cls-bal", row="a noise level")
    svg, holes = figures.mse_by_classes(cells, gaps=gaps), hole_lines(collected.wanted)
    report.add(Section(name="figure5", title="Figure 5: noisy targets", svg=svg, alt=alt, caption=caption, table=table, holes=holes))


def _metrics(collected: Collected, panels: Table | None, wins: Table | None) -> dict[str, Any]:
    """Few, for the columns of `dvc exp show`: the gap MSE(reg) − MSE(reg+cls) of each panel, Table 1's averages, runs; a hole is null."""
    tree: dict[str, Any] = {}
    if panels is not None:
        frame = panels.frame[panels.frame["method"] == "reg+cls"]
        for row in records(frame):
            tree.setdefault("gap", {}).setdefault(_setting_key(row, frame), {})[row["sampling"]] = _rounded(row["gap"])
    if wins is not None:
        frame = wins.frame
        for column in shares.columns(frame):
            key = _setting_key({"setting": column[1], "noise": column[2]}, frame)
            tree.setdefault("table1", {}).setdefault(shares.KINDS[column[0]], {})[key] = _rounded(shares.averages(frame, column)[0])
    finished = int((collected.wanted["state"] == "finished").sum())
    return tree | {"runs": {"wanted": len(collected.wanted), "finished": finished, "missing": len(collected.wanted) - finished}}


def _setting_key(row: Mapping[str, Any], frame: pd.DataFrame) -> str:
    """`noisy`, or `noisy-0.05` where there are several noise levels."""
    levels = frame.loc[frame["setting"] == row["setting"], "noise"].nunique()
    return str(row["setting"]) if levels == 1 else data_key(row["setting"], row["noise"])


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.6g}")
