import numpy as np
import pandas as pd
import pytest

from regcls.errors import UserError
from regcls.reports.picking import Picked
from regcls.tasks.functions.collected import Collected, collected, hole_lines, in_order
from regcls.tasks.functions.runs import FunctionSpec
from tasks.functions.made_up_functions import FUNCTIONS, MadeUpSets

FIRST = 0  # clean, uniform, reg, seed 0


def collect(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]) -> tuple[Collected, Picked]:
    return collected(runs, fingerprints, dataset="functions", sets=MadeUpSets())


def state(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]) -> str:
    return str(collect(runs, fingerprints)[0].wanted["state"][FIRST])


def test_every_finished_run_gives_a_row_per_function(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]) -> None:
    networks = collect(runs, fingerprints)[0].networks
    assert len(networks) == FUNCTIONS * len(fingerprints)
    seventh = networks[(networks["run_id"] == runs["run_id"][3]) & (networks["function"] == 7)]
    assert seventh["val_mse"].tolist() == [runs["val/mse/function_7"][3]] and seventh["train_mse"].tolist() == [
        runs["train/mse/function_7"][3]
    ]
    assert seventh["test_mse"].tolist() == [runs["test/mse/function_7"][3]]


@pytest.mark.parametrize(("status", "reason"), [("FAILED", "failed"), ("KILLED", "killed"), ("RUNNING", "not finished")])
def test_an_unfinished_run_counts_as_missing_with_its_reason(
    status: str, reason: str, runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]
) -> None:
    runs["status"] = runs["status"].where(runs.index != FIRST, status)
    assert state(runs, fingerprints) == reason


def test_a_run_not_in_the_store_counts_as_missing(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]) -> None:
    assert state(runs.drop(index=FIRST), fingerprints) == "missing"


def test_runs_of_other_code_or_data_are_reported_and_not_used(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]) -> None:
    runs.loc[FIRST, "fingerprint"] = "another"
    found, picked = collect(runs, fingerprints)
    assert found.wanted["state"][FIRST] == "made with other code or data"
    assert picked.stale == (runs["run_id"][FIRST],) and runs["run_id"][FIRST] not in set(found.networks["run_id"])


def test_a_run_not_in_params_yaml_is_neither_used_nor_stale(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]) -> None:
    other = runs.iloc[[FIRST]].assign(run_id="other", fingerprint="other", epochs=7)
    found, picked = collect(pd.concat([runs, other]), fingerprints)
    assert picked.stale == () and "other" not in set(found.networks["run_id"])


def test_the_earliest_of_two_finished_runs_counts(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]) -> None:
    later = runs.iloc[[FIRST]].assign(run_id="later", started=2e9)
    found, picked = collect(pd.concat([later, runs]), fingerprints)
    assert picked.duplicates == ("later",)
    assert len(found.networks) == FUNCTIONS * len(fingerprints)


@pytest.mark.parametrize("mse", [np.nan, np.inf])
@pytest.mark.parametrize("split", ["val", "test"])
def test_a_run_without_a_finite_error_is_missing_from_means(
    mse: float, split: str, runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]
) -> None:
    runs.loc[FIRST, f"{split}/mse/function_4"] = mse
    assert state(runs, fingerprints) == "without a finite error"
    assert runs["run_id"][FIRST] not in set(collect(runs, fingerprints)[0].networks["run_id"])


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_metric_changed_in_the_store_is_named_and_its_run_left_out(
    split: str, runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]
) -> None:
    changed = runs.assign(**{f"{split}/mse/function_3": runs[f"{split}/mse/function_3"].mask(runs.index == 0, 0.001)})
    found, _ = collected(changed, fingerprints, dataset="functions", sets=MadeUpSets())
    assert found.wanted["state"].tolist()[0] == f"with errors by function that contradict {split}/mse/all"
    assert (found.wanted["state"].iloc[1:] == "finished").all()


def test_a_run_lacking_functions_counts_as_missing(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]) -> None:
    with pytest.raises(UserError, match=r"\(without a finite error\)"):
        collect(runs.drop(columns="test/mse/function_9"), fingerprints)


def test_missing_runs_are_listed_by_cell_and_seed(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]) -> None:
    lines = hole_lines(collect(runs.drop(index=FIRST), fingerprints)[0].runs)
    assert lines == ["clean, uniform · reg: 1 of 2 repetitions (missing: seed 0)"]


def test_without_matching_runs_the_error_says_what_to_do(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]) -> None:
    for found in (runs.assign(fingerprint="x"), runs.iloc[:0], pd.DataFrame()):
        with pytest.raises(UserError, match=r"Train them with: regcls train functions \(or: dvc repro -fs train@functions\)") as error:
            collect(found, fingerprints)
        assert str(error.value).count("\n") == 1


def test_settings_and_samplings_are_in_the_papers_order(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]) -> None:
    whole, _ = collect(runs, fingerprints)
    specs = [spec for spec in fingerprints if spec.method == "reg" and spec.noise in (0, 0.1) and spec.seed == 0]
    part = whole.of(reversed(specs))
    panels = [(setting, sampling) for setting in ("clean", "noisy", "ood") for sampling in ("uniform", "severe")]
    assert list(in_order(part.networks)[["setting", "sampling"]].drop_duplicates().itertuples(index=False, name=None)) == panels
    assert list(part.runs.in_order(part.wanted)[["setting", "sampling"]].itertuples(index=False, name=None)) == panels
    assert set(part.networks["run_id"]) == {runs["run_id"][list(fingerprints).index(spec)] for spec in specs}
