"""Relevance of targets and SERA, against the printed numbers of rare cases and against plain loops."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from regcls.relevance import RARE, Relevance, sera

# Rare cases of public tables, as Branco, Torgo and Ribeiro print them (2019, Table 1).
PRINTED = {
    "Abalone": (4177, 679), "Accel": (1732, 89), "a1": (198, 28), "a2": (198, 22), "a3": (198, 32), "a6": (198, 33), "a7": (198, 27),
    "availPwr": (1802, 157), "bank8FM": (4499, 288), "boston": (506, 65),
}  # fmt: skip


@pytest.fixture(scope="module")
def public_targets():
    """The targets of the public tables, by name: distinct values with their numbers of rows."""
    counts = pd.read_csv(Path(__file__).with_name("public_targets.csv.gz"))
    return {name: np.repeat(part["target"], part["rows"]).to_numpy() for name, part in counts.groupby("table")}


@pytest.mark.parametrize("name", PRINTED)
def test_the_rare_cases_of_public_tables_are_as_many_as_printed(public_targets, name):
    targets = public_targets[name]
    assert (len(targets), int((Relevance.of(targets)(targets) > RARE).sum())) == PRINTED[name]


def test_relevance_rises_from_the_median_to_the_whiskers_and_is_constant_beyond():
    targets = np.concatenate([np.arange(101.0), [300.0, -250.0]])  # outliers on both sides
    relevance = Relevance.of(targets)
    assert relevance([-1000.0, 0.0, 50.0, 100.0, 1000.0]) == pytest.approx([1, 1, 0, 1, 1])
    assert relevance([25.0, 75.0]) == pytest.approx([0.5, 0.5]), "a cubic with slope 0 at both ends is half way up in the middle"
    rising = relevance(np.linspace(50, 100, 30))
    assert (np.diff(rising) > 0).all()


def test_a_side_without_outliers_is_not_relevant():
    relevance = Relevance.of([*range(101), 300])
    assert relevance([0.0, 10.0, 49.0]) == pytest.approx([0, 0, 0]) and relevance([100.0]) == pytest.approx([1])
    assert not Relevance.of(np.arange(50.0))(np.arange(50.0)).any(), "no outliers at all"
    assert not Relevance.of([3.0, 3.0, 3.0])([1.0, 3.0, 5.0]).any(), "one value"


def test_outliers_are_relevant_though_most_targets_are_equal():
    rain = Relevance.of([0.0] * 90 + [*range(1, 11)])
    assert rain([0.0, 1.0, 10.0]) == pytest.approx([0, 1, 1]) and 0 < rain([0.5])[0] < 1


def test_relevance_needs_finite_targets():
    for targets in ([], [1.0, np.nan], [np.inf]):
        with pytest.raises(ValueError, match="finite"):
            Relevance.of(targets)


def test_sera_is_the_area_under_the_squared_errors_of_ever_more_relevant_samples():
    rng = np.random.default_rng(0)
    errors, relevance = rng.normal(size=200), rng.uniform(size=200)
    relevance[:20], relevance[-20:] = 0.0, 1.0
    steps = np.linspace(0, 1, 1001)
    plain = np.trapezoid([np.sum(errors[relevance >= t] ** 2) for t in steps], steps)
    assert sera(errors, relevance) == pytest.approx(plain, rel=2e-3), "the same, in steps"
    assert sera([2.0, 1.0], [1.0, 1.0]) == pytest.approx(5), "all relevant: the sum of squares"
    assert sera([2.0, 1.0], [0.0, 1.0]) == pytest.approx(1)
    assert sera(np.zeros(5), np.ones(5)) == 0
