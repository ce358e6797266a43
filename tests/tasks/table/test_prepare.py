"""From a raw table to prepared features, targets and folds."""

import numpy as np
import pandas as pd
import pytest

from regcls.errors import UserError
from regcls.params import load_params, parse_options
from regcls.tasks import task_named
from regcls.tasks.table.model import codes_of
from regcls.tasks.table.networks import TableNetworks
from regcls.tasks.table.trees import fit
from tasks.table.conftest import messy_table


def test_a_messy_table_is_understood_and_said(prepared):
    table = messy_table()
    data, lines = prepared(table)
    assert [column["name"] for column in data.columns] == ["Area", "town", "pool", "built", "rooms", "owner"]
    kinds = ["3 numbers: Area, rooms, owner", "1 nominal column: town", "1 boolean: pool", "1 date: built"]
    assert lines[:5] == ["120 rows, 6 features, 20 missing values", *kinds]
    assert lines[5].startswith(f"price: {table['Price'].min():g} to {table['Price'].max():g} $, median ")
    assert lines[6:] == [
        "3 folds; rows of the first: 40 train, 40 val, 40 test",
        "left out, numbers of the rows: id",
        "left out, with one value only: country",
    ]
    assert np.array_equal(data.targets, table["Price"])


def test_inputs_are_standardised_by_training_rows_alone(prepared):
    table = messy_table()
    data, _ = prepared(table)
    part = data.parts[0]
    rows, fitted = data.rows(part, "train"), data.fitted(part)
    inputs = data.inputs(part, "train", fitted)
    area = table["Area"].to_numpy()
    expected = (area - area[rows].mean()) / area[rows].std()
    assert inputs.dtype == np.float32 and inputs.shape == (data.size, len(rows)) and data.size == 5 + 1 + 3
    assert inputs[0] == pytest.approx(expected[rows], abs=1e-5)
    assert data.inputs(part, "test", fitted)[0] == pytest.approx(expected[data.rows(part, "test")], abs=1e-5)
    rooms = table["rooms"].to_numpy()[rows]
    median, mean, deviation = np.nanmedian(rooms), np.nanmean(rooms), np.nanstd(rooms)
    assert inputs[3] == pytest.approx((np.where(np.isnan(rooms), median, rooms) - mean) / deviation, abs=1e-5)
    assert np.array_equal(inputs[5], np.isnan(rooms)), "the indicator of missing rooms"
    towns = table["town"].to_numpy()[rows]
    assert all(np.array_equal(inputs[6 + k], towns == town) for k, town in enumerate(["Ulm", "Köln", "Bad; Ems"]))


def test_levels_and_missing_values_that_training_has_not_seen_are_zero(prepared):
    table = messy_table().assign(town="Ulm")
    table.loc[7, "town"], table.loc[7, "rooms"] = "Rom", None
    table["rooms"] = table["rooms"].fillna(3).where(table.index != 7)
    data, _ = prepared(table)
    part = next(part for part in data.parts if 7 in data.rows(part, "test"))
    fitted, place = data.fitted(part), list(data.rows(part, "test")).index(7)
    assert data.inputs(part, "test", fitted)[5:, place].tolist() == [0, 0, 0], "indicator, Ulm, Rom"
    other = next(part for part in data.parts if 7 in data.rows(part, "train"))
    assert data.inputs(other, "train", data.fitted(other))[5:, list(data.rows(other, "train")).index(7)].tolist() == [1, 0, 1]


def test_every_row_is_tested_once_in_each_repeat_and_validated_in_the_fold_before(prepared):
    data, _ = prepared(messy_table(), data={"folds": 4, "repeats": 2})
    assert data.parts == tuple(f"fold_{i}" for i in range(1, 9))
    for repeat in (data.parts[:4], data.parts[4:]):
        assert np.array_equal(np.sort(np.concatenate([data.rows(part, "test") for part in repeat])), np.arange(120))
        for part, following in zip(repeat, [*repeat[1:], repeat[0]], strict=True):
            assert np.array_equal(data.rows(part, "val"), data.rows(following, "test"))
            assert len(np.unique(np.concatenate([data.rows(part, split) for split in ("train", "val", "test")]))) == 120
    assert not np.array_equal(data.rows("fold_1", "test"), data.rows("fold_5", "test"))


def test_folds_are_drawn_from_the_seed(prepared):
    tests = [prepared(messy_table(), data={"split_seed": seed})[0].rows("fold_1", "test") for seed in (0, 0, 1)]
    assert np.array_equal(tests[0], tests[1]) and not np.array_equal(tests[0], tests[2])


def test_rows_of_a_group_share_a_fold(prepared):
    table = messy_table()
    data, _ = prepared(table, data={"group": "OWNER"})
    assert "owner" not in [column["name"] for column in data.columns]
    for part in data.parts:
        owners = [set(table["owner"].to_numpy()[data.rows(part, split)]) for split in ("train", "val", "test")]
        assert not owners[0] & owners[1] and not owners[0] & owners[2] and not owners[1] & owners[2]


def test_a_column_may_name_the_split(prepared):
    table = messy_table().assign(Fold=["Train", "dev", "testing", "training"] * 30)
    data, lines = prepared(table, data={"split": "fold", "folds": "auto"})
    assert data.parts == ("split",) and "1 split; rows of the first: 60 train, 30 val, 30 test" in lines
    assert data.rows("split", "val").tolist() == list(range(1, 120, 4)) and "Fold" not in [column["name"] for column in data.columns]


def test_one_fold_is_one_split(prepared):
    data, lines = prepared(messy_table(), data={"folds": 1})
    assert data.parts == ("split",) and "1 split; rows of the first: 72 train, 24 val, 24 test" in lines


