"""The report on the 1D study: Figures 1 to 5, Table 1, and whether a class loss helps in each panel."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from regcls.methods import is_balanced
from regcls.reports import page, protocol
from regcls.reports.measured import unusable_lines
from regcls.reports.picking import Row, records, warnings_of
from regcls.reports.ranking import ranked
from regcls.reports.report import Compared, Line, Report, Section, after_tests, rounded, to_csv
from regcls.reports.stats import FEWEST, NOT_TESTED, USELESS
from regcls.reports.tables import Table, number, signed
from regcls.tasks.functions import compared, extra, figures, figures_data, published, shares, tables, varied
from regcls.tasks.functions.collected import CELL, PANEL, VARIED, Collected, collected, data_name, hole_lines, in_order
from regcls.tasks.functions.figures_data import FunctionSets
from regcls.tasks.functions.networks import LIKELIHOODS
from regcls.tasks.functions.params import FunctionGrid, Functions, Sampling
from regcls.tasks.functions.runs import FunctionSpec, data_key, expand
from regcls.tasks.functions.shares import KINDS
from regcls.tasks.task import Sources
from regcls.tracking.views import View
from regcls.words import counted

# Columns of figure3_networks.csv, with one row per network.
NETWORK_COLUMNS = [
    *("setting", "sampling", "noise", "method", "classes", "lambda", "function", "repetition", "seed"),
    *("test_mse", "val_mse", "train_mse", "run_id"),
]


def report(sources: Sources, *, fingerprints: Mapping[FunctionSpec, str]) -> Report:
    """See `Task.report`; `fingerprints`: of every requested run."""
    functions: Functions = sources.section
    with_published, training = functions.published is not None, functions.training
    networks, picked = collected(sources.runs, fingerprints, dataset=sources.dataset, sets=sources.data)
    grids = {name: networks.of(expand(functions, sources.dataset, grid)) for name, grid in functions.grids.items()}
    varies = any(grid.varies for grid in functions.grids.values())
    changed = list(dict.fromkeys(line for grid in functions.grids.values() for line in departures(functions, grid)))
    report = Report(
        dataset=sources.dataset,
        title=functions.title,
        wanted=len(networks.wanted),
        finished=int((networks.wanted["state"] == "finished").sum()),
        intro="Small networks are trained on 1D functions with a regression loss alone (reg), with an added classification loss "
        "(reg+cls) or with balanced classes (reg+cls-bal). Every number below comes from tracked MLflow runs and links to them"
        f"{', and the published values are shown next to ours' if with_published else ''}.",
        extent=[
            f"Each trains {counted(len(functions.data.functions), 'network')} for {training.epochs} epochs.",
            *protocol.paper_differences(
                functions.published,
                reduced=[*protocol.reductions(functions.grids, published.GRIDS), *_other_seeds(functions)],
                changed=changed,
                without=protocol.unshown(
                    functions.grids, [*published.GRIDS, *(name for name, grid in functions.grids.items() if grid.extra_loss or grid.varies)]
                ),
            ),
        ],
        view=View(
            tag=("dataset", sources.dataset),
            params=("setting", "noise", "sampling", "method", "classes", "lambda", "repetition", *(VARIED if varies else ())),
            metrics=("test/mse/all", "val/mse/all", "train/mse/all"),
            axes=("setting", "sampling", "method", "classes"),
        ),
        networks=_networks(functions, figure3="figure3" in grids, varies=varies),
    )
    report.warnings += warnings_of({name: grid.wanted for name, grid in grids.items()}, duplicates=picked.duplicates, stale=picked.stale)
    report.warnings += unusable_lines(picked.wanted, "errors by function", "metrics")
    _add_data_figures(report, functions, sources.data, sources.dataset)
    settings = None
    if "figure3" in grids:
        settings = tables.settings_table(grids["figure3"])
        if settings.rows:
            report.add(Section(name=settings.name, title="By setting", caption=settings.caption, table=settings))
        report.lead = _add_figure3(report, grids["figure3"], with_published, not_comparable(functions, "figure3"))
    wins = (
        _add_figure4_and_table1(report, grids["figure4"], with_published, not_comparable(functions, "figure4"))
        if "figure4" in grids
        else None
    )
    if "figure5" in grids:
        _add_figure5(report, grids["figure5"])
    report.warnings += _useless_lines(report.lead) if report.lead else []
    report.answers += answers(report.lead) if report.lead else []
    for name, grid in functions.grids.items():
        if grid.extra_loss:
            extra.add(report, name, grids[name], sources.table(LIKELIHOODS))
        if grid.varies:
            varied.add(report, name, grids[name])
    report.lines = lines(settings) if settings else []
    report.ranking = ranking(settings) if settings else []
    report.metrics |= _metrics(report.lead, wins)
    return page.complete(report, networks.runs, picked, links=sources.tracker, provenance=sources.provenance)


def _useless_lines(panels: Table) -> list[str]:
    """A warning on the panels where reg is no better than a constant."""
    useless = panels.frame[panels.frame["reg"] >= panels.frame["constant"]].drop_duplicates(PANEL)
    where = [
        f"{data_name(row['setting'], row['noise'])}, {row['sampling']} (test MSE {number(row['reg'], 3)} and {number(row['constant'], 3)})"
        for row in records(useless)
    ]
    return [f"figure3: {USELESS} in {'; '.join(where)}: so there is no verdict"] if where else []


def _other_seeds(functions: Functions) -> list[str]:
    ours = {"data_seeds": functions.data.data_seeds, "seeds": functions.training.seeds}
    changed = [name for name, seeds in published.SEEDS.items() if any(a != b for a, b in zip(ours[name], seeds, strict=False))]
    return [f"other {' and '.join(changed)}"] if changed else []


def departures(functions: Functions, grid: FunctionGrid) -> list[str]:
    """The data and training values of a grid that differ from the paper's: `epochs 2 instead of 80`."""
    used = (*grid.settings, *grid.samplings)
    say: dict[str, protocol.Say] = {
        "functions": lambda ours, papers: ["other functions"],
        "lam": protocol.by_key("λ", grid.settings),
        "learning_rate": protocol.by_key("learning rate", used),
        "peak_width": protocol.by_key("peak width", used),
    }
    needed = {"lam": grid.lambdas == "default", "rounding": any(map(is_balanced, grid.methods))}
    unused = [name for name, is_needed in needed.items() if not is_needed]
    return protocol.departures(asdict(functions.data) | asdict(functions.training), published.VALUES, unused=unused, say=say)


