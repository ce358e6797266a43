"""Networks that cannot learn anything get no verdict: they are really trained, on targets shuffled among the samples."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from regcls.params import Params
from regcls.reports.stats import USELESS
from regcls.tasks.functions.collected import collected
from regcls.tasks.functions.networks import FunctionNetworks
from regcls.tasks.functions.runs import expand
from regcls.tasks.functions.tables import panels_table, settings_table
from regcls.training.ensemble import Trained, train
from regcls.training.ensemble_networks import Member

pytestmark = pytest.mark.usefixtures("one_thread")

SHUFFLES, SAMPLES, REPETITIONS = 20, 256, 5


class ShuffledSets:
    """Replaces the prepared data: sine waves whose targets are shuffled."""

    functions = 2

    def __init__(self, shuffle: int) -> None:
        self.shuffle = shuffle

    def get(self, data: str, sampling: str, function: int, repetition: int, split: str) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.shuffle, len(sampling), function, repetition, len(split)])
        x = rng.uniform(-1, 1, SAMPLES)
        return x.astype(np.float32), rng.permutation(np.sin((6 + 3 * function) * x)).astype(np.float32)


@pytest.mark.slow
def test_networks_that_learn_nothing_get_no_verdict(small: Params) -> None:
    functions, seeds = small.datasets["functions"], tuple(range(REPETITIONS))
    grid = replace(functions.grids["figure3"], settings=("clean",), methods=("reg", "reg+cls"), classes=(4,), repetitions=REPETITIONS)
    training = replace(functions.training, epochs=20, batch_size=64, seeds=seeds)
    functions = replace(functions, training=training, data=replace(functions.data, data_seeds=seeds))
    specs = expand(functions, "functions", grid)
    sets: list[Any] = [ShuffledSets(shuffle) for shuffle in range(SHUFFLES)]
    shuffled = [FunctionNetworks(each, "functions") for each in sets]
    trained: dict[Any, dict[str, Trained]] = {}
    for method in grid.methods:
        runs = [(networks, spec) for networks in shuffled for spec in specs if spec.method == method]
        members = [(networks, Member(spec=spec, part=part)) for networks, spec in runs for part in networks.parts]
        results = train([networks.networks([member])[0] for networks, member in members], shuffled[0].recipe(runs[0][1]))
        for (networks, member), result in zip(members, results, strict=True):
            trained.setdefault((networks, member.spec), {})[member.part] = result
    clear, useless = 0, 0
    for networks, own in zip(shuffled, sets, strict=True):
        rows = [
            {"run_id": spec.name, "status": "FINISHED", "fingerprint": spec.digest(), "started": 0}
            | asdict(spec)
            | dict(networks.result(spec, trained[networks, spec], started=0.0, ended=1.0).metrics)
            for spec in specs
        ]
        found, _ = collected(pd.DataFrame(rows), {spec: spec.digest() for spec in specs}, dataset="functions", sets=own)
        for table in (panels_table(found, with_released=False), settings_table(found)):
            assert not {"helps", "hurts"} & set(table.frame["answer"]), own.shuffle
            clear += int((table.frame["p_holm"] < 0.05).sum())
            useless += int((table.frame["answer"] == USELESS).sum())
    assert clear and useless  # some differences are real, as overfitting differs: without a constant to compare with they would be verdicts
