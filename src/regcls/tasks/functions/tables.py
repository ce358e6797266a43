"""The tables of the 1D study, from frames of `compared` and `published`."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from regcls.reports.measured import EDGE, at_edge, edge_note, groups_of, row_name
from regcls.reports.picking import Row, records
from regcls.reports.stats import FEWEST, USELESS, holm_note, verdict
from regcls.reports.tables import DASH, Cell, RunGroup, Table, answer_cell, interval, number, p_value, signed, tested, with_std
from regcls.tasks.functions import compared, published
from regcls.tasks.functions.collected import CELL, PANEL, Collected, data_name, in_order

CI_NOTE = (
    "Δ = MSE(reg) − MSE(method): above 0 the method helps. Interval (95 %) and p: paired t-test whose unit is the repetition (mean "
    "over functions first), because the functions of a repetition share initial weights and the position of the peak."
)
CONSTANT_NOTE = (
    "Constant: the lower of two test MSEs, of predicting the mean and the median of a function's training targets for every x. Where reg "
    "is no better, there is no verdict."
)
HOLES_NOTE = "If runs are missing, Δ is over the existing pairs of reg and reg+cls; a repetition counts with the class counts it has."


def _judged(frame: pd.DataFrame, constants: pd.DataFrame, data: list[str]) -> pd.DataFrame:
    """Add the columns `constant`, the test MSE of the best constant, and `answer`, which is no verdict where reg is no better.

    `constants`: the differences of constants to reg, with the same columns `data` that identify the data of a row.
    """
    best = constants.groupby(data)["other"].min().rename("constant").reset_index()
    frame = frame.merge(best, on=data, how="left")
    answers = pd.Series([verdict(row["gap"], row["p_holm"], row["n"]) for row in records(frame)], index=frame.index, dtype=object)
    return frame.assign(answer=answers.mask((frame["reg"] >= frame["constant"]) & frame["p"].notna(), USELESS))


def settings_table(collected: Collected) -> Table:
    """The answer in each setting: reg and the other methods, means over class counts and over uniform or imbalanced samplings."""
    gaps, constants = (compared.by_setting(networks, "test_mse") for networks in (collected.networks, collected.constants))
    frame = _judged(gaps, constants, ["setting", "noise", "kind"])
    return Table(
        name="settings",
        caption="Test MSE by setting, each the mean over functions, repetitions, class counts and samplings.",
        columns=(
            "data",
            "sampling",
            "method",
            "reg",
            "method's",
            "constant",
            "Δ (95 % interval)",
            "p (Holm)",
            "does it help?",
            "n",
            "runs",
        ),
        rows=tuple(_setting_row(row, _setting_runs(collected.wanted, row)) for row in records(frame)),
        frame=frame,
        notes=(
            "Imbalanced: the mean over all samplings except uniform. The settings differ in the size of their errors and in λ, so there is "
            "no mean over them.",
            CONSTANT_NOTE,
            CI_NOTE,
            f"{holm_note(int(frame['p'].notna().sum()), of='repetitions')} n counts repetitions.",
            *([HOLES_NOTE] if (collected.wanted["state"] != "finished").any() else []),
        ),
        run_column=True,
    )


def _setting_row(row: Row, runs: tuple[RunGroup, ...]) -> tuple[Cell, ...]:
    kind = row["kind"] if row["samplings"] == 1 else f"{row['kind']} ({row['samplings']})"
    heads = (Cell(text=text, header=True) for text in (data_name(row["setting"], row["noise"]), kind, row["method"]))
    texts = (*(number(row[name], 3) for name in ("reg", "other", "constant")), gap_text(row), p_value(row["p_holm"]))
    return (*heads, *(Cell(text=text) for text in texts), answer_cell(row["answer"]), Cell(text=str(row["n"])), Cell(text="", runs=runs))


def _setting_runs(wanted: pd.DataFrame, row: Row) -> tuple[RunGroup, ...]:
    """The runs behind a row of `compared.by_setting`, of reg and of the row's method."""
    same = (wanted[["setting", "noise"]] == [row["setting"], row["noise"]]).all(axis=1)
    kind = (wanted["sampling"] == "uniform") == (row["kind"] == "uniform")
    return groups(wanted[same & kind & wanted["method"].isin(["reg", row["method"]])])


