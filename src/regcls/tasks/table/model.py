"""From the raw columns of a table to a prediction, with nothing but NumPy and pandas: the code of each run's MLflow model (served.py).

The numbers of a run are arrays in weights.safetensors. Legend: N rows, F numeric columns, K nominal ones, D inputs of a network.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

# name; kind: number, boolean, date or nominal; format of dates, may be empty; levels of a nominal column, and whether the last one stands
# for the `rest` of all values.
Column = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]

LARGEST = 1e30  # larger numbers would overflow in float32
FARTHEST = 10.0  # standard deviations: beyond them, as with 9999 for a missing value that training has not seen, networks predict anything
TRUE = ("true", "yes", "t", "y", "1", "1.0")
FALSE = ("false", "no", "f", "n", "0", "0.0")
EPOCH, DAY = pd.Timestamp("1970-01-01", tz="UTC"), pd.Timedelta(days=1)


def numbers_of(values: Any, column: Column) -> np.ndarray:
    """A column that is not nominal as float64 (N,): NaN where a value is missing, too large or of another kind; dates: days since 1970."""
    if column["kind"] == "date":
        times = pd.to_datetime(values, format=column["format"] or None, errors="coerce", utc=True)
        return np.asarray((times - EPOCH) / DAY, dtype=np.float64)
    if column["kind"] == "boolean":
        words = values.astype(str).str.strip().str.casefold()
        return np.where(words.isin(TRUE), 1.0, np.where(words.isin(FALSE), 0.0, np.nan))
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.abs(numbers) <= LARGEST, numbers, np.nan)


def codes_of(values: Any, column: Column) -> np.ndarray:
    """A nominal column as int32 (N,), the index of its level: −1 for a missing value, and for an unknown one without a level for `rest`."""
    texts, levels = names_of(values), pd.Index(column["levels"])
    codes = levels.get_indexer(pd.Index(texts)).astype(np.int32)
    unknown = (codes < 0) & (texts != "").to_numpy()
    return np.where(unknown & bool(column["rest"]), np.int32(len(levels) - 1), codes)


def names_of(values: Any) -> Any:
    """The values of a nominal column as text: without blanks around it, whole numbers without decimals; "" for missing ones."""
    return values.astype("string").str.strip().str.replace(r"^(-?[0-9]+)\.0+$", r"\1", regex=True).fillna("")


def raw_features(frame: pd.DataFrame, columns: Sequence[Column]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (N, F), float64, of all columns that are not nominal, and codes (N, K), int32, of those that are."""
    numeric = [numbers_of(frame[column["name"]], column) for column in columns if column["kind"] != "nominal"]
    nominal = [codes_of(frame[column["name"]], column) for column in columns if column["kind"] == "nominal"]
    none = np.empty((len(frame), 0))
    return np.column_stack(numeric) if numeric else none, np.column_stack(nominal) if nominal else none.astype(np.int32)


def inputs_of(numbers: np.ndarray, codes: np.ndarray, fitted: Arrays) -> np.ndarray:
    """The inputs of a network, float32 (N, D), from numbers (N, F) and codes (N, K).

    They are the numbers, standardised and at most FARTHEST from 0, with the median for missing ones; for each column of `indicators`, 1
    where its value is missing; and for each level of each nominal column, 1 where the value is this level. A level that training has not
    seen is 0 everywhere.
    """
    missing = np.isnan(numbers)
    standard = np.clip((np.where(missing, fitted["median"], numbers) - fitted["mean"]) / fitted["scale"], -FARTHEST, FARTHEST)
    hot = [(codes[:, [k]] == np.arange(count)) for k, count in enumerate(fitted["levels"])]
    ones = np.concatenate([missing[:, fitted["indicators"]], *hot], axis=1)
    return np.concatenate([standard, ones & fitted["seen"]], axis=1, dtype=np.float32)


def outputs_of(inputs: np.ndarray, network: Arrays, activation: str) -> np.ndarray:
    """The prediction (N,) of a network, on standardised targets, from its inputs (N, D): its regression output or, if it has `centres`,
    the mean of these class centres by predicted probability.
    """
    hidden: Any = inputs
    for layer in ("layers.0", "layers.1"):
        hidden = hidden @ network[f"{layer}.weight"].T + network[f"{layer}.bias"]
        hidden = np.maximum(hidden, 0) if activation == "relu" else 1 / (1 + np.exp(-hidden))
    if "centres" in network:
        logits = np.asarray(hidden @ network["classifier.weight"].T + network["classifier.bias"], dtype=np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(odds @ network["centres"] / odds.sum(axis=1))
    return np.asarray((hidden @ network["regressor.weight"].T + network["regressor.bias"])[:, 0], dtype=np.float64)


def predictions_of(frame: pd.DataFrame, columns: Sequence[Column], weights: Arrays, activation: str) -> np.ndarray:
    """The prediction of each row (N,), in the target's unit: the mean over the networks of all parts (folds) in `weights`.

    Raises:
        ValueError: the frame lacks a column.
    """
    if lacking := [str(column["name"]) for column in columns if column["name"] not in frame]:
        raise ValueError(f"the table has no column {', '.join(lacking)}")
    numbers, codes = raw_features(frame, columns)
    parts = dict.fromkeys(name.split("/")[0] for name in weights)
    predicted = []
    for part in parts:
        network = {name.removeprefix(f"{part}/"): array for name, array in weights.items() if name.startswith(f"{part}/")}
        outputs = outputs_of(inputs_of(numbers, codes, network), network, activation)
        predicted.append(network["target"][0] + network["target"][1] * outputs)
    return np.asarray(np.mean(predicted, axis=0))
