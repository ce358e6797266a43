from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from regcls.params import Params
from regcls.reports.stats import holm
from regcls.reports.tables import Table, markdown
from regcls.tasks.functions import published, shares
from regcls.tasks.functions.collected import collected
from regcls.tasks.functions.runs import expand
from tasks.functions.made_up_functions import MadeUpSets, Store, with_grids


def table_of(params: Params, *, beside: bool = True, **values: Any) -> Table:
    """Table 1 of a grid like `figure4` except for `values`."""
    grid = replace(params.datasets["functions"].grids["figure4"], **values)
    store = Store(with_grids(params, figure4=grid))
    found, _ = collected(store.runs, store.fingerprints, dataset="functions", sets=MadeUpSets())
    runs = found.of(expand(store.params.datasets["functions"], "functions", grid))
    return shares.win_table(runs, caption="Shares", with_published=beside)


@pytest.fixture(scope="module")
def three(small: Params) -> Table:
    """Three repetitions."""
    return table_of(small, repetitions=3, classes=(4, 16))


def test_one_repetition_is_no_test(small: Params) -> None:
    table = table_of(small)
    assert table.frame["p"].isna().all() and table.frame["p_holm"].isna().all() and (table.frame["repetitions"] == 1).all()
    assert "| – | n = 1 | – | 1 (20) |" in markdown(table)


def test_shares_are_tested_over_repetitions_and_adjusted_jointly(three: Table) -> None:
    frame = three.frame
    assert (frame["low"] < frame["share"])[frame["p"].notna()].all() and (frame["repetitions"] == 3).all()
    assert frame["p_holm"].tolist() == pytest.approx(holm(frame["p"].tolist()), nan_ok=True)


def test_averages_are_over_the_samplings_of_a_published_column(three: Table) -> None:
    columns = [("reg+cls", "clean", 0.0), ("reg+cls", "noisy", 0.1), ("reg+cls-bal", "clean", 0.0), ("reg+cls-bal", "noisy", 0.1)]
    assert shares.columns(three.frame) == columns
    averages = [row for row in three.rows if row[2].text == "average"]
    for (method, setting, _), row in zip(columns, averages, strict=True):
        rows = three.frame.query("method == @method and setting == @setting")
        theirs = published.table1().query("method == @method and setting == @setting and sampling in ('uniform', 'severe')")
        assert row[3].text == f"{np.mean(rows['share']):.1f}" and row[8].text == f"{theirs['published'].mean():.1f}†"
        assert [cell.text for cell in row[:2]] == [shares.KINDS[method], "clean" if setting == "clean" else "noisy σ 0.1"]


def test_data_not_in_the_paper_have_no_published_value(small: Params) -> None:
    table = table_of(small, settings=("ood",))
    assert {row[8].text for row in table.rows} == {"–"} and not any("†" in note for note in table.notes)


def test_without_published_values_there_is_no_column_or_note(small: Params, three: Table) -> None:
    table = table_of(small, beside=False, repetitions=3, classes=(4, 16))
    assert table.columns == tuple(name for name in three.columns if name != "paper")
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert {"published", "uncertain"} == set(three.frame) - set(table.frame)
    assert len(table.notes) == len(three.notes) - 1 and "paper" not in markdown(table)
