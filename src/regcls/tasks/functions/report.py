"""The report on the 1D study: Figures 1 to 5 and Table 1, and whether a class loss helps, by panel."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from regcls.methods import is_balanced
from regcls.reports import page, protocol
from regcls.reports.picking import records, warnings_of
from regcls.reports.report import Compared, Line, Report, Section, rounded, to_csv
from regcls.reports.stats import paired
from regcls.reports.tables import Table, signed
from regcls.tasks.functions import compared, figures, figures_data, published, shares, tables
from regcls.tasks.functions.collected import CELL, PANEL, Collected, collected, hole_lines, in_order
from regcls.tasks.functions.figures_data import FunctionSets
from regcls.tasks.functions.params import FunctionGrid, Functions, Sampling
from regcls.tasks.functions.runs import FunctionSpec, data_key, expand
from regcls.tasks.functions.shares import KINDS
from regcls.tasks.task import Sources
from regcls.tracking.views import View
from regcls.words import counted

# figure3_networks.csv: one row a network.
NETWORK_COLUMNS = [
    *("setting", "sampling", "noise", "method", "classes", "lambda", "function", "repetition", "seed"),
    *("test_mse", "val_mse", "train_mse", "run_id"),
]


def report(sources: Sources, *, fingerprints: Mapping[FunctionSpec, str]) -> Report:
    """See `Task.report`; `fingerprints`: of every wanted run."""
    functions: Functions = sources.section
    beside, training = functions.published is not None, functions.training
    found, picked = collected(sources.runs, fingerprints, dataset=sources.dataset, functions=len(functions.data.functions))
    grids = {name: found.of(expand(functions, sources.dataset, grid)) for name, grid in functions.grids.items()}
    changed = list(dict.fromkeys(line for grid in functions.grids.values() for line in departures(functions, grid)))
    made = Report(
        dataset=sources.dataset,
        title=functions.title,
        wanted=len(found.wanted),
        finished=int((found.wanted["state"] == "finished").sum()),
        intro="Small networks are trained on 1D functions with a regression loss alone (reg), with a classification loss beside it "
        "(reg+cls), and with balanced classes (reg+cls-bal). Every number below comes from tracked MLflow runs and leads back to them"
        f"{', and the published values stand beside ours' * beside}.",
        extent=[
            f"Each trains {counted(len(functions.data.functions), 'network')} for {training.epochs} epochs.",
            *protocol.beside(
                functions.published,
                reduced=[*protocol.reductions(functions.grids, published.GRIDS), *_other_seeds(functions)],
                changed=changed,
                without=protocol.unshown(functions.grids, list(published.GRIDS)),
            ),
        ],
        view=View(
            tag=("dataset", sources.dataset),
            params=("setting", "noise", "sampling", "method", "classes", "lambda", "repetition"),
            metrics=("test/mse/all", "val/mse/all", "train/mse/all"),
            axes=("setting", "sampling", "method", "classes"),
        ),
        networks=_networks(functions, figure3="figure3" in grids),
    )
    made.warnings += warnings_of({name: grid.wanted for name, grid in grids.items()}, duplicates=picked.duplicates, stale=picked.stale)
    _add_data_figures(made, functions, sources.data, sources.dataset)
    if "figure3" in grids:
        made.lead = _add_figure3(made, grids["figure3"], beside, not_comparable(functions, "figure3"))
    wins = _add_figure4_and_table1(made, grids["figure4"], beside, not_comparable(functions, "figure4")) if "figure4" in grids else None
    if "figure5" in grids:
        _add_figure5(made, grids["figure5"])
    made.answers += answers(made.lead) if made.lead else []
    made.line = first_line(grids["figure3"].networks) if "figure3" in grids else None
    made.metrics |= _metrics(made.lead, wins)
    return page.complete(made, found.runs, picked, links=sources.tracker, provenance=sources.provenance)


def _other_seeds(functions: Functions) -> list[str]:
    ours = {"data_seeds": functions.data.data_seeds, "seeds": functions.training.seeds}
    changed = [name for name, seeds in published.SEEDS.items() if any(a != b for a, b in zip(ours[name], seeds, strict=False))]
    return [f"other {' and '.join(changed)}"] * bool(changed)


def departures(functions: Functions, grid: FunctionGrid) -> list[str]:
    """The data and training values of a grid that are not the paper's: `epochs 2 instead of 80`."""
    used = (*grid.settings, *grid.samplings)
    say: dict[str, protocol.Say] = {
        "functions": lambda here, there: ["other functions"],
        "lam": protocol.by_key("λ", grid.settings),
        "learning_rate": protocol.by_key("learning rate", used),
        "peak_width": protocol.by_key("peak width", used),
    }
    needed = {"lam": grid.lambdas == "default", "rounding": any(map(is_balanced, grid.methods))}
    unused = [name for name, is_needed in needed.items() if not is_needed]
    return protocol.departures(asdict(functions.data) | asdict(functions.training), published.VALUES, unused=unused, say=say)


