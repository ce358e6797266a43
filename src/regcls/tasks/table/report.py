"""The report on a table: errors of each method with the C and λ that validation rows choose, differences to reg, and error by target."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from regcls.methods import has_classes, meanings
from regcls.relevance import RARE
from regcls.reports import page
from regcls.reports.drawing import bin_count, bins_of, error_by_target, histogram
from regcls.reports.measured import ROW, Runs, checked_tables, collect, finite, groups_of, means, row_name, rows_like, unusable_lines
from regcls.reports.picking import Row, records, warnings_of
from regcls.reports.report import Compared, Line, Report, Section, after_tests, rounded
from regcls.reports.shot_subject import SHORT
from regcls.reports.stats import LEVEL, USELESS, equivalence_note
from regcls.reports.tables import (
    DASH,
    Cell,
    Part,
    RunGroup,
    Table,
    answer_cell,
    digits_of,
    heads,
    interval,
    number,
    p_value,
    signed,
    with_std,
)
from regcls.tasks.table import compared, words
from regcls.tasks.table.compared import GROUPS, TESTED, WHOLE, Measured, at_edges, chosen_texts
from regcls.tasks.table.data import TableSet
from regcls.tasks.table.networks import PREDICTIONS
from regcls.tasks.table.params import HGB, Tables
from regcls.tasks.table.runs import TableSpec, expand
from regcls.tasks.task import Sources
from regcls.tracking.views import View
from regcls.words import counted

SHOWN = {"rmse": "RMSE", "mae": "MAE", "r2": "R²", "sera": "SERA"}
NAMES: Mapping[str, str] = dict(SHORT) | {"rare": "Rare"}


def report(sources: Sources, *, fingerprints: Mapping[TableSpec, str]) -> Report:
    """See `Task.report`; `fingerprints`: of every requested run."""
    section: Tables = sources.section
    table: TableSet = sources.data
    parts = compared.parts_of(table, section.shots)
    tables: dict[str, pd.DataFrame] = {}
    tracked = {f"test/rmse/{part}": f"test/rmse/{part}" for part in parts}

    def measure(chosen: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
        reasons = finite(chosen, [f"val/rmse/{part}" for part in parts])
        usable, errors, unusable = checked_tables(
            chosen,
            chosen.loc[~chosen["run_id"].isin(set(reasons)), "run_id"].tolist(),
            sources.table(PREDICTIONS),
            what="predictions",
            fault=lambda predictions: _fault(predictions, parts),
            errors=lambda predictions: _rmse(predictions, parts),
            checked=tracked,
        )
        tables.update(usable)
        values = chosen.set_index("run_id")
        return values.drop(columns=[name for name in values if str(name).startswith("test/")]).join(errors), reasons | unusable

    runs, picked = collect(sources.runs, fingerprints, measure, dataset=sources.dataset)
    specs = {name: expand(section, sources.dataset, name, most=table.most_classes) for name in section.grids}
    grids = {name: runs.of(wanted) for name, wanted in specs.items() if wanted}
    report = Report(
        dataset=sources.dataset,
        title=section.title,
        wanted=len(runs.wanted),
        finished=int((runs.wanted["state"] == "finished").sum()),
        intro=f"Small networks predict {section.data.target} from {counted(len(table.columns), 'column')} of a table with "
        f"{len(table.targets):,} rows. They are trained with a regression loss alone (reg), with an added classification loss (reg+cls), "
        f"and with balanced classes (reg+cls-bal). {_split_text(table)} Every number comes from tracked MLflow runs and links to them.",
        extent=[*meanings(dict.fromkeys(runs.wanted["method"])), *_fewer_classes(section, table)],
        networks=_networks(section),
        view=View(
            tag=("dataset", sources.dataset),
            params=("method", "classes", "lambda", "seed"),
            metrics=("test/rmse/all", "test/mae/all", "test/rmse/rare", "test/sera/all", "val/rmse/all"),
            axes=("method", "classes", "lambda"),
        ),
    )
    report.warnings += warnings_of({name: grid.wanted for name, grid in grids.items()}, duplicates=picked.duplicates, stale=picked.stale)
    report.warnings += unusable_lines(picked.wanted, "predictions", PREDICTIONS)
    for place, (name, grid) in enumerate(grids.items()):
        measured = _measured(grid, tables, parts)
        if not measured.runs.empty:
            _add_grid(report, section, name, grid, measured)
            if place == 0:
                _add_by_target(report, section, table, measured)
    return page.complete(report, runs, picked, links=sources.tracker, provenance=sources.provenance)


def _fault(predictions: pd.DataFrame, parts: Mapping[str, compared.Part]) -> str:
    """Why predictions cannot be used; "" if they have every test row of every part once, in order, with a finite value."""
    if not all(name in predictions for name in ("part", "row", "prediction")) or not is_numeric_dtype(predictions["prediction"]):
        return "with damaged predictions"
    by_part = dict(iter(predictions.groupby("part", observed=True)["row"]))
    if set(by_part) != set(parts) or any(not np.array_equal(rows, parts[str(name)].rows) for name, rows in by_part.items()):
        return "with predictions of other rows"
    return "" if np.isfinite(predictions["prediction"].to_numpy(dtype=float)).all() else "without a finite error"


def _rmse(predictions: pd.DataFrame, parts: Mapping[str, compared.Part]) -> dict[str, float]:
    """The test RMSE of each part, as the run has tracked it."""
    squares = {
        str(name): (values.to_numpy(dtype=float) - parts[str(name)].targets) ** 2
        for name, values in predictions.groupby("part", observed=True)["prediction"]
    }
    return {f"test/rmse/{name}": float(np.mean(values)) ** 0.5 for name, values in squares.items()}


def _errors(predictions: pd.DataFrame, parts: Mapping[str, compared.Part]) -> dict[str, dict[str, float]]:
    by_part = predictions.groupby("part", observed=True)["prediction"]
    return {str(name): parts[str(name)].errors(values.to_numpy(dtype=float)) for name, values in by_part}


def _measured(grid: Runs, tables: Mapping[str, pd.DataFrame], parts: Mapping[str, compared.Part]) -> Measured:
    finished = grid.in_order(grid.wanted[grid.wanted["state"] == "finished"])
    run_ids = finished["run_id"].tolist()
    errors = {(run_id, part): values for run_id in run_ids for part, values in _errors(tables[run_id], parts).items()}
    predictions = {
        (run_id, str(part)): values.to_numpy(dtype=float)
        for run_id in run_ids
        for part, values in tables[run_id].groupby("part", observed=True)["prediction"]
    }
    validation = grid.values.loc[run_ids, [f"val/rmse/{part}" for part in parts]].astype(float)
    return Measured(
        parts=parts,
        runs=finished[["run_id", *ROW, "seed"]],
        validation=validation.rename(columns=lambda name: name.removeprefix("val/rmse/")),
        errors=errors,
        predictions=predictions,
    )


def _split_text(table: TableSet) -> str:
    if len(table.parts) == 1:
        sizes = (f"{len(table.rows(table.parts[0], split)):,}" for split in ("train", "val", "test"))
        return "Rows for training, validation and testing: {}, {} and {}.".format(*sizes)
    return f"Each run trains {len(table.parts)} networks, each tested on a fold of the rows and validated on the next."


def _fewer_classes(section: Tables, table: TableSet) -> list[str]:
    counts = {classes for grid in section.grids.values() if any(map(has_classes, grid.methods)) for classes in grid.classes}
    too_many = sorted(classes for classes in counts if classes > table.most_classes)
    if not too_many:
        return []
    return [f"{table.most_classes} instead of {', '.join(map(str, too_many))} classes: there are no more distinct targets in training."]


def _networks(section: Tables) -> str:
    training = section.training
    steps = f", × {training.decay} after epochs {', '.join(map(str, training.milestones))}" if training.milestones else ""
    return (
        f"Networks: {' and '.join(map(str, training.hidden))} hidden units, {training.optimizer}, {training.epochs} epochs, learning rate "
        f"{training.learning_rate}{steps}, batches of {training.batch_size}, weight decay {training.weight_decay}, {training.precision}; "
        "squared error of standardised targets, to which λ belongs. Errors are in the target's unit. The weights kept are those after the "
        f"last epoch. {HGB}: HistGradientBoostingRegressor of scikit-learn, with its defaults."
    )


def _add_grid(report: Report, section: Tables, name: str, grid: Runs, measured: Measured) -> None:
    differences = measured.differences(negligible=section.negligible)
    title = "Errors" if name == "main" else f"{name}: errors"
    errors = errors_table(section, measured, name=name)
    more = [groups_table(section, measured, name=f"{name}_groups"), cells_table(section, grid, measured, name=f"{name}_cells")]
    report.add(Section(name=name, title=title, caption=errors.caption, table=errors, more=more, holes=grid.hole_lines(row_name)))
    report.warnings += [f"{name}: {line}" for line in at_edges(measured.choices, measured.runs)]
    if differences.empty:
        return
    changes = differences_table(section, measured, differences, name=f"{name}_differences")
    report.add(
        Section(name=changes.name, title=f"{title.removesuffix('rrors')}rrors: differences to reg", caption=changes.caption, table=changes)
    )
    if (differences["answer"] == USELESS).any():
        report.warnings.append(f"{name}: {USELESS}, so there is no verdict. {words.references(measured, unit=section.data.unit)}")
    if report.answers:
        return
    report.answers += words.answers(measured, differences, unit=section.data.unit, negligible=section.negligible)
    report.use = words.use(measured, differences)
    report.lines = _lines(section, measured, differences)
    report.ranking = _ranking(section, measured, differences)
    report.metrics |= _metrics(measured, differences)


def _in_unit(section: Tables, name: str) -> str:
    return SHOWN[name] + (f" ({section.data.unit})" if section.data.unit and name in TESTED else "")


def _groups_of(choices: pd.DataFrame, method: str) -> tuple[RunGroup, ...]:
    """The chosen runs of a method, by cell."""
    groups: dict[str, dict[tuple[str, str], None]] = {}
    for row in records(choices[choices["method"] == method]):
        groups.setdefault(row_name(row), {}).update({(str(seed), run_id): None for seed, run_id in row["by_seed"].items()})
    return tuple(RunGroup(label=label, runs=tuple(runs)) for label, runs in groups.items())


def _method_rows(measured: Measured, columns: Sequence[str]) -> tuple[list[tuple[Cell, ...]], pd.DataFrame, tuple[Part, ...]]:
    """Rows of means ± std over parts of the error `columns`: methods, with their choice and runs, then references."""
    choices = measured.choices
    errors = measured.by_part.reindex(columns=list(columns))
    by_method = {str(method): errors.loc[method] for method in dict.fromkeys(choices["method"])}
    networks = {method: part for method, part in by_method.items() if method != HGB}
    references = {HGB: by_method[HGB]} if HGB in by_method else {}
    references |= {name: frame.reindex(columns=list(columns)) for name, frame in compared.constants(measured.parts).items()}
    shown = {
        column: digits_of(max((value for frame in networks.values() if (value := float(frame[column].mean())) > 0), default=0.0))
        for column in columns
    }
    best = {}
    for column in columns:
        means = [frame[column].mean() for frame in networks.values()]
        winner = max(means) if column.startswith("r2/") else min(means)
        best[column] = number(winner, shown[column]) if len(means) > 1 else ""
    rows, numbers = [], []
    for method, frame in (networks | references).items():
        classes, lam = chosen_texts(choices, method) if method in by_method else ("", "")
        cells = []
        for column in columns:
            mean, std = float(frame[column].mean()), float(frame[column].std(ddof=1))
            strong = method in networks and number(mean, shown[column]) == best[column] != DASH
            cells.append(Cell(text=with_std(mean, std, shown[column]), strong=strong))
        groups = _groups_of(choices, method) if method in by_method else ()
        rows.append((*heads({"method": method, "classes": classes, "weight": lam}), *cells, Cell(text="", runs=groups)))
        means_and_stds = {column: value for c in columns for column, value in ((c, frame[c].mean()), (f"{c}_std", frame[c].std(ddof=1)))}
        numbers.append({"method": method, "classes": classes, "lambda": lam} | means_and_stds)
    frame = pd.DataFrame(numbers).rename(columns=lambda name: str(name).replace("/", "_"))
    return rows, frame, (Part(place=0, title="Networks"), Part(place=len(networks), title="For comparison", ours=False))


def _spread(measured: Measured) -> str:
    seeds = measured.runs.groupby(ROW)["seed"].nunique().max()
    if len(measured.parts) == 1:
        return f"Mean over {counted(seeds, 'seed')}."
    return f"Mean ± standard deviation over {len(measured.parts)} folds, each averaged over {counted(seeds, 'seed')} first."


CHOICE = "Classes and λ: those with the lowest validation RMSE, chosen in each fold; in brackets, in how many folds. Bold: the best mean."


def errors_table(section: Tables, measured: Measured, *, name: str) -> Table:
    """Errors over all test rows: a row per method, then trees and constants."""
    columns = [f"{error}/all" for error in WHOLE]
    rows, frame, parts = _method_rows(measured, columns)
    return Table(
        name=name,
        caption=f"Test errors of {section.data.target}, over all test rows.",
        columns=("method", "classes", "λ", *(_in_unit(section, error) for error in WHOLE), "runs"),
        rows=tuple(rows),
        frame=frame,
        notes=(
            _spread(measured),
            CHOICE,
            "SERA: squared errors weighed by the relevance of extreme targets (Ribeiro and Moniz 2020). R²: 1 − squared error / spread.",
        ),
        run_column=True,
        parts=parts,
    )


def groups_table(section: Tables, measured: Measured, *, name: str) -> Table:
    """RMSE and MAE by group of test rows."""
    columns = [f"{error}/{group}" for error in TESTED for group in GROUPS]
    rows, frame, parts = _method_rows(measured, columns)
    sizes = {group: sum(int(part.chosen(group).sum()) for part in measured.parts.values()) for group in GROUPS}
    shots = section.shots
    return Table(
        name=name,
        caption=f"{' and '.join(_in_unit(section, error) for error in TESTED)} by group of test rows.",
        columns=("method", "classes", "λ", *(NAMES[group] for _ in TESTED for group in GROUPS), "runs"),
        spans=(("", 3), *((SHOWN[error], len(GROUPS)) for error in TESTED), ("", 1)),
        under=("", "", "", *(f"{sizes[group]:,} rows" for _ in TESTED for group in GROUPS), ""),
        rows=tuple(rows),
        frame=frame,
        notes=(
            _spread(measured),
            CHOICE,
            f"Many: {shots.bins} equal bins of {section.data.target} with more than {shots.many_above:g} × the mean number of training "
            f"rows of a bin; Few: with fewer than {shots.few_below:g} × it; Med.: between. Rare: relevance above {RARE:g}, as in published "
            "work on imbalanced regression (Ribeiro 2011); if the targets have no outliers by Tukey's boxplot, no row is rare.",
        ),
        run_column=True,
        parts=parts,
    )


def cells_table(section: Tables, grid: Runs, measured: Measured, *, name: str) -> Table:
    """Validation and test RMSE of every combination of method, C and λ, and in how many parts it is chosen."""
    chosen = measured.choices.groupby(ROW).size()
    errors = pd.DataFrame(
        {
            run_id: {
                "val/rmse": float(measured.validation.loc[run_id].mean()),
                "test/rmse": float(np.mean([measured.errors[run_id, part]["rmse/all"] for part in measured.parts])),
            }
            for run_id in measured.runs["run_id"]
        }
    ).T
    runs = Runs(wanted=grid.wanted, values=errors, axes=grid.axes, order=grid.order)
    frame = means(runs, {column: [column] for column in ("val/rmse", "test/rmse")})
    frame["chosen"] = [int(chosen.get(tuple(row[key] for key in ROW), 0)) for row in records(frame)]
    rows = []
    for row in records(frame):
        digits = digits_of(row["val/rmse"])
        values = (with_std(row[column], row[f"{column}_std"], digits) for column in ("val/rmse", "test/rmse"))
        cells = [Cell(text=text) for text in (*values, str(row["chosen"]), str(row["seeds"]))]
        rows.append((*heads(row), *cells, Cell(text="", runs=groups_of(rows_like(grid.wanted, row, ROW), row_name))))
    unit = f" ({section.data.unit})" if section.data.unit else ""
    return Table(
        name=name,
        caption=f"Validation and test RMSE{unit} of every class count and λ.",
        columns=("method", "classes", "λ", "validation", "test", "chosen in", "n", "runs"),
        rows=tuple(rows),
        frame=frame.rename(columns={"weight": "lambda"}).rename(columns=lambda column: str(column).replace("/", "_")),
        notes=("Mean ± standard deviation over seeds, each averaged over folds first. n: seeds. Chosen in: number of folds.",),
        run_column=True,
    )


def differences_table(section: Tables, measured: Measured, frame: pd.DataFrame, *, name: str) -> Table:
    """The differences to reg: a row per (error, group, method)."""
    choices, rows, parts = measured.choices, list[tuple[Cell, ...]](), list[Part]()
    for error in TESTED:
        parts.append(Part(place=len(rows), title=_in_unit(section, error)))
        for row in records(frame[frame["error"] == error]):
            digits = digits_of(max(row["reg"], row["other"]))
            texts = (
                *(number(row["reg"], digits), number(row["other"], digits), signed(row["gap"], digits), signed(row["relative"], 1)),
                *(interval(row["low"], row["high"], digits), p_value(row["p"]), p_value(row["p_holm"]), f"{row['rows']:,}"),
            )
            cells = [Cell(text=text) for text in texts]
            cells.insert(4, answer_cell(row["answer"]))
            groups = (*_groups_of(choices, "reg"), *_groups_of(choices, row["method"]))
            head = (Cell(text=row["method"], header=True), Cell(text=NAMES[row["group"]], header=True))
            rows.append((*head, *cells, Cell(text="", runs=groups)))
    seeds = int(frame["seeds"].max())
    if len(measured.parts) > 1:
        test = (
            f"Interval and p: t-test over {len(measured.parts)} folds, each averaged over its {counted(seeds, 'seed')}, with the "
            f"correction for overlapping training rows (Nadeau and Bengio 2003: variance × (1/folds + {measured.ratio:.2f}))."
        )
    else:
        test = f"Interval and p: t-test over {counted(seeds, 'seed')} and test rows, both as samples of more."
    return Table(
        name=name,
        caption="Differences to reg.",
        columns=("method", "group", "reg", "method's", "Δ", "Δ (%)", "does it help?", "95 % interval", "p", "p (Holm)", "rows", "runs"),
        rows=tuple(rows),
        frame=frame,
        notes=(
            "Δ = error(reg) − error(method): above 0 the method helps. Each method has the C and λ that validation rows choose.",
            test,
            f"p (Holm) is adjusted over the methods of a group. “Helps” or “hurts”: adjusted p < {LEVEL}.",
            equivalence_note(section.negligible),
        ),
        run_column=True,
        parts=tuple(parts),
    )


def _lines(section: Tables, measured: Measured, differences: pd.DataFrame) -> list[Line]:
    rows = words.first(measured, differences)
    return [_line(section, measured, differences, rows)] if rows and not math.isnan(rows["all"]["gap"]) else []


def _ranking(section: Tables, measured: Measured, differences: pd.DataFrame) -> list[Line]:
    """Each method against reg; the differences are adjusted over the methods already."""
    table = differences[(differences["error"] == "rmse") & differences["gap"].notna()]
    by_method = [{row["group"]: row for row in records(rows)} for _, rows in table.groupby("method", sort=False)]
    lines = [_line(section, measured, differences, rows) for rows in by_method if "all" in rows]
    return sorted(lines, key=lambda line: line.overall.other)


def _line(section: Tables, measured: Measured, differences: pd.DataFrame, rows: Mapping[str, Row]) -> Line:
    row, few = rows["all"], rows.get("few")
    extent = f"{row['folds']} folds × " if len(measured.parts) > 1 else ""
    tests = int(((differences["error"] == "rmse") & (differences["group"] == "all") & differences["p"].notna()).sum())
    classes, _ = chosen_texts(measured.choices, row["method"])
    return Line(
        measured=_in_unit(section, "rmse"),
        method=f"{row['method']} · {classes}" if classes else row["method"],
        overall=Compared.of(row),
        few=Compared.of(few) if few and few["rows"] else None,
        n=f"{extent}{counted(row['seeds'], 'seed')}{after_tests(tests)}",
        digits=digits_of(max(row["reg"], row["other"])),
    )


def _metrics(measured: Measured, differences: pd.DataFrame) -> dict[str, object]:
    """Columns of `dvc exp show`: RMSE (all, few) of each method and its gap to reg; null if missing."""
    shown = ("all", "few")
    errors = measured.by_part
    rmse = {
        str(method): {group: rounded(float(part[f"rmse/{group}"].mean()) if f"rmse/{group}" in part else math.nan) for group in shown}
        for method, part in errors.groupby(level=0, sort=False)
    }
    gaps: dict[str, dict[str, float | None]] = {}
    for row in records(differences[(differences["error"] == "rmse") & differences["group"].isin(shown)]):
        gaps.setdefault(row["method"], {})[row["group"]] = rounded(row["gap"])
    return {"rmse": rmse, "gap": gaps}


def _add_by_target(report: Report, section: Tables, table: TableSet, measured: Measured) -> None:
    data, units = section.data, f" ({section.data.unit})" if section.data.unit else ""
    choices = measured.choices
    edges = bins_of(table.targets, whole=False)
    groups = section.shots.groups(table.targets)
    rows = []
    for method in [method for method in dict.fromkeys(choices["method"]) if method != HGB]:
        errors = pd.concat(_absolute_errors(measured, row) for row in records(choices[choices["method"] == method]))
        bin_index = np.searchsorted(edges, errors["target"], side="right") - 1
        for index in np.unique(bin_index).tolist():
            part = errors[bin_index == index]
            by_seed = part.drop(columns="target").mean()
            row = {"method": method, "classes": 0, "weight": "", "start": edges[index], "end": edges[index + 1]}
            rows.append(row | {"rows": len(part), "error": by_seed.mean(), "std": by_seed.std(ddof=1)})
    lines, bars = pd.DataFrame(rows), histogram(groups)
    limits = {"many: above": groups.many_above, "few: below": groups.few_below} if len(bars) == bin_count(groups) else {}
    figure = Section(
        name="error_by_target",
        title=f"Error by {data.target}",
        svg=error_by_target(
            lines, bars, target=f"{data.target}{units}", error=f"test MAE{units}", counted="rows", each="each bin", limits=limits
        ),
        alt=f"Test MAE against {data.target}, one line per method, over a histogram of the rows. The CSV has the numbers.",
        caption=f"Test MAE by {data.target}; mean over seeds, shaded: ± standard deviation over seeds. Each method has the C and λ that "
        "validation rows choose. Grey, on the right axis (log): rows by target; darker: many, lighter: few.",
    )
    drawn = [lines.drop(columns=["classes", "weight"]).assign(drawn="line"), bars.assign(drawn="bar")]
    report.add(figure, numbers=pd.concat(drawn, ignore_index=True).set_index("drawn").reset_index())


def _absolute_errors(measured: Measured, row: Row) -> pd.DataFrame:
    """Absolute errors of the test rows of a choice's part, a column per seed, and their targets."""
    part = measured.parts[row["part"]]
    by_seed = {seed: np.abs(measured.predictions[run_id, row["part"]] - part.targets) for seed, run_id in row["by_seed"].items()}
    return pd.DataFrame(by_seed).assign(target=part.targets)
