"""The tables that the reports on images share: errors by shot group, what a class loss changes, the search for λ -> `Table`."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from regcls.metrics import SHOTS, Shot
from regcls.reports.images_collect import CELL
from regcls.reports.images_stats import LEVEL, runs_of
from regcls.reports.picking import records
from regcls.reports.published import BASELINES
from regcls.reports.stats import full
from regcls.reports.tables import DASH, Cell, Part, RunGroup, Table, number, p_value, run_groups, signed, tested
from regcls.words import counted

SHORT: dict[Shot, str] = {"all": "All", "many": "Many", "medium": "Med.", "few": "Few"}
Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ErrorColumns:
    """Four columns of a table, an error by shot group: `error` begins their names in a frame, as in `mae_few`."""

    error: str
    title: str
    higher_is_better: bool = False

    @property
    def names(self) -> list[str]:
        return [f"{self.error}_{shot}" for shot in SHOTS]


@dataclass(frozen=True, kw_only=True)
class Published:
    """Printed values: `values` as from `published.table3`; `why` they are not of what was trained, empty if they are."""

    values: pd.DataFrame
    where: str  # what they are of, for a note
    why: str
    digits: int
    balanced_data: bool  # Table 4


def shots_table(
    ours: pd.DataFrame,
    wanted: pd.DataFrame,
    *,
    name: str,
    caption: str,
    errors: Sequence[ErrorColumns],
    under: Mapping[Shot, str],
    digits: int,
    notes: Sequence[str],
    published: Published | None = None,
    warning: str = "",
) -> Table:
    """Tables 2, 3 and 4: a row a (method, class count, λ), a column a (error, shot group): mean ± std over seeds, the best in bold.

    `ours`: as from `images_stats.means`; `wanted`: the runs behind them; `under`: a word below each group; `notes`: what is special here.
    Published values stand below ours, set apart.
    """
    theirs = _wide(published.values) if published is not None else pd.DataFrame()
    best = {column: _best(ours, column, digits, each.higher_is_better) for each in errors for column in each.names}
    most, none = ours["seeds"].max(), dict.fromkeys(best, "")
    rows = [_our_row(row, best if row["seeds"] == most else none, digits, cell_runs(wanted, row)) for row in records(ours)]
    parts: tuple[Part, ...] = ()
    if published is not None and len(theirs):
        title = "Published" + (", not comparable with ours" if published.why else "")
        parts = (Part(place=0, title="Ours"), Part(place=len(rows), title=title, ours=False))
        rows += [_their_row(row, list(best), published.digits) for row in records(theirs)]
    frame = pd.concat([ours.assign(source="ours"), theirs.assign(source="published")], ignore_index=True) if len(theirs) else ours
    front = [column for column in ("source", *CELL, "seeds", "seeds_wanted", "uncertain") if column in frame]
    return Table(
        name=name,
        caption=caption,
        columns=("method", "classes", "λ", *(SHORT[shot] for _ in errors for shot in SHOTS), "n", "runs"),
        spans=(("", 3), *((each.title, 4) for each in errors), ("", 1), ("", 1)),
        under=("", "", "", *(under[shot] for _ in errors for shot in SHOTS), "seeds", ""),
        rows=tuple(rows),
        frame=frame[[*front, *(column for column in frame if column not in front)]].rename(columns={"lam": "lambda"}),
        notes=("± : standard deviation over seeds. n: seeds.", *notes, *_bold_note(errors, best), *_published_notes(published)),
        warning=warning,
        run_column=True,
        parts=parts,
    )


def _best(ours: pd.DataFrame, column: str, digits: int, higher: bool) -> str:
    """The best mean of a column as it is printed; none unless more than one cell competes."""
    means = full(ours)[column].dropna()
    return number(means.max() if higher else means.min(), digits) if len(means) > 1 else ""


def heads(row: Row) -> tuple[Cell, ...]:
    """Method, class count and λ."""
    lam = "" if row["method"] == "reg" else f"{row['lam']:g}"
    return tuple(Cell(text=text, header=True) for text in (row["method"], str(row["classes"] or ""), lam))


def _our_row(row: Row, best: Mapping[str, str], digits: int, runs: tuple[RunGroup, ...]) -> tuple[Cell, ...]:
    values = [
        Cell(text=_with_std(row[column], row[f"{column}_std"], digits), strong=number(row[column], digits) == winner)
        for column, winner in best.items()
    ]
    n = str(row["seeds"]) if row["seeds"] == row["seeds_wanted"] else f"{row['seeds']} of {row['seeds_wanted']}"
    return (*heads(row), *values, Cell(text=n), Cell(text="", runs=runs))


def _with_std(mean: float, std: float, digits: int) -> str:
    return number(mean, digits) if math.isnan(std) or math.isnan(mean) else f"{number(mean, digits)} ± {number(std, digits)}"


def _wide(published: pd.DataFrame) -> pd.DataFrame:
    """`published.table3` in the columns of `images_stats.means`: baselines first, as printed."""
    rows = []
    for (method, classes), part in published.groupby(["method", "classes"], sort=False):
        row: dict[str, Any] = {"method": method, "classes": classes, "uncertain": bool(part["uncertain"].any())}
        for each in records(part):
            row |= {f"{each['metric']}_{each['shot']}": each["value"], f"{each['metric']}_{each['shot']}_std": each["std"]}
        rows.append(row)
    return pd.DataFrame(rows)


def _their_row(row: Row, columns: Sequence[str], digits: int) -> tuple[Cell, ...]:
    name = str(row["method"]) + ("†" if row["uncertain"] else "")
    names = (Cell(text=name, header=True), Cell(text=str(row["classes"] or ""), header=True), Cell(text="", header=True))
    values = (Cell(text=_with_std(row.get(column, math.nan), row.get(f"{column}_std", math.nan), digits)) for column in columns)
    return (*names, *values, Cell(text=DASH if row["method"] in BASELINES else "3"), Cell(text=""))


def cell_runs(wanted: pd.DataFrame, row: Row) -> tuple[RunGroup, ...]:
    """The counted runs behind a row."""
    return run_groups(runs_of(wanted, row))


def _bold_note(errors: Sequence[ErrorColumns], best: Mapping[str, str]) -> list[str]:
    higher = [each.higher_is_better for each in errors]
    word = "highest" if all(higher) else "best" if any(higher) else "lowest"
    said = f"Bold: the {word} mean of a column among our own rows with all seeds that any has; no test stands behind it."
    return [said] * any(best.values())


def _published_notes(published: Published | None) -> list[str]:
    if published is None:
        return []
    quoted = ", ".join(name for name in BASELINES if name in set(published.values["method"]))
    baselines = f" {quoted}: baselines, as the paper quotes them." if quoted else ""
    notes = [f"Published: the paper's own values on {published.where}, ± over its 3 seeds." + baselines]
    notes += ["The paper's reg+cls on balanced data has equalised classes, and so is reg+cls-bal here."] * published.balanced_data
    notes += [f"The published values are not comparable with ours: {published.why}."] * bool(published.why)
    if published.values["uncertain"].any():
        notes.append("† Which row or column of the printed table the value belongs to is uncertain.")
    return notes


def differences_table(
    frame: pd.DataFrame,
    wanted: pd.DataFrame,
    *,
    name: str,
    caption: str,
    titles: Mapping[str, str],
    digits: Callable[[Row], int],
    meaning: str,
    over_images: str,
    warning: str = "",
) -> Table:
    """What a class loss changes (`images_stats.differences`): a row a (error, method, class count, λ, shot group).

    `titles`: error -> its heading; `digits` of a row; `meaning`: what Δ is; `over_images`: how it is tested over images.
    """
    tests = {p: int(frame[p].notna().sum()) for p in ("p", "p_seeds")}
    rows: list[tuple[Cell, ...]] = []
    parts = []
    for error, title in titles.items():
        parts.append(Part(place=len(rows), title=title))
        rows += [_difference_row(wanted, row, digits(row)) for row in records(frame[frame["error"] == error])]
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
            meaning,
            over_images,
            "Over seeds: paired t-test of the means by seed. It takes the test images as given; 2 or 3 seeds can show hardly anything.",
            f"p (Holm) is adjusted for the {counted(tests['p'], 'test')} over images, and for the {tests['p_seeds']} over seeds, of this "
            "table. "
            f"Clear: adjusted p < {LEVEL}. “Helps” or “hurts”: clear over both; “… as trained”: over images only, so other seeds may give "
            "another answer; “… on these images”: over seeds only.",
        ),
        warning=warning,
        run_column=True,
        parts=tuple(parts) if len(parts) > 1 else (),
    )


def _difference_row(wanted: pd.DataFrame, row: Row, digits: int) -> tuple[Cell, ...]:
    shot: Shot = row["shot"]
    values = [number(row["reg"], digits), number(row["other"], digits), signed(row["gap"], digits)]
    over_images = [_interval(row["low"], row["high"], digits), p_value(row["p_holm"])]
    over_seeds = [
        _interval(row["low_seeds"], row["high_seeds"], digits),
        tested(row["p_seeds"], row["seeds"]),
        p_value(row["p_holm_seeds"]),
    ]
    clear = row["answer"].startswith(("helps", "hurts"))
    counts = Cell(text=f"{row['images']:,} × {row['seeds']}")
    reg = run_groups(wanted[wanted["method"] == "reg"])
    return (
        *(*heads(row), Cell(text=SHORT[shot], header=True)),
        *(Cell(text=text) for text in (*values, *over_images, *over_seeds)),
        *(Cell(text=row["answer"], strong=clear), counts, Cell(text="", runs=reg + cell_runs(wanted, row))),
    )


def _interval(low: float, high: float, digits: int) -> str:
    return DASH if math.isnan(low) else f"{signed(low, digits)} to {signed(high, digits)}"


def search_table(
    frame: pd.DataFrame, wanted: pd.DataFrame, *, caption: str, errors: Mapping[str, str], digits: int, warning: str = ""
) -> Table:
    """The search for λ: a row a (method, class count), a column a (validation error, λ); the λ of the lowest first error in bold.

    `frame`: `images_stats.means` of validation errors; `errors`: its columns -> their headings.
    """
    others = frame[frame["method"] != "reg"]
    lambdas = sorted(others["lam"].unique())
    judged = next(iter(errors))
    rows = []
    for row in records(frame[frame["method"] == "reg"]):
        values = [_search_cell(row, wanted, error, digits) for error in errors for _ in lambdas]
        rows.append((Cell(text="reg", header=True), Cell(text="", header=True), *values))
    for _, line in others.groupby(["method", "classes"], sort=False):
        by_lambda = {row["lam"]: row for row in records(line)}
        ranked = full(line).sort_values(judged, kind="stable")["lam"].tolist()
        first = next(iter(by_lambda.values()))
        values = [_search_cell(by_lambda.get(lam), wanted, error, digits, strong=lam in ranked[:1]) for error in errors for lam in lambdas]
        rows.append((Cell(text=first["method"], header=True), Cell(text=str(first["classes"]), header=True), *values))
    kept = [*CELL, "seeds", "seeds_wanted", *(f"{error}{end}" for error in errors for end in ("", "_std"))]
    title = errors[judged]
    return Table(
        name="lambda_search",
        caption=caption,
        columns=("method", "classes", *(f"λ {lam:g}" for _ in errors for lam in lambdas)),
        spans=(("", 2), *((heading, len(lambdas)) for heading in errors.values())) if lambdas else (),
        rows=tuple(rows),
        frame=frame[kept].rename(columns={"lam": "lambda"}),
        notes=(
            "± : standard deviation over seeds, where there are several. Over all validation images.",
            f"Bold: the lowest mean {title} of a row, among λ with all seeds that any has. A grid with “lambdas: searched” takes it.",
            *(["reg has no λ: its value is repeated."] * bool((frame["method"] == "reg").any())),
        ),
        warning=warning,
    )


def _search_cell(row: Row | None, wanted: pd.DataFrame, error: str, digits: int, *, strong: bool = False) -> Cell:
    if row is None:
        return Cell(text=DASH)
    holes = "" if row["seeds"] == row["seeds_wanted"] else f" (n = {row['seeds']} of {row['seeds_wanted']})"
    return Cell(text=_with_std(row[error], row[f"{error}_std"], digits) + holes, runs=cell_runs(wanted, row), strong=strong)


def digits_for(ours: pd.DataFrame, columns: Sequence[str], *, large: int) -> int:
    """As the paper prints, `large`, where the largest mean is at least 1; else two more."""
    largest = float(np.nanmax(ours[list(columns)].to_numpy(dtype=float), initial=-math.inf))
    return large if largest >= 1 or largest < 0 else large + 2