def panels_table(collected: Collected, *, with_released: bool, warning: str = "") -> Table:
    """The short answer: reg and reg+cls (mean over class counts) in each panel of Figure 3, with the authors' released values."""
    wanted, networks = collected.wanted, collected.networks
    gaps = compared.gaps(networks, "test_mse")
    validation, test = (compared.cells(networks, wanted, f"{split}_mse") for split in ("val", "test"))
    best = compared.best_classes(validation).merge(test, on=CELL)[[*CELL, "mean"]]
    best = best.rename(columns={"classes": "best_classes", "lam": "best_lambda", "mean": "best_mse"})
    requested = wanted[wanted["method"] != "reg"].groupby([*PANEL, "method"], sort=False).size().reset_index(name="runs_wanted")
    frame = requested.merge(gaps, on=[*PANEL, "method"], how="left").merge(best, on=[*PANEL, "method"], how="left")
    if with_released:
        released = published.released_means(_class_counts(wanted)).rename(columns={"reg": "released_reg", "reg+cls": "released_reg+cls"})
        frame = frame.merge(released, on=PANEL, how="left")
    frame = in_order(frame)
    frame[["n", "runs"]] = frame[["n", "runs"]].fillna(0).astype(int)
    frame = _judged(frame, compared.gaps(collected.constants, "test_mse"), PANEL)
    frame["best_classes"] = frame["best_classes"].astype("Int64")
    counts = _class_counts(wanted)
    shown = frame[frame["method"] == "reg+cls"]
    edges = [not pd.isna(best) and at_edge(int(best), counts, least=2) for best in shown["best_classes"]]
    rows = [_panel_row(row, panel_runs(wanted, row), with_released, EDGE * edge) for row, edge in zip(records(shown), edges, strict=True)]
    tests = int(shown["p"].notna().sum())
    return Table(
        name="panels",
        caption=f"Test MSE of reg and reg+cls, each the mean over functions, repetitions and {', '.join(map(str, counts))} classes.",
        columns=(
            *("data", "sampling", "reg", "reg+cls", "constant", "Δ (95 % interval)", "|Δ|", "p (Holm)", "does it help?"),
            *(("released reg", "released reg+cls") if with_released else ()),
            *("best classes", "n", "runs"),
        ),
        rows=tuple(rows),
        frame=frame,
        notes=(
            f"± : standard error over repetitions. {CI_NOTE}",
            CONSTANT_NOTE,
            f"{holm_note(tests, of='repetitions')} n counts repetitions.",
            f"|Δ|: {'the gap as printed in the paper, ' if with_released else ''}the mean over class counts of the absolute difference.",
            *(
                ["Released: the authors' run logs of Figure 3 (10 functions × 5 repetitions), over the same class counts."]
                if with_released
                else []
            ),
            "Best classes: the number with the lowest mean validation MSE, and its test MSE.",
            *(edge_note("class count", "`classes`") if any(edges) else []),
            *([HOLES_NOTE] if (frame["runs"] < frame["runs_wanted"]).any() else []),
        ),
        warning=warning,
        run_column=True,
    )


def _panel_row(row: Row, runs: tuple[RunGroup, ...], with_released: bool, edge: str) -> tuple[Cell, ...]:
    best: str = DASH if pd.isna(row["best_classes"]) else f"{row['best_classes']}{edge}: {number(row['best_mse'], 3)}"
    n = f"{row['n']}" if row["runs"] == row["runs_wanted"] else f"{row['n']}; {row['runs']} of {row['runs_wanted']} runs"
    heads = (Cell(text=data_name(row["setting"], row["noise"]), header=True), Cell(text=row["sampling"], header=True))
    sides = (Cell(text=with_std(row["reg"], row["reg_se"], 3)), Cell(text=with_std(row["other"], row["other_se"], 3)))
    gap = (Cell(text=number(row["constant"], 3)), Cell(text=gap_text(row)), Cell(text=number(row["absolute_gap"], 3)))
    test = (Cell(text=p_value(row["p_holm"])), answer_cell(row["answer"]))
    columns = ("released_reg", "released_reg+cls") if with_released else ()
    released = (Cell(text=number(row[name], 3)) for name in columns)
    return (*heads, *sides, *gap, *test, *released, Cell(text=best), Cell(text=n), Cell(text="", runs=runs))


def gap_text(row: Row, digits: int = 3) -> str:
    """Δ and, if there is a test, its interval: `+0.075 (+0.049 to +0.102)`."""
    return signed(row["gap"], digits) + ("" if math.isnan(row["low"]) else f" ({interval(row['low'], row['high'], digits)})")


