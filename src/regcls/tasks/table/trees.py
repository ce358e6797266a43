"""The reference beside the networks: gradient-boosted trees of scikit-learn, with its defaults, on the same folds."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from regcls.processes import uninterrupted
from regcls.progress import progress
from regcls.tasks.table.networks import TableNetworks
from regcls.tasks.table.runs import TableSpec
from regcls.training.ensemble import Trained
from regcls.training.outcome import Outcome, index_of, repeating, why_stopped

MANY_ROWS = 20_000  # with fewer, threads cost more than they gain, and wait for each other on a busy machine

if TYPE_CHECKING:
    from regcls.tracking.tracker import Tracker


def train_trees(
    networks: TableNetworks,
    wanted: Mapping[TableSpec, str],
    tracker: "Tracker",
    tags: Mapping[str, str],
    *,
    lineage: Mapping[str, Any] | None = None,
    adopt: bool = False,
    repeats: str | None = None,
) -> Outcome:
    """Fit and track every run of `wanted` that is not FINISHED in the store. Arguments: see `ensemble_study.train_runs`."""
    finished = {} if repeats or (adopt and tracker.adopted_run) else tracker.finished(networks.dataset)
    missing = {spec: key for spec, key in wanted.items() if key not in finished}
    tags, ended = {**tags, **repeating(repeats), "data_digest": networks.table.digest[:32]}, dict[str, tuple[str, str]]()
    with progress(max(1, len(missing) * len(networks.parts)), "fitting trees") as advance:
        for spec, key in missing.items():
            started = time.time()
            with uninterrupted():
                run = tracker.start(spec, fingerprint=key, tags=tags, adopt=adopt, lineage=lineage)
            try:
                trained = {}
                for part in networks.parts:
                    trained[part] = fit(networks, spec, part)
                    advance(1)
                result = networks.result(spec, trained, started=started, ended=time.time())
            except BaseException as error:
                with uninterrupted():
                    tracker.stop(run, status="KILLED", reason=why_stopped(error))
                    tracker.deliver_shortly()
                raise
            with uninterrupted():
                tracker.finish(run, result)
            ended[key] = (run, "FINISHED")
    tracker.deliver()
    index = index_of(wanted, finished, {key: (tracker.run_id(run), status) for key, (run, status) in ended.items()})
    return Outcome(trained=len(ended), kept=len(wanted) - len(missing), failed=[], index=index)


def fit(networks: TableNetworks, spec: TableSpec, part: str) -> Trained:
    """Fit trees on the training rows of a part; predictions are of standardised targets, as the networks' are."""
    from sklearn.ensemble import HistGradientBoostingRegressor  # type: ignore[import-untyped]  # here: it takes a second
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    table = networks.table
    frame = table.raw_frame(table.rows(part, "train")).dropna(axis="columns", how="all")
    nominal = [str(name).startswith("code_") for name in frame]
    trees = HistGradientBoostingRegressor(random_state=spec.seed, categorical_features=nominal)
    with threadpool_limits(1 if len(frame) < MANY_ROWS else None):
        trees.fit(frame, networks.targets(part, "train"))
        predicted = {split: trees.predict(table.raw_frame(table.rows(part, split))[list(frame)]) for split in ("val", "test")}
    return Trained(weights={}, train_mse=np.zeros(0), evaluated={}, predicted=predicted, accuracy={}, finite=True)
