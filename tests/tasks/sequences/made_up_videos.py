"""A prepared set of a few short videos, and a tracker in memory."""

import numpy as np
import pandas as pd

from regcls.data.store import write_prepared
from regcls.tasks.sequences.data import SequenceSet
from regcls.tasks.sequences.networks import SequenceNetworks

PERSONS = {"s1": [3, 15], "s2": [16, 28], "s3": [29, 41], "s4": [42, 54]}
FRAMES = {"coffee": 55, "tea": 90}  # in the shortest video


def made_up_videos(folder):
    """Videos of eight persons, two per split, whose features are progress plus noise."""
    random, rows, features, start = np.random.default_rng(0), [], [], 0
    for activity, shortest in FRAMES.items():
        for index, person in enumerate((3, 4, 16, 17, 29, 30, 42, 43)):
            frames = shortest + 7 * index
            progress = np.linspace(0, 1, frames)[:, None]
            features.append((progress * np.linspace(-1, 1, 64) + random.normal(0, 0.1, (frames, 64))).astype(np.float32))
            rows.append((f"P{person:02d}_cam01_P{person:02d}_{activity}", person, "cam01", activity, start, frames))
            start += frames
    table = pd.DataFrame(rows, columns=["video", "person", "camera", "activity", "start", "frames"])
    made_from = {"test_persons": PERSONS, "validation_share": 1 / 3, "split_seed": 0}
    write_prepared(folder, arrays={"features": np.concatenate(features)}, table=table, made_from=made_from)
    return SequenceNetworks(SequenceSet(folder), "breakfast")


class MemoryTracker:
    """Keeps results in memory: tracking is tested in tests/tracking."""

    adopted_run, root = None, None

    def __init__(self):
        self.results, self.specs, self.metrics, self.stopped = {}, {}, {}, {}

    def finished(self, dataset):
        return {key: key for key in self.results}

    def start(self, spec, *, fingerprint, tags, adopt=False, lineage=None):
        self.specs[fingerprint] = spec
        return fingerprint

    def finish(self, run, result):
        assert run not in self.results
        self.results[run] = result

    def log_metrics(self, run, points):
        self.metrics[run] = {name: value for name, value, *_ in points}

    def stop(self, run, *, status, reason):
        self.stopped[run] = status, reason

    def deliver(self):
        pass

    def deliver_shortly(self):
        pass

    def run_id(self, run):
        return run

    def collect(self, dataset, kind):
        ended = [{"fingerprint": key, "status": "FINISHED", **result.metrics} for key, result in self.results.items()]
        diverged = [{"fingerprint": key, "status": status, **self.metrics.get(key, {})} for key, (status, _) in self.stopped.items()]
        return pd.DataFrame(ended + diverged)