def not_comparable(functions: Functions, name: str) -> str:
    """Why the released values of Figure 3, or the printed ones of Table 1 (grid figure4), are not of what was trained; empty if they are.

    Released values are matched by class count, so fewer of them do no harm to Figure 3; a share is over all class counts and λ.
    """
    if functions.published is None:
        return ""
    grid, paper = functions.grids[name], published.GRIDS[name]
    why, axes = departures(functions, grid), protocol.by_axis(grid, paper)
    if name == "figure4" or not set(grid.classes) <= set(paper.classes):
        why += [axes["classes"]] if "classes" in axes else []
    why += [axes["lambdas"]] if "lambdas" in axes else []
    return f"Not comparable with the {'printed' if name == 'figure4' else 'released'} values: {', '.join(why)}." if why else ""


def _networks(functions: Functions, *, figure3: bool) -> str:
    training = functions.training
    rates, weights = training.learning_rate, training.lam
    return (
        f"Networks: {' and '.join(map(str, training.hidden))} hidden units, {training.optimizer}, weight decay {training.weight_decay}, "
        f"batches of {training.batch_size}, {training.epochs} epochs, {training.precision}. Learning rate {rates.clean} (clean), "
        f"{rates.noisy} (noisy), {rates.ood} (ood); λ {weights.clean:g}, {weights.noisy:g}, {weights.ood:g}."
        f"{' figure3_networks.csv has one row a network.' * figure3}"
    )


def answers(panels: Table) -> list[str]:
    """Does a classification loss help? A sentence a method, by the tests of `tables.panels_table`."""
    lines = []
    for method, rows in panels.frame.groupby("method", sort=False):
        given = rows[rows["n"] > 0]
        verdicts = given["answer"].value_counts()
        lower, tested = int((given["gap"] > 0).sum()), int(given["p_holm"].notna().sum())
        line = f"{method} has the lower mean test MSE in {lower} of {len(given)} panels"
        if tested:
            helps, hurts = verdicts.get("helps", 0), verdicts.get("hurts", 0)
            line += f"; after correction for {tested} tests it clearly helps in {helps} and clearly hurts in {hurts}."
        else:
            line += "; one repetition allows no test, so this is no evidence yet."
        uniform = given["sampling"] == "uniform"
        ranges = [
            f"{_range(part)} under {kind} sampling"
            for kind, part in (("uniform", given[uniform]), ("imbalanced", given[~uniform]))
            if len(part)
        ]
        lines.append(
            f"{line} Δ = MSE(reg) − MSE({method}) is {' and '.join(ranges)}." if ranges else f"{method}: no panel has runs to compare."
        )
    few = panels.frame["n"].max()
    if 2 <= few < 4:
        lines.append(f"With {few} repetitions a paired test can find hardly anything: read the gaps, not the p-values.")
    return lines


def first_line(networks: pd.DataFrame) -> Line | None:
    """reg against reg+cls (or reg+cls-bal, where only that is trained), the mean over class counts and over all imbalanced panels.

    Tested over the repetitions that have all of these panels, for both. Of the uniform panels where no other is trained.
    """
    means = compared.by_repetition(networks, "test_mse")
    imbalanced = means[means["sampling"] != "uniform"]
    kind, chosen = ("imbalanced", imbalanced) if len(imbalanced) else ("uniform", means)
    by_method = {name: part.pivot_table(index="repetition", columns=PANEL, values="test_mse") for name, part in chosen.groupby("method")}
    for method in KINDS:
        if not {"reg", method} <= set(by_method):
            continue
        panels = by_method["reg"].columns.intersection(by_method[method].columns)
        sides = pd.concat({name: by_method[name][panels] for name in ("reg", method)}, axis=1).dropna()
        if sides.empty:
            continue
        reg, other = (sides[name].to_numpy().mean(axis=1) for name in ("reg", method))
        test = paired(reg.tolist(), other.tolist())
        answer = tables.answer({"p_holm": test.p, "gap": test.gap, "n": test.n})
        counts = networks.loc[networks["method"] == method, "classes"].nunique()
        return Line(
            measured="MSE",
            method=f"{method}, {counts} class counts" if counts > 1 else f"{method} · {networks['classes'].max()}",
            overall=Compared(reg=float(reg.mean()), other=float(other.mean()), gap=test.gap, low=test.low, high=test.high, answer=answer),
            n=f"{counted(test.n, 'repetition')}, over {len(panels)} {kind} panels; interval over repetitions",
            digits=3,
        )
    return None


def _range(rows: pd.DataFrame) -> str:
    return f"{signed(rows['gap'].min(), 3)} to {signed(rows['gap'].max(), 3)}"


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
            f"are sampled uniformly. The CSV has the counts; the samples themselves are those of data/{dataset}/prepared.",
        ),
        numbers=counts,
    )


def _n_text(collected: Collected) -> str:
    wanted, functions = collected.wanted, collected.networks["function"].nunique()
    repetitions = wanted["repetition"].nunique()
    return f"{counted(functions, 'function')} × {counted(repetitions, 'repetition')}"


