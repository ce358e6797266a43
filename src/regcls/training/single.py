"""A run that trains one network: what it is told, and what it leaves behind. For every kind of images."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from regcls.data.splits import SplitSet
from regcls.errors import UserError
from regcls.runs.grids import SingleSpec
from regcls.training.device import Device
from regcls.training.loop import Epoch, Hooks

BEST, LAST = "checkpoints/best.pt", "checkpoints/last.pt"  # among the artifacts of every such run

SpecT = TypeVar("SpecT", bound=SingleSpec, covariant=True)


@dataclass(frozen=True, kw_only=True)
class Job(Generic[SpecT]):
    """A run to make, and how to compute it."""

    spec: SpecT
    prepared: Path  # folder
    data_digest: str  # of what the fingerprint was made for
    checkpoints: Path  # folder
    fingerprint: str
    device: Device
    loaders: int  # processes that make batches; 0: a thread
    channels_last: bool
    compiled: bool
    checkpoint_minutes: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run gave."""

    history: list[Epoch]
    best_epoch: int  # of the weights that were selected on validation
    score: float  # their validation error, by which λ is searched; lower is better
    metrics: dict[str, float]  # final ones
    files: Mapping[str, Path]  # path among the run's artifacts -> file: checkpoints, pictures
    tables: Mapping[str, pd.DataFrame]  # path among the run's artifacts (*.parquet) -> table
    tags: Mapping[str, str]  # what became known in training


@dataclass(frozen=True, kw_only=True)
class Model:
    """The trained network as others use it, for MLflow."""

    network: nn.Module
    example: NDArray[np.uint8]  # input


SetT = TypeVar("SetT", bound=SplitSet[Any])


def opened(kind: Callable[[Path], SetT], job: Job[Any]) -> SetT:
    """The prepared images of a run.

    Raises:
        UserError: they are gone or damaged, or have been prepared anew since its fingerprint was made.
    """
    images = kind(job.prepared)
    if images.digest != job.data_digest:
        raise UserError(f"{job.prepared} was prepared anew while runs were made on it. Start again, for the runs on the new data.")
    return images


class Data(Protocol):
    """An opened data set, as far as the train stage needs it."""

    @property
    def digest(self) -> str: ...  # of all that a run sees


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """How runs of a kind are made: what the train stage must know of them."""

    spec: type[SingleSpec]
    code: str  # digest of the code that decides a result
    job: Callable[..., Job[Any]]  # the fields of Job -> a job
    train: Callable[[Any, Hooks, Callable[[str], None]], Result]  # of a job
    model: Callable[[Any, Result], Model]
    score: str  # the metric of a tracked run that is Result.score
    origin: Callable[[Any], str] = lambda spec: ""  # digest of what a run begins with, where its spec does not say all
    ready: Callable[[Any], None] = lambda spec: None  # raises a UserError where a run could not begin, before any does
    unlogged: str = ""  # metrics of an epoch that begin so are the same in every one
