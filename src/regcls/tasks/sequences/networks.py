"""From a run on videos to its networks, and from trained networks to its result. With the engine, this code decides every number."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regcls.classes import ClassRanges, equalised, uniform_ranges
from regcls.methods import engine_loss, make_distribution
from regcls.runs import RunResult
from regcls.tasks.sequences.code import result_code
from regcls.tasks.sequences.data import Part, SequenceSet
from regcls.tasks.sequences.runs import SequenceSpec
from regcls.training.ensemble import Recipe, Trained
from regcls.training.ensemble_data import Network, padded_to
from regcls.training.ensemble_networks import ClassCounter, Member, mean_accuracy, quietly

PREDICTIONS = "predictions.parquet"  # artifact of a run
TEST_BLOCK = 40  # consecutive frames per batch of the released test code, which averages the RMSE of batches

SequenceMember = Member[SequenceSpec]
Samples = tuple[NDArray[np.float32], NDArray[np.float64]]


class SequenceNetworks:
    """The networks of runs: one per activity."""

    part_name = "activity"
    every_epoch: Sequence[str] = ()
    predict: Sequence[str] = ("test",)

    def __init__(self, videos: SequenceSet, dataset: str) -> None:
        self.videos, self.dataset, self.parts = videos, dataset, videos.activities
        self.inputs = videos.features.shape[1]
        self._rows: dict[tuple[str, str, Part, bool], pd.DataFrame] = {}
        self._balanced = ClassCounter()

    def remarks(self) -> Sequence[str]:
        """See `ClassCounter.remarks`."""
        return self._balanced.remarks()

    def reopened(self) -> Callable[[], "SequenceNetworks"]:
        """A function that opens the same data in another process."""
        return partial(_open, self.videos.prepared.folder, self.dataset)

    def result_code(self) -> str:
        """Digest of the code that decides a result, along with the spec and the data."""
        return result_code()

    def digest(self, spec: SequenceSpec) -> str:
        """SHA-256 over the data."""
        return self.videos.digest

    def recipe(self, spec: SequenceSpec) -> Recipe:
        """The part of a spec that jointly trained networks must share."""
        h1, h2 = spec.hidden
        return Recipe(
            hidden=(h1, h2),
            activation=spec.activation,
            initialisation="normal" if spec.activation == "sigmoid" else "pytorch",
            loss=engine_loss(spec.method),
            distribution=make_distribution(spec.method),
            loss_over_batch="sum",
            drop_last=False,
            epochs=spec.epochs,
            batch_size=spec.batch_size,
            optimizer=spec.optimizer,
            learning_rate=spec.learning_rate,
            milestones=spec.milestones,
            decay=spec.decay,
            weight_decay=spec.weight_decay,
            precision=spec.precision,
        )

    def samples(self, member: SequenceMember) -> int:
        """Number of training frames."""
        return int(self._videos(member, "train")["frames"].sum())

    def order(self, spec: SequenceSpec) -> tuple[object, ...]:
        """Sort key that puts runs on the same frames next to each other."""
        return spec.method, spec.activation, spec.held_out, spec.split, spec.unit

    def head_classes(self, member: SequenceMember) -> int:
        """Number of classes of the head, K: 0 without classes, C for uniform ranges, possibly fewer for equalised ones."""
        spec = member.spec
        if not spec.balanced:
            return spec.classes
        key = (*_key(member, "train"), spec.unit, spec.classes, spec.rounding)
        return self._balanced(key, lambda: self._ranges(member, self._targets(member, "train")))

    def networks(self, members: Sequence[SequenceMember]) -> list[Network]:
        """The networks with their data; networks on the same frames share the arrays, which the engine relies on."""
        frames: dict[tuple[str, str, Part, bool], NDArray[np.float32]] = {}
        targets: dict[tuple[str, str, Part, bool, str], NDArray[np.float64]] = {}

        def load(member: SequenceMember, part: Part) -> Samples:
            key = _key(member, part)
            if key not in frames:
                frames[key] = self._frames(member, part)
            if (with_unit := (*key, member.spec.unit)) not in targets:
                targets[with_unit] = self._targets(member, part)
            return frames[key].T, targets[with_unit]

        return [self._network(member, load) for member in members]

    def _network(self, member: SequenceMember, load: Callable[[SequenceMember, Part], Samples]) -> Network:
        spec = member.spec
        x, y = load(member, "train")
        classes = quietly(lambda: self._ranges(member, y)) if spec.classes else None
        evaluated: tuple[Part, ...] = ("val", "test") if spec.held_out else ("test",)
        lam = 1.0 if spec.lam is None else spec.lam
        return Network(
            x=x,
            y=y,
            classes=classes,
            padded_to=padded_to(spec.classes, spec.batch_size),
            lam=lam,
            seed=spec.seed,
            evaluate={part: load(member, part) for part in evaluated},
        )

    def _ranges(self, member: SequenceMember, targets: NDArray[np.float64]) -> ClassRanges:
        """C ranges over [0, 1] or, in frames, up to the longest training video; equalised over `targets` for balanced classes."""
        spec = member.spec
        highest = 1.0 if spec.unit == "percent" else float(self._videos(member, "train")["frames"].max())
        ranges = uniform_ranges(spec.classes, 0.0, highest)
        if not spec.balanced:
            return ranges
        assert spec.rounding
        return equalised(ranges, targets, rounding=spec.rounding)

    def _videos(self, member: SequenceMember, part: Part) -> pd.DataFrame:
        key = _key(member, part)
        if key not in self._rows:
            self._rows[key] = self.videos.videos(member.part, member.spec.split, part, held_out=member.spec.held_out)
        return self._rows[key]

    def _frames(self, member: SequenceMember, part: Part) -> NDArray[np.float32]:
        """Features of all frames (N, 64), video by video."""
        features, rows = self.videos.features, self._videos(member, part)
        return np.concatenate([features[start : start + count] for start, count in zip(rows["start"], rows["frames"], strict=True)])

    def _targets(self, member: SequenceMember, part: Part) -> NDArray[np.float64]:
        """Targets (N,): the frame index from 0 on, or that divided by the video's number of frames."""
        counts = self._videos(member, part)["frames"]
        return np.concatenate([np.arange(n) / (n if member.spec.unit == "percent" else 1) for n in counts])

    def result(self, spec: SequenceSpec, trained: Mapping[str, Trained], *, started: float, ended: float) -> RunResult:
        """The result of a run: errors by activity, their means and (test) standard deviations; weights by activity; test predictions."""
        activities = [activity for activity in self.parts if activity in trained]
        by_activity = {activity: self._errors(Member(spec=spec, part=activity), trained[activity]) for activity in activities}
        errors = {name: np.array([by_activity[a][name] for a in activities]) for name in by_activity[activities[0]]}
        metrics = {f"{name}/all": float(values.mean()) for name, values in errors.items()}
        if len(activities) > 1:
            metrics |= {f"{name}/std": float(values.std(ddof=1)) for name, values in errors.items() if name.startswith("test")}
        if heads := [len(trained[a].weights["classifier.bias"]) for a in activities if "classifier.bias" in trained[a].weights]:
            metrics["head_classes"] = float(np.mean(heads))  # fewer than C if equalising has merged some
        metrics |= mean_accuracy(trained[a] for a in activities)
        metrics |= {f"{name}/{a}": float(value) for name, values in errors.items() for a, value in zip(activities, values, strict=True)}
        return RunResult(
            metrics=metrics,
            history={"train/mse/all": np.mean([trained[a].train_mse for a in activities], axis=0).tolist()} if spec.epochs > 1 else {},
            weights={f"{a}/{name}": value for a in activities for name, value in trained[a].weights.items()},
            started=started,
            ended=ended,
            tables={PREDICTIONS: self._predictions(spec, {a: trained[a].predicted["test"] for a in activities})},
        )

    def _errors(self, member: SequenceMember, trained: Trained) -> dict[str, float]:
        targets = self._targets(member, "test")
        errors = trained.predicted["test"].astype(np.float64) - targets
        measured = {"test/rmse": rmse(errors), "test/rmse_batch40": mean_rmse_of_blocks(errors)}
        if len(trained.train_mse):  # empty for untrained networks
            measured["train/mse"] = float(trained.train_mse[-1])
        if member.spec.held_out:
            measured["val/rmse"] = float(np.sqrt(trained.evaluated["val"][-1]))
        return measured

    def _predictions(self, spec: SequenceSpec, predicted: Mapping[str, NDArray[np.floating]]) -> pd.DataFrame:
        """A row per frame of the test videos: activity, video, frame (from 0), prediction in the target's unit."""
        videos = {activity: self._videos(Member(spec=spec, part=activity), "test") for activity in predicted}
        rows = pd.concat(videos.values(), ignore_index=True)
        counts = rows["frames"].to_numpy()
        return pd.DataFrame(
            {
                "activity": pd.Categorical(np.repeat(rows["activity"].to_numpy(), counts), categories=list(predicted)),
                "video": pd.Categorical(np.repeat(rows["video"].to_numpy(), counts), categories=list(rows["video"])),
                "frame": np.concatenate([np.arange(n, dtype=np.int32) for n in counts]),
                "prediction": np.concatenate([values.astype(np.float32) for values in predicted.values()]),
            }
        )


def rmse(errors: NDArray[np.float64]) -> float:
    """Root mean squared error."""
    return float(np.sqrt(np.mean(errors**2)))


def mean_rmse_of_blocks(errors: NDArray[np.float64], size: int = TEST_BLOCK) -> float:
    """The RMSE of the released test code: mean RMSE of blocks of `size` consecutive frames, including a shorter last one."""
    return float(np.mean([rmse(errors[start : start + size]) for start in range(0, len(errors), size)]))


def _key(member: SequenceMember, part: Part) -> tuple[str, str, Part, bool]:
    return member.part, member.spec.split, part, member.spec.held_out


def _open(prepared: Path, dataset: str) -> SequenceNetworks:
    return SequenceNetworks(SequenceSet(prepared), dataset)