def groups(wanted: pd.DataFrame) -> tuple[RunGroup, ...]:
    """Runs by method, class count and λ."""
    ordered = wanted.sort_values(["method", "classes", "lam"], kind="stable", na_position="first")
    return groups_of(ordered, row_name)


def mean_std(row: Row) -> str:
    """Mean and std of a row of `compared.cells`: `0.1530 ± 0.0421`, or `… (n = 3 of 5)` if repetitions are missing."""
    if row["repetitions"] == 0:
        return f"{DASH} (n = 0 of {row['repetitions_wanted']})"
    text = with_std(row["mean"], row["std"], 4)
    return text if row["repetitions"] == row["repetitions_wanted"] else f"{text} (n = {row['repetitions']} of {row['repetitions_wanted']})"


def panel_runs(wanted: pd.DataFrame, row: Row) -> tuple[RunGroup, ...]:
    """The runs of a row's panel, of reg and of the row's method."""
    panel = wanted[(wanted[PANEL] == [row[key] for key in PANEL]).all(axis=1)]
    return groups(panel[panel["method"].isin(["reg", row["method"]])])


def _class_counts(wanted: pd.DataFrame) -> list[int]:
    return sorted(int(value) for value in wanted.loc[wanted["classes"] > 0, "classes"].unique())


def methods_table(collected: Collected, *, name: str, caption: str, with_released: bool, warning: str = "") -> Table:
    """A row per cell: test MSE, spread, difference to reg and its test; `with_released` adds the authors' values (Figure 3)."""
    wanted, networks = collected.wanted, collected.networks
    frame = compared.cells(networks, wanted, "test_mse").merge(compared.against_reg(networks, "test_mse"), on=CELL, how="left")
    frame["n"] = frame["n"].fillna(0).astype(int)
    columns = ["data", "sampling", "method", "classes", "MSE ± std", "s.e.", "n", "Δ (95 % interval)", "p", "p (Holm)"]
    tests = int(frame["p"].notna().sum())
    notes = [
        "± : standard deviation over all networks (functions × repetitions), as shaded in the figure. "
        "s.e.: standard error over repetitions (means over functions). n: repetitions (networks).",
        CI_NOTE,
        f"This table has {tests} tests: at p < 0.05 about {tests * 0.05:.0f} would look significant by chance alone. "
        "p (Holm) is adjusted for all of them.",
    ]
    if with_released:
        frame = _with_released(frame)
        columns += ["released", "ours − theirs", "in s.e."]
        notes.append(
            "Released: the authors' run logs; reg is the mean over the class counts, since they retrained it for each. "
            "In s.e.: in standard errors of our mean, from 3 repetitions on; the logs do not have the spread of theirs."
        )
    by_cell = _runs_by_cell(wanted)
    rows = [_method_row(row, _cell_runs(by_cell, row), with_released) for row in records(frame)]
    return Table(
        name=name,
        caption=caption,
        columns=(*columns, "runs"),
        rows=tuple(rows),
        frame=_named(frame),
        notes=tuple(notes),
        warning=warning,
        run_column=True,
    )


def _with_released(frame: pd.DataFrame) -> pd.DataFrame:
    released = published.released()
    same_classes = released["classes"].isin(_class_counts(frame))
    reg = released[(released["method"] == "reg") & same_classes].groupby(PANEL, as_index=False)["published"].mean()
    both = pd.concat([reg.assign(method="reg", classes=0), released[released["method"] != "reg"]], ignore_index=True)
    table = frame.merge(both, on=[*PANEL, "method", "classes"], how="left")
    table["ours_minus_published"] = table["mean"] - table["published"]
    # The standard error of two repetitions is too uncertain to be used as a unit.
    usable = (table["repetitions"] >= FEWEST) & (table["se"] > 0)
    table["in_standard_errors"] = table["ours_minus_published"] / table["se"].where(usable)
    return table


Runs = tuple[RunGroup, ...]


def _runs_by_cell(wanted: pd.DataFrame) -> dict[tuple[Any, ...], Runs]:
    return {_key(key): groups(group) for key, group in wanted.groupby(CELL, dropna=False, sort=False)}


def _key(cell: tuple[Any, ...]) -> tuple[Any, ...]:
    """A cell's values as a dict key, with None for NaN, which is not equal to itself."""
    return tuple(None if isinstance(value, float) and math.isnan(value) else value for value in cell)


