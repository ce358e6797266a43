"""The tables on faces: frames of `faces_stats` and of `published` -> `Table`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from regcls.metrics import SHOTS, Shot
from regcls.params.faces import ShotLimits
from regcls.reports import faces_stats
from regcls.reports.faces_collect import CELL, FaceRuns
from regcls.reports.faces_stats import LEVEL, TESTED, ErrorName
from regcls.reports.picking import records
from regcls.reports.published import BASELINES
from regcls.reports.tables import DASH, Cell, Part, RunGroup, Table, number, p_value, run_groups, signed, tested

SHORT: dict[Shot, str] = {"all": "All", "many": "Many", "medium": "Med.", "few": "Few"}
NAMES: dict[ErrorName, str] = {"mae": "MAE", "mse": "MSE", "rmse": "RMSE", "gm": "GM"}
Row = Mapping[str, Any]


def shots_table(
    runs: FaceRuns,
    *,
    name: str,
    caption: str,
    errors: Sequence[ErrorName],
    limits: ShotLimits,
    published: pd.DataFrame | None = None,
    not_comparable: str = "",
    warning: str = "",
) -> Table:
    """Table 3 and Table 4: a row a (method, class count, λ), a column a (error, shot group): mean ± std over seeds, the best in bold.

    `published`, as from `published.table3`, stands below ours, set apart; `not_comparable` says why it is not of what was trained.
    """
    ours = faces_stats.cells(runs, "test")
    sizes = faces_stats.group_sizes(runs.images)
    theirs = _wide(published) if published is not None else pd.DataFrame()
    digits = _digits(ours, errors)
    best = {column: _best(ours, column, digits) for column in _columns(errors)}
    most, none = ours["seeds"].max(), dict.fromkeys(best, "")
    rows = [_our_row(row, best if row["seeds"] == most else none, digits, _cell_runs(runs, row)) for row in records(ours)]
    parts: tuple[Part, ...] = ()
    if len(theirs):
        title = "Published" + (", not comparable with ours" if not_comparable else "")
        parts = (Part(place=0, title="Ours"), Part(place=len(rows), title=title, ours=False))
        rows += [_their_row(row, list(best)) for row in records(theirs)]
    frame = pd.concat([ours.assign(source="ours"), theirs.assign(source="published")], ignore_index=True) if len(theirs) else ours
    front = [column for column in ("source", *CELL, "seeds", "seeds_wanted", "uncertain") if column in frame]
    return Table(
        name=name,
        caption=caption,
        columns=("method", "classes", "λ", *(SHORT[shot] for _ in errors for shot in SHOTS), "n", "runs"),
        spans=(("", 3), *((NAMES[error], 4) for error in errors), ("", 1), ("", 1)),
        under=("", "", "", *(f"{images:,} images\n{ages} ages" for _ in errors for images, ages in sizes.values()), "seeds", ""),
        rows=tuple(rows),
        frame=frame[[*front, *(column for column in frame if column not in front)]].rename(columns={"lam": "lambda"}),
        notes=_shot_notes(runs, limits, published=published, why=not_comparable, bold=any(best.values()), gm="gm" in errors),
        warning=warning,
        run_column=True,
        parts=parts,
    )


def _columns(errors: Sequence[ErrorName]) -> list[str]:
    return [f"{error}_{shot}" for error in errors for shot in SHOTS]


def _digits(ours: pd.DataFrame, errors: Sequence[ErrorName]) -> int:
    """As the paper prints, or more where targets are small."""
    largest = float(np.nanmax(ours[_columns(errors)].to_numpy(dtype=float), initial=-math.inf))
    return 2 if largest >= 1 or largest < 0 else 4


def _best(ours: pd.DataFrame, column: str, digits: int) -> str:
    """The lowest mean of a column as it is printed; none unless more than one cell competes."""
    means = faces_stats.full(ours)[column].dropna()
    return number(means.min(), digits) if len(means) > 1 else ""


def _heads(row: Row) -> tuple[Cell, ...]:
    lam = "" if row["method"] == "reg" else f"{row['lam']:g}"
    return tuple(Cell(text=text, header=True) for text in (row["method"], str(row["classes"] or ""), lam))


def _our_row(row: Row, best: Mapping[str, str], digits: int, runs: tuple[RunGroup, ...]) -> tuple[Cell, ...]:
    values = [
        Cell(text=_with_std(row[column], row[f"{column}_std"], digits), strong=number(row[column], digits) == lowest)
        for column, lowest in best.items()
    ]
    n = str(row["seeds"]) if row["seeds"] == row["seeds_wanted"] else f"{row['seeds']} of {row['seeds_wanted']}"
    return (*_heads(row), *values, Cell(text=n), Cell(text="", runs=runs))


def _with_std(mean: float, std: float, digits: int) -> str:
    return number(mean, digits) if math.isnan(std) or math.isnan(mean) else f"{number(mean, digits)} ± {number(std, digits)}"


def _wide(published: pd.DataFrame) -> pd.DataFrame:
    """`published.table3` in the columns of `faces_stats.cells`: baselines first, as printed."""
    rows = []
    for (method, classes), part in published.groupby(["method", "classes"], sort=False):
        row: dict[str, Any] = {"method": method, "classes": classes, "uncertain": bool(part["uncertain"].any())}
        for each in records(part):
            row |= {f"{each['metric']}_{each['shot']}": each["value"], f"{each['metric']}_{each['shot']}_std": each["std"]}
        rows.append(row)
    return pd.DataFrame(rows)


def _their_row(row: Row, columns: Sequence[str]) -> tuple[Cell, ...]:
    name = str(row["method"]) + ("†" if row["uncertain"] else "")
    heads = (Cell(text=name, header=True), Cell(text=str(row["classes"] or ""), header=True), Cell(text="", header=True))
    values = (Cell(text=_with_std(row.get(column, math.nan), row.get(f"{column}_std", math.nan), 2)) for column in columns)
    return (*heads, *values, Cell(text=DASH if row["method"] in BASELINES else "3"), Cell(text=""))


def _cell_runs(runs: FaceRuns, row: Row) -> tuple[RunGroup, ...]:
    wanted = runs.wanted
    same = (wanted["method"] == row["method"]) & (wanted["classes"] == row["classes"])
    return run_groups(wanted[same & ((wanted["lam"] == row["lam"]) | (row["method"] == "reg"))])


def _shot_notes(runs: FaceRuns, limits: ShotLimits, *, published: pd.DataFrame | None, why: str, bold: bool, gm: bool) -> tuple[str, ...]:
    sizes = [f"{SHORT[shot]} {images:,} ({ages})" for shot, (images, ages) in faces_stats.group_sizes(runs.images).items()]
    notes = [
        "± : standard deviation over seeds. n: seeds.",
        f"Many: ages with more than {limits.many_above} training images; Few: fewer than {limits.few_below}; Med.: between. "
        f"Test images (ages among them): {', '.join(sizes)}.",
    ]
    if bold:
        notes.append("Bold: the lowest mean of a column among our own rows with all seeds that any has; no test stands behind it.")
    if gm:
        notes.append("GM: geometric mean of the absolute error.")
    if published is not None:
        quoted = ", ".join(name for name in BASELINES if name in set(published["method"]))
        baselines = f" {quoted}: baselines, as the paper quotes them." if quoted else ""
        notes.append("Published: the paper's own values on IMDB-WIKI-DIR, ± over its 3 seeds." + baselines)
        notes += [f"The published values are not comparable with ours: {why}."] * bool(why)
        if published["uncertain"].any():
            notes.append("† Which row or column of the printed table the value belongs to is uncertain.")
    return tuple(notes)


def differences_table(runs: FaceRuns, *, name: str, caption: str, warning: str = "") -> Table:
    """What a class loss changes: a row a (error, method, class count, λ, shot group), with a test over images and one over seeds."""
    frame = faces_stats.differences(runs)
    tests = {p: int(frame[p].notna().sum()) for p in ("p", "p_seeds")}
    rows: list[tuple[Cell, ...]] = []
    parts = []
    for error in TESTED:
        parts.append(Part(place=len(rows), title=NAMES[error]))
        rows += [_difference_row(runs, row) for row in records(frame[frame["error"] == error])]
    return Table(
        name=name,
        caption=caption,
        columns=(
            *("method", "classes", "λ", "group", "reg", "method's", "Δ", "95 % interval", "p (Holm)"),
            *("95 % interval", "p", "p (Holm)", "does it help?", "images × seeds", "runs"),
        ),
        spans=(("", 7), ("over test images", 2), ("over seeds", 3), ("", 2), ("", 1)),
        rows=tuple(rows),
        frame=frame.rename(columns={"lam": "lambda"}),
        notes=(
            "Δ = error(reg) − error(method), over the seeds that both have: above 0 the class loss helps. MAE above, MSE below.",
            "Over test images: paired t-test, each image's error averaged over the seeds. It takes the trained networks as given, and "
            "images as independent, which those of one person are not: its intervals are rather too narrow.",
            "Over seeds: paired t-test of the means by seed. It takes the test images as given; 2 or 3 seeds can show hardly anything.",
            f"p (Holm) is adjusted for the {tests['p']} tests over images, and for the {tests['p_seeds']} over seeds, of this table. "
            f"Clear: adjusted p < {LEVEL}. “Helps” or “hurts”: clear over both; “… as trained”: over images only, so other seeds may give "
            "another answer; “… on these images”: over seeds only.",
        ),
        warning=warning,
        run_column=True,
        parts=tuple(parts),
    )


def _difference_row(runs: FaceRuns, row: Row) -> tuple[Cell, ...]:
    shot: Shot = row["shot"]
    small = 2 if max(abs(row["reg"]), abs(row["other"])) >= 1 else 4
    values = [number(row["reg"], small), number(row["other"], small), signed(row["gap"], small)]
    over_images = [_interval(row["low"], row["high"], small), p_value(row["p_holm"])]
    over_seeds = [_interval(row["low_seeds"], row["high_seeds"], small), tested(row["p_seeds"], row["seeds"]), p_value(row["p_holm_seeds"])]
    clear = row["answer"].startswith(("helps", "hurts"))
    counts = Cell(text=f"{row['images']:,} × {row['seeds']}")
    reg = run_groups(runs.wanted[runs.wanted["method"] == "reg"])
    return (
        *(*_heads(row), Cell(text=SHORT[shot], header=True)),
        *(Cell(text=text) for text in (*values, *over_images, *over_seeds)),
        *(Cell(text=row["answer"], strong=clear), counts, Cell(text="", runs=reg + _cell_runs(runs, row))),
    )


def _interval(low: float, high: float, digits: int) -> str:
    return DASH if math.isnan(low) else f"{signed(low, digits)} to {signed(high, digits)}"


def search_table(runs: FaceRuns, *, caption: str, warning: str = "") -> Table:
    """The search for λ: validation MSE and MAE, a row a (method, class count), a column a λ; the λ of the lowest mean MSE in bold."""
    frame = faces_stats.cells(runs, "val")
    others = frame[frame["method"] != "reg"]
    lambdas = sorted(others["lam"].unique())
    reg = [_reg_row(row, runs, lambdas) for row in records(frame[frame["method"] == "reg"])]
    rows = [_search_row(line, runs, lambdas) for _, line in others.groupby(["method", "classes"], sort=False)]
    kept = [*CELL, "seeds", "seeds_wanted", *(f"{error}_all{end}" for error in TESTED[::-1] for end in ("", "_std"))]
    return Table(
        name="lambda_search",
        caption=caption,
        columns=("method", "classes", *(f"λ {lam:g}" for _ in TESTED for lam in lambdas)),
        spans=(("", 2), ("validation MSE", len(lambdas)), ("validation MAE", len(lambdas))) if lambdas else (),
        rows=(*reg, *rows),
        frame=frame[kept].rename(columns={"lam": "lambda"}),
        notes=(
            "± : standard deviation over seeds, where there are several. Over all validation images.",
            "Bold: the lowest mean validation MSE of a row, among λ with all seeds that any has. A grid with “lambdas: searched” takes it.",
            *(["reg has no λ: its value is repeated."] if reg else []),
        ),
        warning=warning,
    )


def _search_row(line: pd.DataFrame, runs: FaceRuns, lambdas: Sequence[float]) -> tuple[Cell, ...]:
    by_lambda = {row["lam"]: row for row in records(line)}
    ranked = records(faces_stats.full(line).sort_values("mse_all", kind="stable"))
    best = ranked[0]["lam"] if ranked else None
    first = next(iter(by_lambda.values()))
    heads = (Cell(text=first["method"], header=True), Cell(text=str(first["classes"]), header=True))
    values = (_search_cell(by_lambda.get(lam), runs, error, strong=lam == best) for error in TESTED[::-1] for lam in lambdas)
    return (*heads, *values)


def _reg_row(row: Row, runs: FaceRuns, lambdas: Sequence[float]) -> tuple[Cell, ...]:
    heads = (Cell(text="reg", header=True), Cell(text="", header=True))
    return (*heads, *(_search_cell(row, runs, error) for error in TESTED[::-1] for _ in lambdas))


def _search_cell(row: Row | None, runs: FaceRuns, error: str, *, strong: bool = False) -> Cell:
    if row is None:
        return Cell(text=DASH)
    text = _with_std(row[f"{error}_all"], row[f"{error}_all_std"], 2)
    holes = "" if row["seeds"] == row["seeds_wanted"] else f" (n = {row['seeds']} of {row['seeds_wanted']})"
    return Cell(text=text + holes, runs=_cell_runs(runs, row), strong=strong)