def _alt(what: str, *, row: str) -> str:
    return f"{what}. A row of panels is {row}, a column a sampling. The table below has the numbers."


def _add_figure3(report: Report, collected: Collected, beside: bool, warning: str) -> Table:
    cells = compared.cells(collected.networks, collected.wanted, "test_mse")
    gaps = compared.gaps(collected.networks, "test_mse")
    panels = tables.panels_table(collected, beside_released=beside, warning=warning)
    report.add_table(panels)
    caption = (
        f"Test MSE by number of classes, on uniformly sampled test sets. Lines: means over {_n_text(collected)}; shading: standard "
        f"deviation over all of these networks{', as in the paper' * beside} (the standard error by repetition stands in the table). A "
        "network without classes is trained once, so reg is a level. "
        f"{'Dotted: the released values. ' * beside}Gap: mean of MSE(reg) − MSE(reg+cls); above 0 the class loss helps."
    )
    numbers = f"Figure 3 as numbers: test MSE, mean over {_n_text(collected)}."
    table = tables.methods_table(collected, name="summary", caption=numbers, beside_released=beside, warning=warning)
    svg = figures.mse_by_classes(
        cells, gaps=gaps, published=published.released() if beside else None, released="released, not comparable" if warning else "released"
    )
    alt = _alt("Test MSE against the number of classes, a line for each method", row="a setting")
    holes = hole_lines(collected.runs)
    title = "Figure 3: MSE by number of classes"
    section = Section(name="figure3", title=title, svg=svg, alt=alt, caption=caption, table=table, warning=warning, holes=holes)
    report.add(section, numbers=figures.points(cells, "test_mse", repeat_reg=True))
    networks = in_order(collected.networks).rename(columns={"lam": "lambda"})
    report.files["figure3_networks.csv"] = to_csv(networks[NETWORK_COLUMNS])
    return panels


def _add_figure4_and_table1(report: Report, collected: Collected, beside: bool, warning: str) -> Table:
    cells, holes = compared.cells(collected.networks, collected.wanted, "val_mse"), hole_lines(collected.runs)
    others = collected.wanted[collected.wanted["classes"] > 0]
    extent = f"{counted(others['classes'].nunique(), 'class count')} and {counted(others['lam'].nunique(), 'value')} of λ"
    caption = (
        f"Validation MSE by λ, a line for each number of classes; means over {_n_text(collected)}, shading: standard deviation over "
        "repetitions (of the means over functions). reg has no λ."
    )
    table = tables.lambda_table(collected, caption=f"Figure 4 as numbers: validation MSE, mean over {_n_text(collected)}.")
    alt = _alt("Validation MSE against λ, a line for each number of classes and a level for reg", row="a setting and kind of classes")
    svg = figures.mse_by_lambda(cells)
    section = Section(name="figure4", title="Figure 4: the weight λ", svg=svg, alt=alt, caption=caption, table=table, holes=holes)
    tests = compared.against_reg(collected.networks, "val_mse").rename(columns={"n": "pairs"})
    report.add(section, numbers=figures.points(cells.merge(tests, on=CELL, how="left"), "val_mse", repeat_reg=False))
    what = f"Share (%) of networks with MSE(method) < MSE(reg) on validation sets, over {extent}, {_n_text(collected)}."
    wins = shares.win_table(collected, caption=what, beside_published=beside, warning=warning)
    title = "Table 1: how often a class loss helps, whatever λ"
    report.add(Section(name="table1", title=title, caption=what, table=wins, holes=holes))
    return wins


def _add_figure5(report: Report, collected: Collected) -> None:
    cells = compared.cells(collected.networks, collected.wanted, "test_mse")
    caption = (
        f"Test MSE by number of classes under growing noise on the targets (σ); means over {_n_text(collected)}, shading: standard "
        "deviation over all of these networks. For reg+cls-bal the axis gives the number of classes before equalisation; about half remain."
    )
    numbers = f"Figure 5 as numbers: test MSE, mean over {_n_text(collected)}."
    table = tables.methods_table(collected, name="figure5", caption=numbers, beside_released=False)
    gaps = compared.gaps(collected.networks, "test_mse")
    alt = _alt("Test MSE against the number of classes, a line for each method", row="a noise level")
    svg, holes = figures.mse_by_classes(cells, gaps=gaps), hole_lines(collected.runs)
    report.add(Section(name="figure5", title="Figure 5: noisy targets", svg=svg, alt=alt, caption=caption, table=table, holes=holes))


def _metrics(panels: Table | None, wins: Table | None) -> dict[str, Any]:
    """Few, for the columns of `dvc exp show`: the gap MSE(reg) − MSE(reg+cls) of each panel, Table 1's averages; a hole is null."""
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
    """`noisy`, or `noisy-0.05` where there are several noise levels."""
    levels = frame.loc[frame["setting"] == row["setting"], "noise"].nunique()
    return str(row["setting"]) if levels == 1 else data_key(row["setting"], row["noise"])