def not_comparable(functions: Functions, name: str) -> str:
    """Why the released values of Figure 3, or the printed ones of Table 1 (grid figure4), are not comparable with ours; "" if they are.

    Figure 3 may have fewer class counts, since released values are matched by class count; Table 1 is over all class counts and λ.
    """
    if functions.published is None:
        return ""
    grid, paper = functions.grids[name], published.GRIDS[name]
    why, axes = departures(functions, grid), protocol.by_axis(grid, paper)
    if name == "figure4" or not set(grid.classes) <= set(paper.classes):
        why += [axes["classes"]] if "classes" in axes else []
    why += [axes["lambdas"]] if "lambdas" in axes else []
    return f"Not comparable with the {'printed' if name == 'figure4' else 'released'} values: {', '.join(why)}." if why else ""


def _networks(functions: Functions, *, figure3: bool, varies: bool) -> str:
    training = functions.training
    rates, weights = training.learning_rate, training.lam
    return (
        f"Networks{', unless a grid varies it' if varies else ''}: {' and '.join(map(str, training.hidden))} hidden units, "
        f"{training.optimizer}, weight decay {training.weight_decay}, batches of {training.batch_size}, {training.epochs} epochs, "
        f"{training.precision}. Learning rate {rates.clean} (clean), {rates.noisy} (noisy), {rates.ood} (ood); "
        f"λ {weights.clean:g}, {weights.noisy:g}, {weights.ood:g}."
        f"{' figure3_networks.csv has one row per network.' if figure3 else ''}"
    )


def answers(panels: Table) -> list[str]:
    """Does a classification loss help? A line per method, from the tests of `tables.panels_table`."""
    lines = []
    for method, all_rows in panels.frame.groupby("method", sort=False):
        rows = all_rows[all_rows["n"] > 0]
        verdicts = rows["answer"].value_counts()
        lower, tested = int((rows["gap"] > 0).sum()), int(rows["p_holm"].notna().sum())
        line = f"{method} has the lower mean test MSE in {lower} of {len(rows)} panels"
        if tested:
            helps, hurts, useless = (verdicts.get(answer, 0) for answer in ("helps", "hurts", USELESS))
            line += f"; after correction for {tested} tests it clearly helps in {helps} and clearly hurts in {hurts}."
            line += f" In {useless}, {USELESS}, so there is no verdict." if useless else ""
        else:
            line += " (not tested)."
        uniform = rows["sampling"] == "uniform"
        ranges = [
            f"{_range(part)} under {kind} sampling"
            for kind, part in (("uniform", rows[uniform]), ("imbalanced", rows[~uniform]))
            if len(part)
        ]
        lines.append(
            f"{line} Δ = MSE(reg) − MSE({method}) is {' and '.join(ranges)}." if ranges else f"{method}: no panel has runs to compare."
        )
    repetitions = panels.frame["n"].max()
    if 0 < repetitions < FEWEST:
        lines.append(NOT_TESTED.format(of="repetitions"))
    elif repetitions == FEWEST:
        lines.append(f"With {FEWEST} repetitions only large differences become clear: read the gaps, not the p-values.")
    return lines


