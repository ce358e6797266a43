import numpy as np
import pandas as pd
import pytest

from regcls.errors import UserError
from regcls.reports.collect import Collected, collect, hole_lines
from regcls.tasks.functions.runs import FunctionSpec
from reports.made_up import FUNCTIONS

FIRST = 0  # clean, uniform, reg, seed 0


def of(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]) -> Collected:
    return collect(runs, fingerprints, dataset="functions", functions=FUNCTIONS)


def state(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]) -> str:
    return str(of(runs, fingerprints).wanted["state"][FIRST])


def test_every_finished_run_gives_a_row_a_function(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]) -> None:
    networks = of(runs, fingerprints).networks
    assert len(networks) == FUNCTIONS * len(fingerprints)
    seventh = networks[(networks["run_id"] == runs["run_id"][3]) & (networks["function"] == 7)]
    assert seventh["test_mse"].tolist() == [runs["functions/test_mse_7"][3]]


@pytest.mark.parametrize(("status", "reason"), [("FAILED", "failed"), ("KILLED", "killed"), ("RUNNING", "not finished")])
def test_a_run_that_did_not_finish_is_a_hole_of_its_kind(
    status: str, reason: str, runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]
) -> None:
    runs["status"] = runs["status"].where(runs.index != FIRST, status)
    assert state(runs, fingerprints) == reason


def test_a_missing_run_is_a_hole(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]) -> None:
    assert state(runs.drop(index=FIRST), fingerprints) == "missing"


def test_a_run_of_other_code_or_data_is_named_and_not_used(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]) -> None:
    runs.loc[FIRST, "fingerprint"] = "another"
    collected = of(runs, fingerprints)
    assert collected.wanted["state"][FIRST] == "made with other code or data"
    assert collected.stale == (runs["run_id"][FIRST],) and runs["run_id"][FIRST] not in set(collected.networks["run_id"])


def test_a_run_that_params_yaml_does_not_ask_for_is_neither_used_nor_stale(
    runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]
) -> None:
    other = runs.iloc[[FIRST]].assign(run_id="other", fingerprint="other", epochs=7)
    collected = of(pd.concat([runs, other]), fingerprints)
    assert collected.stale == () and "other" not in set(collected.networks["run_id"])


def test_of_two_finished_runs_the_earliest_counts_and_the_other_is_reported(
    runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]
) -> None:
    later = runs.iloc[[FIRST]].assign(run_id="later", started=2e9)
    collected = of(pd.concat([later, runs]), fingerprints)
    assert collected.duplicates == ("later",)
    assert len(collected.networks) == FUNCTIONS * len(fingerprints)


@pytest.mark.parametrize("mse", [np.nan, np.inf])
def test_a_run_without_a_finite_mse_is_a_hole_and_not_in_a_mean(
    mse: float, runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]
) -> None:
    runs.loc[FIRST, "functions/test_mse_4"] = mse
    assert state(runs, fingerprints) == "without a finite MSE"


def test_holes_are_named_by_cell_and_seed(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]) -> None:
    lines = hole_lines(of(runs.drop(index=FIRST), fingerprints).wanted)
    assert lines == ["clean, uniform · reg: 1 of 2 repetitions (missing: seed 0)"]


def test_no_matching_run_is_an_error_that_says_what_to_do(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]) -> None:
    for found in (runs.assign(fingerprint="x"), runs.iloc[:0], pd.DataFrame()):
        with pytest.raises(UserError, match=r"Train them with: regcls train functions \(or: dvc repro -f train@functions\)") as error:
            of(found, fingerprints)
        assert str(error.value).count("\n") == 1
