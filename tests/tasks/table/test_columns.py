"""Which columns are features, and of what kind."""

import numpy as np
import pandas as pd
import pytest

from regcls.tasks.table.columns import MOST_LEVELS, describe
from regcls.tasks.table.model import codes_of, numbers_of

N = 40
RNG = np.random.default_rng(0)


def kind_of(values):
    (feature,) = describe(pd.DataFrame({"x": values}), nominal=(), without=()).features
    return feature["kind"]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.5, 1.5, None] * 10, "number"),
        ([1, 2, 2] * 10, "number"),
        (["1.5", "2", " 3 "] * 10, "number"),
        ([True, False, False] * 10, "boolean"),
        (["yes", "No", None] * 10, "boolean"),
        (["t", "f", "t"] * 10, "boolean"),
        (["a", "b", None] * 10, "nominal"),
        (["0", "1", "1"] * 10, "number"),
        (["2024-01-05", "2023-11-30", None] * 10, "date"),
        (["2024-01-05 10:30", "2023-11-30 11:00"] * 10, "date"),
        (["31/12/2020", "01/02/2021"] * 10, "date"),
        (["12/31/2020", "02/01/2021"] * 10, "date"),
        (["5.1.2020", "31.12.2020"] * 10, "date"),
        (pd.to_datetime(["2024-01-05", "2024-02-05"] * 10), "date"),
        (["10-11-x", "10-11-y"] * 10, "nominal"),
        (pd.Categorical(["a", "b"] * 10), "nominal"),
    ],
)
def test_kinds(values, kind):
    assert kind_of(values) == kind


def test_dates_are_days_whichever_comes_first_day_or_month():
    for texts in (["31/12/2020", "01/02/2021"], ["12/31/2020", "02/01/2021"], ["2020-12-31", "2021-02-01"], ["31.12.2020", "1.2.2021"]):
        table = pd.DataFrame({"x": texts * 10})
        (column,) = describe(table, nominal=(), without=()).features
        assert numbers_of(table["x"], column)[:2].tolist() == [18627, 18659], texts
        assert np.isnan(numbers_of(pd.Series(["soon", None]), column)).all()


def test_columns_that_say_nothing_are_left_out_and_named():
    table = pd.DataFrame(
        {
            "row": np.arange(N),
            "name": [f"n{i}" for i in range(N)],
            "patient_id": RNG.permutation(1000)[:N],
            "empty": [None] * N,
            "one": [7] * N,
            "x": RNG.normal(size=N),
            "y": RNG.normal(size=N).round(1),
            "mostly": [None] * (N - 1) + [3.0],
            "when": pd.date_range("2024", periods=N).astype(str),
        }
    )
    table["again"] = table["x"]
    described = describe(table, nominal=(), without=("y",))
    assert [column["name"] for column in described.features] == ["x", "mostly", "when"]
    assert described.remarks == [
        "left out, numbers of the rows: row, patient_id",
        "left out, different in every row: name",
        "left out, without values: empty",
        "left out, with one value only: one",
        "left out, equal to x: again",
    ]


def test_distinct_prices_are_no_row_numbers():
    table = pd.DataFrame({"price": RNG.permutation(10**6)[:N], "area": RNG.permutation(10**6)[:N]})
    assert len(describe(table, nominal=(), without=()).features) == 2


def test_levels_beyond_the_most_frequent_share_one():
    texts = [f"l{i:03d}" for i in range(150) for _ in range(1 + (i < 60))]
    table = pd.DataFrame({"x": texts})
    described = describe(table, nominal=(), without=())
    (column,) = described.features
    assert len(column["levels"]) == MOST_LEVELS and column["rest"] and column["levels"][:60] == [f"l{i:03d}" for i in range(60)]
    assert described.remarks == ["x has 150 levels: all but the 99 most frequent ones share one"]
    codes = codes_of(pd.Series(["l000", "l149", "never seen", None, " "]), column)
    assert codes.tolist() == [0, 99, 99, -1, -1]


def test_numbers_may_be_read_as_names_and_few_words_among_numbers_are_missing():
    table = pd.DataFrame({"code": [10, 20, 10, 30] * 10, "x": ["unknown", *map(str, range(1, N))]})
    described = describe(table, nominal=("code",), without=())
    assert [(c["kind"], c["levels"]) for c in described.features] == [("nominal", ["10", "20", "30"]), ("number", [])]
    assert described.remarks == ["x is read as numbers: 1 other value counts as missing, such as 'unknown'"]
    assert np.isnan(numbers_of(table["x"], described.features[1])[0])
    assert np.isnan(numbers_of(pd.Series([1.0, np.inf]), described.features[1])).tolist() == [False, True]