def lines(settings: Table) -> list[Line]:
    """Rows on the start page, one per setting: reg against reg+cls (or reg+cls-bal if only that is trained), from `settings_table`.

    A setting is represented by its imbalanced samplings or, if it has none, by uniform sampling.
    """
    frame = settings.frame
    tests = int(frame["p"].notna().sum())
    ranked = frame[frame["method"].isin(KINDS)].sort_values(["method", "kind"], kind="stable")  # reg+cls and imbalanced come first
    chosen = in_order(ranked.drop_duplicates(["setting", "noise"]))
    return [_line(row, tests=tests) for row in records(chosen)]


def ranking(settings: Table) -> list[Line]:
    """All methods against reg in each setting, from `settings_table`: means over class counts and samplings."""
    parts = [records(part) for _, part in settings.frame.groupby(["setting", "noise", "kind"], sort=False)]
    return [
        line
        for rows in parts
        for line in ranked([_line(row, tests=len(rows)) for row in rows], p=[row["p"] for row in rows], n=[row["n"] for row in rows])
    ]


def _line(row: Row, *, tests: int) -> Line:
    return Line(
        part=f"{data_name(row['setting'], row['noise'])}, {row['kind']}",
        measured="MSE",
        method=f"{row['method']} · {row['counts']}" if row["counts"] else row["method"],
        overall=Compared.of(row),
        n=f"{counted(row['n'], 'repetition')}, {counted(row['samplings'], row['kind'] + ' sampling')}{after_tests(tests)}",
        digits=3,
    )


def _range(rows: pd.DataFrame) -> str:
    low, high = signed(rows["gap"].min(), 3), signed(rows["gap"].max(), 3)
    return low if low == high else f"{low} to {high}"


def _add_data_figures(report: Report, functions: Functions, sets: FunctionSets, dataset: str) -> None:
    data, grid = functions.data, functions.grids.get("figure3")
    noise = grid.noise[0] if grid else data.noise[0]
    keys = [data_key(setting, noise) for setting in data.settings]
    points = figures_data.settings_points(sets, keys)
    report.add(
        Section(
            name="figure1",
            title="Figure 1: the data",
            svg=figures_data.settings_figure(points),
            alt=f"Scatter plots of y against x for the first function in the settings {', '.join(keys)}, over four gray bands of y.",
            caption=f"Training samples of the first function (repetition 0, uniform sampling), at most {figures_data.POINTS}. The gray "
            "bands group the targets into 4 classes, as an example. Out of distribution (ood), training, validation and test samples "
            "come from different ranges of x, which overlap slightly.",
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
            alt=f"Above: samples of the first function under {', '.join(samplings)} sampling. Below: log-counts of y, increasingly peaked.",
            caption=f"Training samples of the first function ({keys[0]}, repetition 0) under each sampling. Above: darker is denser in y. "
            f"Below: number of training samples in each of {figures_data.BINS} bins of y, on a log scale. Validation and test sets "
            f"are sampled uniformly. The CSV has the counts; the samples are in data/{dataset}/prepared.",
        ),
        numbers=counts,
    )


def _n_text(collected: Collected) -> str:
    wanted, functions = collected.wanted, collected.networks["function"].nunique()
    repetitions = wanted["repetition"].nunique()
    return f"{counted(functions, 'function')} × {counted(repetitions, 'repetition')}"


def _alt(what: str, *, row: str) -> str:
    return f"{what}. Each row of panels is {row}, each column a sampling. The table below has the numbers."


def _add_figure3(report: Report, collected: Collected, with_published: bool, warning: str) -> Table:
    cells = compared.cells(collected.networks, collected.wanted, "test_mse")
    gaps = compared.gaps(collected.networks, "test_mse")
    panels = tables.panels_table(collected, with_released=with_published, warning=warning)
    report.add_table(panels)
    caption = (
        f"Test MSE by number of classes, on uniformly sampled test sets. Lines: means over {_n_text(collected)}; shading: standard "
        f"deviation over all these networks{', as in the paper' if with_published else ''} (the table has the standard error over "
        "repetitions). A network without classes is trained once, so reg is a horizontal line. "
        f"{'Dotted: the released values. ' if with_published else ''}Gap: mean of MSE(reg) − MSE(reg+cls); above 0 the class loss helps."
    )
    numbers = f"Figure 3 as numbers: test MSE, mean over {_n_text(collected)}."
    table = tables.methods_table(collected, name="summary", caption=numbers, with_released=with_published, warning=warning)
    svg = figures.mse_by_classes(
        cells,
        gaps=gaps,
        published=published.released() if with_published else None,
        released="released, not comparable" if warning else "released",
    )
    alt = _alt("Test MSE against the number of classes, a line for each method", row="a setting")
    holes = hole_lines(collected.runs)
    title = "Figure 3: MSE by number of classes"
    section = Section(name="figure3", title=title, svg=svg, alt=alt, caption=caption, table=table, warning=warning, holes=holes)
    report.add(section, numbers=figures.points(cells, "test_mse", repeat_reg=True))
    networks = in_order(collected.networks).rename(columns={"lam": "lambda"})
    report.files["figure3_networks.csv"] = to_csv(networks[NETWORK_COLUMNS])
    return panels


