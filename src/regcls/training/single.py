"""A run that trains one network on images of any kind: its job and its result."""

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
from regcls.training.device import Device, Place
from regcls.training.loop import Epoch, Hooks

BEST, LAST = "checkpoints/best.pt", "checkpoints/last.pt"  # artifact paths

SpecT = TypeVar("SpecT", bound=SingleSpec, covariant=True)


@dataclass(frozen=True, kw_only=True)
class Job(Generic[SpecT]):
    """A run to train, and how to compute it."""

    spec: SpecT
    prepared: Path  # folder
    data_digest: str  # of the data in the fingerprint
    checkpoints: Path  # folder
    fingerprint: str
    device: Device
    loaders: int  # processes that prepare batches; 0: a thread
    channels_last: bool
    compiled: bool
    checkpoint_minutes: float


@dataclass(frozen=True, kw_only=True)
class Result:
    """Result of a run."""

    history: list[Epoch]
    best_epoch: int  # of the weights selected on validation
    score: float  # their validation error, which the search for λ minimises
    metrics: dict[str, float]  # final
    files: Mapping[str, Path]  # artifact path -> file: checkpoints, pictures
    tables: Mapping[str, pd.DataFrame]  # artifact path (*.parquet) -> table
    tags: Mapping[str, str]  # determined during training


@dataclass(frozen=True, kw_only=True)
class Model:
    """The trained network as an MLflow model."""

    network: nn.Module
    example: NDArray[np.uint8]  # input


SetT = TypeVar("SetT", bound=SplitSet[Any])


def open_images(kind: Callable[[Path], SetT], job: Job[Any]) -> SetT:
    """Open the prepared images of a run.

    Raises:
        UserError: they are missing or damaged, or were prepared again after its fingerprint was computed.
    """
    images = kind(job.prepared)
    if images.digest != job.data_digest:
        raise UserError(f"{job.prepared} was prepared again while runs were training on it. Start again to train on the new data.")
    return images


class Data(Protocol):
    """The part of an opened data set that the train stage needs."""

    @property
    def digest(self) -> str: ...  # of all data that a run sees


Train = Callable[[Any, Hooks, Callable[[str], None]], Result]  # takes job, hooks, say


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """A task's training functions, for the train stage."""

    spec: type[SingleSpec]
    code: str  # digest of the code that decides a result
    job: Callable[..., Job[Any]]  # from the fields of Job
    train: Train
    model: Callable[[Any, Result], Model]
    score: str  # name of Result.score among the metrics of a tracked run
    origin: Callable[[Any], str] = lambda spec: ""  # digest of initial weights that the spec does not identify
    ready: Callable[[Any, Place], None] = lambda spec, place: None  # raises a UserError if a run cannot start; called before any does
    unlogged: str = ""  # prefix of epoch metrics that are constant, and not logged
