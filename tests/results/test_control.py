"""The comparison with the control in results/why follows from its networks."""

from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from conftest import ROOT
from scripts import script

FOLDER = ROOT / "results" / "why"


@pytest.fixture(scope="module")
def control() -> ModuleType:
    return script(FOLDER, "control")


def test_the_committed_tables_are_those_of_the_networks(control: ModuleType, tmp_path: Path) -> None:
    control.main(tmp_path)
    for path in tmp_path.glob("*.csv"):
        pd.testing.assert_frame_equal(pd.read_csv(path), pd.read_csv(FOLDER / path.name))
    for path in tmp_path.glob("*.md"):
        assert path.read_text(encoding="utf-8") == (FOLDER / path.name).read_text(encoding="utf-8")
    assert len(list(tmp_path.iterdir())) == 9


def test_differences_are_paired_by_repetition(control: ModuleType) -> None:
    networks = pd.read_csv(FOLDER / "runs_decay.csv.gz").query("setting == 'noisy' and sampling == 'severe' and classes == 16")
    by_lambda = {lam: part.groupby("repetition")["test_mse"].mean() for lam, part in networks.groupby("lambda")}
    gaps = by_lambda[1e8] - by_lambda[1000.0]
    rows = pd.read_csv(FOLDER / "control_classes.csv").query("setting == 'noisy' and sampling == 'severe' and classes == 16")
    row = rows[rows["what"] == control.KINDS[2]].iloc[0]
    assert row["gap"] == pytest.approx(gaps.mean(), rel=1e-6) and row["high"] - row["low"] == pytest.approx(
        2 * 2.7764451 * gaps.sem(), rel=1e-5
    )
