"""Raw table -> prepared data: features as numbers and codes, targets, and the folds of every row."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regcls.data.splits import split_of
from regcls.data.store import deciding_parameters, prepared_writer
from regcls.errors import UserError
from regcls.params.types import LARGEST
from regcls.processes import check_memory
from regcls.tasks.table.columns import Described, describe, listed
from regcls.tasks.table.data import TableSet
from regcls.tasks.table.model import raw_features
from regcls.tasks.table.params import TableData
from regcls.tasks.table.reading import read_table
from regcls.words import counted, suggestion

FEWEST_ROWS = 20
KINDS = {"nominal": "nominal column"}  # other kinds of columns go by their names
SMALL = 500  # rows below which `folds: auto` makes ten folds instead of five
ALONE = 5  # folds of which the first two are test and validation if there is a single split


@dataclass(frozen=True, kw_only=True)
class Folds:
    """The fold of each row (repeats, N), the number of folds, and of parts: networks that a run trains, each tested on one fold."""

    fold: NDArray[np.int16]
    count: int
    parts: int


def prepare(data: TableData, folder: Path, *, raw: Path, dataset: str) -> list[str]:
    """Write the prepared table to `folder`; return sentences on its columns.

    Raises:
        UserError: the table is missing or unreadable, lacks a column, has targets that are no numbers, or too few rows.
    """
    table = shipped_table() if data.source == "diabetes" else read_table(raw, data)
    where = "the table of scikit-learn" if data.source == "diabetes" else str(raw / data.file)
    target, split, group = (column_of(table, name, where) if name else None for name in (data.target, data.split, data.group))
    others = [column_of(table, name, where) for name in (*data.ignore, *data.nominal)]
    assert target
    remarks, targets = _targets(table[target], where)
    kept = ~np.isnan(targets)
    table, targets = table[kept].reset_index(drop=True), targets[kept]
    _check_targets(targets, where, data.target)
    without = [target, *filter(None, (split, group)), *others[: len(data.ignore)]]
    described = describe(table, nominal=others[len(data.ignore) :], without=without)
    if not described.features:
        raise UserError(f"{where} has no column to predict {data.target} from ({'; '.join(described.remarks) or 'there are no others'})")
    folds = _by_column(table[split], where) if split else _drawn(table[group] if group else None, len(table), data, where)
    check_memory(table.memory_usage(deep=False).sum() + 16 * len(table) * len(described.features), f"preparing {dataset}")
    numbers, codes = raw_features(table, described.features)
    remarks += [*described.remarks, *_twins(numbers, codes, targets)]
    with prepared_writer(folder, made_from=deciding_parameters(data)) as writer:
        for name, array in {"numbers": numbers, "codes": codes, "targets": targets, "fold": folds.fold}.items():
            writer.save(name, array)
        writer.save_table(pd.DataFrame(described.features))
        writer.notes = {"folds": folds.count, "parts": folds.parts, "remarks": remarks}
    return [*_counts(TableSet(folder), described, data), *remarks]


def shipped_table() -> pd.DataFrame:
    """The diabetes data of Efron et al. (2004) as scikit-learn ships them: 442 patients, ten features, the progression after a year."""
    from sklearn.datasets import load_diabetes  # type: ignore[import-untyped]  # here: it takes a second

    loaded: Any = load_diabetes(as_frame=True, scaled=False)
    table: pd.DataFrame = loaded.frame.rename(columns={"target": "progression"})
    return table


def write_shipped(folder: Path) -> str:
    """Write the table that scikit-learn ships to `folder`, to look at it."""
    folder.mkdir(parents=True, exist_ok=True)
    shipped_table().to_csv(folder / "diabetes.csv", index=False)
    return "the diabetes table of scikit-learn"


def column_of(table: pd.DataFrame, name: str, where: str) -> str:
    """The column of a name; case is ignored if there is no exact match."""
    if name in table:
        return name
    alike = [column for column in table.columns if column.casefold() == name.casefold()]
    if len(alike) != 1:
        hint = suggestion(name, table.columns) or f"; there are {', '.join(table.columns[:8])}{' …' if len(table.columns) > 8 else ''}"
        raise UserError(f"{where} has no column {name}{hint}")
    return alike[0]


def _targets(values: pd.Series, where: str) -> tuple[list[str], NDArray[np.float64]]:
    """A remark on missing targets, and the targets, NaN if missing."""
    texts = values.astype("string").str.strip()
    texts = texts.mask(texts == "")
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = np.flatnonzero(texts.notna().to_numpy() & ~(np.abs(numbers) <= LARGEST))
    if len(wrong):
        what = f"{values.name} = {values.iloc[wrong[0]]!r}"
        more = f", and {len(wrong) - 1:,} more" if len(wrong) > 1 else ""
        problem = "is too large for networks, which compute in float32" if np.isfinite(numbers[wrong[0]]) else "is not a number"
        raise UserError(f"{where}, row {wrong[0] + 1} below the header{more}: {what} {problem}")
    missing = int(np.isnan(numbers).sum())
    return ([f"left out: {counted(missing, 'row')} without a target"] if missing else []), numbers


def _check_targets(targets: NDArray[np.float64], where: str, name: str) -> None:
    if len(targets) < FEWEST_ROWS:
        raise UserError(f"{where} has {counted(len(targets), 'row')} with a target: {FEWEST_ROWS} are the fewest to learn and test with")
    if (targets == targets[0]).all():
        raise UserError(f"{where}: {name} is {targets[0]:g} in every row: there is nothing to learn")


def _by_column(values: pd.Series, where: str) -> Folds:
    """One split, named by a column: fold 0 is for testing, 1 for validation, 2 for training."""
    names = {text: split_of(str(text)) for text in values.unique()}
    if unknown := [text for text, split in names.items() if split is None]:
        row = int(np.flatnonzero(values.isin(unknown) | values.isna())[0])
        raise UserError(f"{where}, row {row + 1} below the header: {values.name} = {unknown[0]!r}: write train, val or test")
    fold = values.map({text: ("test", "val", "train").index(split) for text, split in names.items() if split}).to_numpy(dtype=np.int16)
    for index, split in enumerate(("test", "val", "train")):
        if not (fold == index).any():
            raise UserError(f"{where}: {values.name} names no row for {split}; it has {', '.join(map(str, names))}")
    return Folds(fold=fold[None], count=3, parts=1)


def _drawn(groups: pd.Series | None, rows: int, data: TableData, where: str) -> Folds:
    """Folds of equal size, drawn from `split_seed`; the rows of a group share a fold."""
    from sklearn.model_selection import GroupKFold, KFold  # type: ignore[import-untyped]  # here: it takes a second

    units = rows if groups is None else groups.nunique(dropna=False)
    auto = min(10 if rows < SMALL else 5, max(3, units))
    count = auto if data.folds == "auto" else ALONE if data.folds == 1 else data.folds
    if units < count:
        what = f"{counted(rows, 'row')}" if groups is None else f"{counted(units, 'group')} ({groups.name})"
        raise UserError(f"{where} has {what}, too few for {count} folds: set data.folds to {max(3, units)} or less, or leave out the group")
    codes = None if groups is None else pd.factorize(groups, use_na_sentinel=False)[0]
    fold = np.empty((data.repeats, rows), dtype=np.int16)
    for repeat in range(data.repeats):
        kind = KFold if codes is None else GroupKFold
        cutter: Any = kind(count, shuffle=True, random_state=(data.split_seed + repeat) % 2**32)
        for index, (_, tested) in enumerate(cutter.split(np.empty((rows, 1)), groups=codes)):
            fold[repeat, tested] = index
    return Folds(fold=fold, count=count, parts=1 if data.folds == 1 else data.repeats * count)


def _twins(numbers: NDArray[np.float64], codes: NDArray[np.int32], targets: NDArray[np.float64]) -> list[str]:
    """A remark on rows that are equal in all features and the target."""
    rows = pd.DataFrame(np.column_stack([numbers, codes, targets]))
    equal = int(pd.util.hash_pandas_object(rows, index=False).duplicated().sum())
    return (
        [f"{counted(equal, 'row is', 'rows are')} equal to another: networks may be tested on rows they were trained on"] if equal else []
    )


def _counts(table: TableSet, described: Described, data: TableData) -> list[str]:
    kinds: dict[str, list[str]] = {}
    for column in described.features:
        kinds.setdefault(column["kind"], []).append(column["name"])
    targets, unit = table.targets, f" {data.unit}" if data.unit else ""
    sizes = ", ".join(f"{len(table.rows(table.parts[0], split)):,} {split}" for split in ("train", "val", "test"))
    parts = counted(len(table.parts), "split") if len(table.parts) == 1 else f"{len(table.parts)} folds"
    missing = int(np.isnan(table.prepared.arrays["numbers"]).sum() + (table.prepared.arrays["codes"] < 0).sum())
    return [
        f"{len(targets):,} rows, {counted(len(described.features), 'feature')}, {counted(missing, 'missing value')}",
        *(f"{counted(len(names), KINDS.get(kind, kind))}: {listed(names)}" for kind, names in kinds.items()),
        f"{data.target}: {targets.min():g} to {targets.max():g}{unit}, median {np.median(targets):g}, "
        f"{counted(len(np.unique(targets)), 'distinct value')}",
        f"{parts}; rows of the first: {sizes}",
    ]