def test_few_groups_make_few_folds(prepared):
    data, _ = prepared(messy_table().assign(owner=np.arange(120) % 4), data={"group": "owner", "folds": "auto"})
    assert len(data.parts) == 4


def test_what_training_rows_have_not_seen_says_nothing(prepared):
    """A column with one value, or none, in the training rows of a part: later values must not reach weights that were never trained."""
    table = messy_table(90).drop(columns=["id", "town", "pool", "built", "country"]).assign(dose=0.0, lab=np.nan)
    table.loc[4, ["dose", "lab"]] = 5000.0
    table.loc[5, "lab"] = 4000.0
    data, _ = prepared(table)
    assert [column["name"] for column in data.columns] == ["Area", "rooms", "owner", "dose", "lab"]
    part = next(part for part in data.parts if 4 in data.rows(part, "test"))
    inputs = data.inputs(part, "test", data.fitted(part))
    assert np.isfinite(inputs).all() and not inputs[3].any()
    assert np.isfinite(data.inputs(part, "val", data.fitted(part))).all()
    trees = fit(TableNetworks(data, "houses"), task_named("table").single_spec(load_params(data.prepared.folder.parents[2] / "params.yaml").datasets["houses"], "houses", parse_options("table", {"method": "hgb"})), part)  # fmt: skip
    assert np.isfinite(trees.predicted["test"]).all()


def test_a_code_for_missing_that_training_has_not_seen_is_at_most_ten_deviations_away(prepared):
    table = messy_table(90)
    table.loc[4, "Area"] = 9_999_999.0
    data, _ = prepared(table)
    part = next(part for part in data.parts if 4 in data.rows(part, "test"))
    inputs = data.inputs(part, "test", data.fitted(part))[0]
    assert inputs.max() == 10 and np.sort(inputs)[-2] < 5


def test_names_that_are_numbers_are_the_same_with_and_without_missing_ones(prepared):
    table = messy_table().assign(zip=np.arange(120) % 3 + 10.0)
    table.loc[7, "zip"] = None
    data, _ = prepared(table, data={"nominal": ["zip"]})
    column = next(column for column in data.columns if column["name"] == "zip")
    assert list(column["levels"]) == ["10", "12", "11"], "by frequency"
    assert codes_of(pd.Series([10, 12, 99]), column).tolist() == [0, 1, -1] == codes_of(pd.Series([10.0, 12.0, 99.0]), column).tolist()


def test_five_folds_and_ten_below_500_rows(prepared):
    assert len(prepared(messy_table(499), data={"folds": "auto"})[0].parts) == 10
    assert len(prepared(messy_table(500), data={"folds": "auto"})[0].parts) == 5


def test_rows_without_a_target_are_left_out_and_equal_rows_said(prepared):
    table = messy_table().drop(columns="id")
    table.loc[[3, 5], "Price"] = None
    table.loc[10:12] = table.loc[[20, 20, 20]].to_numpy()
    data, lines = prepared(table)
    assert len(data.targets) == 118 and "left out: 2 rows without a target" in lines
    assert "3 rows are equal to another: networks may be tested on rows they were trained on" in lines


def test_targets_that_differ_only_in_late_digits_stay_distinct(prepared):
    table = messy_table()
    table["Price"] = 20_000_000 + np.arange(120)
    data, _ = prepared(table)
    mean, deviation = data.fitted(data.parts[0])["target"]
    assert len(np.unique(((data.targets - mean) / deviation).astype(np.float32))) == 120


@pytest.mark.parametrize(
    ("change", "data", "message"),
    [
        ({"Price": "cheap"}, {}, "houses.csv, row 1 below the header, and 119 more: Price = 'cheap' is not a number"),
        ({"Price": 7}, {}, "Price is 7 in every row|price is 7 in every row: there is nothing to learn"),
        ({}, {"target": "prices"}, "has no column prices; did you mean Price"),
        ({}, {"target": "cost"}, "has no column cost; there are id, Area, town"),
        ({}, {"group": "onwer"}, "has no column onwer; did you mean owner"),
        ({}, {"ignore": ["x"]}, "has no column x; there are id, Area, town, pool, built, rooms, owner, country"),
        ({"split": "other"}, {"split": "split", "folds": "auto"}, "row 1 below the header: split = 'other': write train, val or test"),
        ({"split": "train"}, {"split": "split", "folds": "auto"}, "split names no row for test; it has train"),
        ({"owner": 1}, {"group": "owner", "folds": "auto"}, r"has 1 group \(owner\), too few for 3 folds"),
        ({}, {"ignore": ["Area", "town", "pool", "built", "rooms", "owner"]}, "has no column to predict price from"),
    ],
)
def test_mistakes_in_words(prepared, change, data, message):
    with pytest.raises(UserError, match=message):
        prepared(messy_table().assign(**change), data=data)


@pytest.mark.parametrize(
    ("value", "message"), [("1e39", "is too large for networks"), ("inf", "is not a number"), ("12,5 EUR", "is not a number")]
)
def test_one_bad_target_is_named_with_its_row(prepared, value, message):
    table = messy_table().astype({"Price": object})
    table.loc[4, "Price"] = value
    with pytest.raises(
        UserError, match=f"row 5 below the header: Price = '?{value}'? {message}|row 5 below the header: Price = .* {message}"
    ):
        prepared(table)


def test_a_handful_of_rows_is_refused(prepared):
    with pytest.raises(UserError, match="has 5 rows with a target: 20 are the fewest to learn and test with"):
        prepared(messy_table()[:5])


def test_wide_tables_of_embeddings_are_prepared(prepared):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(60, 3000)).round(3)).add_prefix("e").assign(price=rng.normal(size=60))
    data, lines = prepared(table)
    assert data.size == 3000 and lines[0] == "60 rows, 3,000 features, 0 missing values"