def _cell_runs(by_cell: Mapping[Any, Runs], row: Row) -> Runs:
    """The runs of a cell, and of the reg cell that it is compared with."""
    own = by_cell[_key(tuple(row[key] for key in CELL))]
    reg = by_cell.get((*(row[key] for key in PANEL), "reg", 0, None), ())
    return own if row["method"] == "reg" else reg + own


def _method_row(row: Row, runs: tuple[RunGroup, ...], with_released: bool) -> tuple[Cell, ...]:
    reg = row["method"] == "reg"
    heads = [data_name(row["setting"], row["noise"]), row["sampling"], row["method"], str(row["classes"] or "")]
    n = f"{row['repetitions']} ({row['networks']})"
    test = [gap_text(row), tested(row["p"], row["n"]), p_value(row["p_holm"])]
    texts = [mean_std(row), number(row["se"]), n, *([""] * 3 if reg else test)]
    if with_released:
        texts += [number(row["published"]), signed(row["ours_minus_published"]), signed(row["in_standard_errors"], 1)]
    return (*(Cell(text=text, header=True) for text in heads), *(Cell(text=text) for text in texts), Cell(text="", runs=runs))


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    """Rename columns for the CSV, as in params.yaml and the table."""
    return frame.rename(columns={"lam": "lambda", "mean": "test_mse", "se": "standard_error", "n": "pairs"})


def lambda_table(collected: Collected, *, caption: str) -> Table:
    """Figure 4 as numbers: validation MSE, a row per (panel, method, λ), a column per number of classes, and the comparison with reg."""
    wanted, networks = collected.wanted, collected.networks
    frame = compared.cells(networks, wanted, "val_mse")
    counts = _class_counts(wanted)
    by_cell = _runs_by_cell(wanted)
    reg = {tuple(row[key] for key in PANEL): row for row in records(frame[frame["method"] == "reg"])}
    keys, others = [*PANEL, "method", "lam"], wanted[wanted["classes"] > 0]  # λ is NaN for a method without a regression loss
    requested = others.groupby(keys, dropna=False, sort=False).size().reset_index(name="runs_wanted")
    shown = networks[(networks["classes"] > 0) | (networks["method"] == "reg")]
    gaps = in_order(requested.merge(compared.gaps(shown, "val_mse", by_lambda=True), on=keys, how="left"))
    gaps[["n", "runs"]] = gaps[["n", "runs"]].fillna(0).astype(int)
    gap_rows = {_key(tuple(row[key] for key in keys)): row for row in records(gaps)}
    rows = []
    key: Any  # pandas-stubs know it as a tuple of Hashable
    for key, line in frame[frame["classes"] > 0].groupby(keys, dropna=False, sort=False):
        setting, noise, sampling, method, lam = _key(key)
        heads = [data_name(setting, noise), sampling, method, "" if lam is None else f"{lam:g}"]
        cells = {row["classes"]: row for row in records(line)}
        row_cells = [reg.get((setting, noise, sampling)), *(cells.get(classes) for classes in counts)]
        row = gap_rows[_key(key)]
        test = [gap_text(row), tested(row["p"], row["n"]), p_value(row["p_holm"]), str(row["n"])]
        linked = (_linked(cell, by_cell) for cell in row_cells)
        rows.append((*(Cell(text=text, header=True) for text in heads), *linked, *(Cell(text=text) for text in test)))
    heads = ["data", "sampling", "method", "λ", "reg", *(f"{count} classes" for count in counts)]
    return Table(
        name="figure4_lambda",
        caption=caption,
        columns=(*heads, "Δ (95 % interval)", "p", "p (Holm)", "n"),
        rows=tuple(rows),
        frame=gaps.rename(columns={"lam": "lambda", "other": "method_mse", "other_se": "method_se"}),
        notes=(
            "± : standard deviation over all networks (functions × repetitions). A method with only one loss has no λ; the value of reg is "
            "repeated.",
            f"{CI_NOTE} Here Δ is of the validation MSE, over all class counts of the row; figure4.csv has it for each class count.",
            f"p (Holm) is adjusted for the {int(gaps['p'].notna().sum())} tests of this table. n counts repetitions; "
            f"no test for n < {FEWEST}.",
            *([HOLES_NOTE] if (gaps["runs"] < gaps["runs_wanted"]).any() else []),
        ),
    )


def _linked(row: Row | None, by_cell: Mapping[Any, Runs]) -> Cell:
    if row is None:
        return Cell(text=DASH)
    return Cell(text=mean_std(row), runs=by_cell[_key(tuple(row[key] for key in CELL))])
