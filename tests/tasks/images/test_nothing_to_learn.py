"""Networks that cannot learn anything get no verdict: small ones are really trained, and the report judges their predictions."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from regcls.classes import class_ranges
from regcls.params.single import SingleGrid
from regcls.tasks.images import report
from regcls.training.ensemble import Recipe, train
from regcls.training.ensemble_data import Network
from reports.made_up import csv, small_params
from tasks.images.made_up_images import MadeUpImages, Store, with_grids

pytestmark = pytest.mark.usefixtures("one_thread")

DRAWS = 20
SPLITS = {"train": 300, "val": 100, "test": 200}
GRID = SingleGrid(methods=("reg", "reg+cls"), classes=(10,), balanced_data=False, lambdas="default", seeds=3)
RECIPE = Recipe(
    hidden=(16, 8),
    activation="relu",
    initialisation="pytorch",
    loss_over_batch="mean",
    drop_last=False,
    epochs=5,
    batch_size=32,
    optimizer="adam",
    learning_rate=0.003,
    milestones=(),
    decay=1.0,
    weight_decay=0.0,
    precision="float32",
)

Samples = Mapping[str, tuple[np.ndarray, np.ndarray]]  # split -> features (16, n), standardised targets (n,)


def drawn(draw: int, kind: str) -> Samples:
    """Skewed targets, and features of each that tell nothing about it."""
    rng = np.random.default_rng(draw)
    targets = rng.beta(2, 4, size=sum(SPLITS.values()))
    targets = (targets - targets.mean()) / targets.std()
    features = rng.normal(size=(16, len(targets)))
    if kind == "shuffled targets":
        features += np.linspace(-1, 1, 16)[:, None] * targets
        targets = rng.permutation(targets)
    places = np.split(np.arange(len(targets)), np.cumsum(list(SPLITS.values()))[:-1])
    return {split: (features[:, place], targets[place]) for split, place in zip(SPLITS, places, strict=True)}


def predictions(draws: list[Samples], method: str) -> list[list[np.ndarray]]:
    """Test predictions of the networks of each draw, a network per seed."""

    def network(data: Samples, seed: int) -> Network:
        x, y = data["train"]
        classes = None if method == "reg" else class_ranges(10, y, balanced=False)
        return Network(x=x, y=y, classes=classes, lam=1.0, seed=seed, evaluate={"test": data["test"]})

    trained = train([network(data, seed) for data in draws for seed in range(GRID.seeds)], RECIPE, predict=["test"])
    found = [network.predicted["test"] for network in trained]
    return [found[start : start + GRID.seeds] for start in range(0, len(found), GRID.seeds)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shuffled targets", "noise images"])
def test_networks_that_learn_nothing_get_no_verdict(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "error_by_target", lambda *args, **kwargs: "")  # drawing takes most of the time
    draws = [drawn(draw, kind) for draw in range(DRAWS)]
    found = {method: predictions(draws, method) for method in GRID.methods}
    params = with_grids(small_params(), table3=GRID)

    def years(values: np.ndarray) -> np.ndarray:
        return np.float32(33 + 18 * values)

    for draw, data in enumerate(draws):
        store = Store(params)
        store.data = MadeUpImages(training=years(data["train"][1]), tested=years(data["test"][1]), images=600)
        store.shots = params.datasets["imdb_wiki"].shots.groups(store.data.training).shot_of(store.data.tested)
        images = pd.DataFrame({"row": store.data.rows("test"), "target": store.data.tested})
        for run_id, spec in zip(store.tables, store.fingerprints, strict=True):
            store.tables[run_id] = images.assign(prediction=years(found[spec.method][draw][spec.seed]))
        judged = store.report(runs=store.tracked())
        assert not {"helps", "hurts"} & set(csv(judged, "table3_differences")["answer"]), draw
