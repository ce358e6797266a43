"""The tables of results/section2 follow from its runs.csv.gz."""

import io
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from conftest import ROOT
from scripts import script

FOLDER = ROOT / "results" / "section2"


@pytest.fixture(scope="module")
def collect() -> ModuleType:
    return script(FOLDER, "collect")


def test_the_committed_tables_are_those_of_the_networks(collect: ModuleType) -> None:
    for name, text in collect.made(collect.read(FOLDER / "runs.csv.gz")).items():
        committed = (FOLDER / name).read_text(encoding="utf-8")
        if name.endswith(".csv"):
            pd.testing.assert_frame_equal(pd.read_csv(io.StringIO(text)), pd.read_csv(io.StringIO(committed)))
        else:
            assert text == committed, name


def test_missing_networks_make_holes_and_do_not_count(collect: ModuleType, tmp_path: Path) -> None:
    runs = pd.read_csv(FOLDER / "runs.csv.gz")
    severe = (runs["sampling"] == "severe") & (runs["repetition"] == 2) & (runs["method"] == "reg")
    runs.drop(runs[severe & (runs["function"] == 9)].index).to_csv(tmp_path / "runs.csv", index=False)
    grids = collect.read(tmp_path / "runs.csv")
    lost = grids["figure3"].wanted.query("state == 'missing'")
    assert lost[["setting", "sampling", "method", "repetition"]].values.tolist() == [
        [s, "severe", "reg", 2] for s in ("clean", "noisy", "ood")
    ]
    panels = collect.classes_tables.balanced_table(grids["figure3"].networks, "").frame
    repetitions = panels.groupby("sampling")["uniform_n"].max()
    assert repetitions.to_dict() == {"uniform": 5, "mild": 5, "moderate": 5, "severe": 4}
    assert collect.hole_lines(grids["figure4"].runs)[0] == "clean, severe · reg: 2 of 3 repetitions (missing: seed 8125)"


def test_shares_and_differences_agree_with_a_plain_loop(collect: ModuleType) -> None:
    four = collect.read(FOLDER / "runs.csv.gz")["figure4"]
    networks = four.networks.query("setting == 'noisy' and sampling == 'severe'")
    reg = networks.query("method == 'reg'").set_index(["repetition", "function"])["val_mse"]
    wins = {
        method: [row.val_mse < reg[row.repetition, row.function] for row in networks.query("method == @method").itertuples()]
        for method in ("reg+cls", "reg+cls-bal")
    }
    table = pd.read_csv(FOLDER / "table1_balanced.csv").query("setting == 'noisy' and sampling == 'severe'").iloc[0]
    uniform, balanced = (100 * sum(won) / len(won) for won in wins.values())
    assert table["share_reg+cls"] == pytest.approx(uniform) and table["share_gap"] == pytest.approx(balanced - uniform)