def _add_figure4_and_table1(report: Report, collected: Collected, with_published: bool, warning: str) -> Table:
    cells, holes = compared.cells(collected.networks, collected.wanted, "val_mse"), hole_lines(collected.runs)
    others = collected.wanted[collected.wanted["classes"] > 0]
    extent = f"{counted(others['classes'].nunique(), 'class count')} and {counted(others['lam'].nunique(), 'value')} of λ"
    caption = (
        f"Validation MSE by λ, a line for each number of classes; means over {_n_text(collected)}, shading: standard deviation over "
        "repetitions (of the means over functions). A method with only one loss has no λ: its lines are horizontal."
    )
    table = tables.lambda_table(collected, caption=f"Figure 4 as numbers: validation MSE, mean over {_n_text(collected)}.")
    alt = _alt("Validation MSE against λ, a line for each number of classes and a level for reg", row="a setting and kind of classes")
    svg = figures.mse_by_lambda(cells)
    section = Section(name="figure4", title="Figure 4: the weight λ", svg=svg, alt=alt, caption=caption, table=table, holes=holes)
    tests = compared.against_reg(collected.networks, "val_mse").rename(columns={"n": "pairs"})
    report.add(section, numbers=figures.points(cells.merge(tests, on=CELL, how="left"), "val_mse", repeat_reg=False))
    wins_caption = f"Share (%) of networks with MSE(method) < MSE(reg) on validation sets, over {extent}, {_n_text(collected)}."
    wins = shares.win_table(collected, caption=wins_caption, with_published=with_published, warning=warning)
    title = "Table 1: how often a class loss helps, whatever λ"
    report.add(Section(name="table1", title=title, caption=wins_caption, table=wins, holes=holes))
    return wins


def _add_figure5(report: Report, collected: Collected) -> None:
    cells = compared.cells(collected.networks, collected.wanted, "test_mse")
    caption = (
        f"Test MSE by number of classes under growing noise on the targets (σ); means over {_n_text(collected)}, shading: standard "
        "deviation over all of these networks. For reg+cls-bal the axis gives the number of classes before equalisation; about half remain."
    )
    numbers = f"Figure 5 as numbers: test MSE, mean over {_n_text(collected)}."
    table = tables.methods_table(collected, name="figure5", caption=numbers, with_released=False)
    gaps = compared.gaps(collected.networks, "test_mse")
    alt = _alt("Test MSE against the number of classes, a line for each method", row="a noise level")
    svg, holes = figures.mse_by_classes(cells, gaps=gaps), hole_lines(collected.runs)
    report.add(Section(name="figure5", title="Figure 5: noisy targets", svg=svg, alt=alt, caption=caption, table=table, holes=holes))


def _metrics(panels: Table | None, wins: Table | None) -> dict[str, Any]:
    """Columns of `dvc exp show`: the gap MSE(reg) − MSE(reg+cls) of each panel, and the averages of Table 1; null if missing."""
    tree: dict[str, Any] = {}
    if panels is not None:
        frame = panels.frame[panels.frame["method"] == "reg+cls"]
        for row in records(frame):
            tree.setdefault("gap", {}).setdefault(_setting_key(row, frame), {})[row["sampling"]] = rounded(row["gap"])
    if wins is not None:
        frame = wins.frame
        for column in shares.columns(frame):
            key = _setting_key({"setting": column[1], "noise": column[2]}, frame)
            kind = shares.KINDS.get(column[0], column[0])
            tree.setdefault("table1", {}).setdefault(kind, {})[key] = rounded(shares.average(frame, column))
    return tree


def _setting_key(row: Mapping[str, Any], frame: pd.DataFrame) -> str:
    """`noisy`, or `noisy-0.05` if there are several noise levels."""
    levels = frame.loc[frame["setting"] == row["setting"], "noise"].nunique()
    return str(row["setting"]) if levels == 1 else data_key(row["setting"], row["noise"])
