"""The interface of a task: what it must provide (Task), and what the pipeline passes to it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regcls.data.store import PreparedSet, prepared_folder
from regcls.errors import UserError
from regcls.methods import missing_need
from regcls.params import Params
from regcls.params.shots import DensityShots
from regcls.progress import say
from regcls.provenance import UNKNOWN, git_refusal, lineage
from regcls.reports.report import Report
from regcls.runs import RunSpec
from regcls.tasks import task_named, task_params
from regcls.tracking.tracker import Tracker
from regcls.training.outcome import Outcome

SectionT = TypeVar("SectionT")
SpecT = TypeVar("SpecT", bound=RunSpec)
DataT = TypeVar("DataT", bound=PreparedSet[Any])


@dataclass(frozen=True, kw_only=True)
class Session:
    """A training session on one data set: its parameters, project root and tracker."""

    params: Params
    root: Path
    dataset: str
    tracker: Tracker
    repeats: str | None = None  # id of a run to repeat as a new run, even if the store has an equal finished one

    @property
    def section(self) -> Any:
        """The data set's section of params.yaml."""
        return self.params.datasets[self.dataset]

    @cached_property
    def origin(self) -> dict[str, Any]:
        """See provenance.lineage. Says so, once, if git refuses to tell the commit."""
        found = lineage(self.root, self.dataset)
        if found["git"]["git_commit"] == UNKNOWN and (refusal := git_refusal(self.root)):
            say(refusal)
        return found

    def tags(self, code: str) -> dict[str, str]:
        """Tags of every run; `code`: digest of the code that decides its result."""
        origin: Mapping[str, Any] = self.origin
        return {**origin["git"], **origin["machine"], "data_md5": origin["data_md5"], "code_digest": code[:16]}


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The inputs of a report on one data set."""

    params: Params
    root: Path
    dataset: str
    data: Any  # the opened data set
    runs: pd.DataFrame  # its tracked runs, one per row (tracking/run_table.py)
    tracker: Tracker
    provenance: Mapping[str, str]

    @property
    def section(self) -> Any:
        """The data set's section of params.yaml."""
        return self.params.datasets[self.dataset]

    def table(self, path: str) -> Callable[[str], pd.DataFrame]:
        """A function from a run id to the run's table artifact at `path`; it raises as `Files.table` does."""
        return lambda run_id: self.tracker.files.table(run_id, path)

    def arrays(self, path: str) -> Callable[[str], dict[str, np.ndarray]]:
        """A function from a run id to the arrays of its .npz artifact at `path`; it raises as `Files.table` does."""
        return lambda run_id: self.tracker.files.arrays(run_id, path)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to train for an answer within a budget."""

    section: Any  # the data set's section, with grids (and training) that fit the budget
    networks: int
    seconds: float  # expected, with all cores
    words: Sequence[str]  # sentences on what was left out to fit the budget
    level: int  # 0: nothing was left out


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """A run to predict with, the images, and the output folder."""

    run_id: str
    spec: Mapping[str, Any]  # the run's parameters, by their names in its spec
    checkpoint: Callable[[], Path]  # fetches the checkpoint file
    device: Any  # cpu or cuda
    images: Sequence[Path]
    folder: Path | None  # for output files; None: not given


@dataclass(frozen=True, kw_only=True)
class NewFile:
    """A file of the user's own that is to become a data set, and what the user has said about it; an empty text: nothing."""

    name: str  # of the data set
    file: Path
    raw: Path  # data/<name>/raw
    target: str
    unit: str
    split: str  # a column
    group: str  # a column
    base: Any  # the section to inherit from

    @property
    def in_place(self) -> bool:
        """Whether the file is in raw/ already."""
        return self.file.parent.resolve() == self.raw.resolve()


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What a task has seen in a user's file, and the section that it proposes."""

    section: Mapping[str, Any]  # the values that differ from those of `base`
    files: Mapping[str, Path]  # to be in raw/, by their paths there
    columns: Mapping[str, str]  # name -> meaning
    target: str
    training: NDArray[np.float64]  # (N,), targets of training samples, or of all if every sample is also trained on
    tested: NDArray[np.float64]  # (M,), targets of test samples
    things: str  # the samples: images
    shots: DensityShots
    remarks: Sequence[str]  # sentences


class Task(ABC, Generic[SectionT, SpecT, DataT]):
    """A kind of problem, from raw files to a trained network and a report. Its `params.py` defines its section of params.yaml."""

    spec_type: type[SpecT]
    data_type: type[DataT]
    advises: bool = False  # whether it has a `plan`
    error: tuple[str, str]  # the headline test error of a run: its name for readers, and its metric

    def draft(self, new: NewFile) -> Draft:
        """Look at a user's file for `regcls new`; nothing is written. A task that can has `own` in its TaskParams.

        Raises:
            UserError: the file cannot become a data set, or it is not clear how.
        """
        raise NotImplementedError

    @abstractmethod
    def prepare(self, section: SectionT, folder: Path, *, raw: Path, dataset: str, processes: int) -> list[str]:
        """Write the prepared data set to `folder`, from `raw` or a generated stand-in; return its counts as lines of text.

        Raises:
            UserError: raw files are missing, damaged or invalid, or the disk is full; `folder` is left unchanged.
        """

    def write_stand_in(self, section: SectionT, folder: Path, *, processes: int) -> str:
        """Write the generated stand-in for the raw files to `folder`, which is created; return a description of them.

        Raises:
            UserError: there are no raw files, or no stand-in for their layout.
        """
        raise UserError("the data are drawn from params.yaml alone: there are no raw files")

    def open(self, folder: Path, *, section: SectionT | None, verify: bool) -> DataT:
        """Open the prepared data; with `section`, check that they were prepared from its parameters; with `verify`, check all checksums.

        Raises:
            UserError: the data are missing, damaged, in another format version, or prepared from other parameters.
        """
        made_from: Any = None if section is None else getattr(section, "data")  # noqa: B009  # every section has it
        return self.data_type(folder, verify=verify, made_from=made_from)

    @abstractmethod
    def digest(self, spec: SpecT, data: DataT) -> str:
        """Digest of the samples that a run uses.

        Raises:
            UserError: the data do not contain them.
        """

    @abstractmethod
    def misfit(self, spec: SpecT, data: DataT) -> str | None:
        """Why the run cannot train on these data, as a sentence; None if it can."""

    def check_fit(self, specs: Iterable[SpecT], data: DataT) -> None:
        """Raise a UserError if one of the runs cannot train on these data, or with these networks."""
        for spec in specs:
            if misfit := missing_need(spec.method, task_params(spec.task).provides) or self.misfit(spec, data):
                raise UserError(f"{spec.name} cannot be trained: {misfit}")

    @abstractmethod
    def code(self) -> str:
        """Digest of the code that decides a result, along with the spec and the data."""

    @abstractmethod
    def fingerprint(self, spec: SpecT, data: DataT) -> str:
        """Fingerprint of a run with the current data and code."""

    @abstractmethod
    def single_spec(self, section: SectionT, dataset: str, options: Any) -> SpecT:
        """The run described by `run:` in params.yaml, overridden by `options`.

        Raises:
            UserError: an option has no effect on this run, or is invalid.
        """

    @abstractmethod
    def train_grids(self, data: DataT, session: Session) -> Outcome:
        """Train every run of the grids that is not yet tracked as FINISHED."""

    @abstractmethod
    def train_one(self, spec: SpecT, data: DataT, session: Session) -> Outcome:
        """Train one run, inside the active run of `mlflow run` if there is one; an equal finished run is kept instead."""

    @abstractmethod
    def report(self, sources: Sources) -> Report:
        """Tables, figures and text from the tracked runs; equal runs give identical bytes.

        Raises:
            UserError: no run is usable.
        """

    def plan(self, data: DataT, session: Session, *, methods: Sequence[str], budget: float, level: int | None = None) -> Plan:
        """What to train to tell whether `methods` (see planning.asked_for) help, in `budget` seconds, or at the `level` of an earlier plan.

        Raises:
            UserError: the budget is too small, or the data cannot be learned.
        """
        raise NotImplementedError

    def predict(self, request: PredictRequest) -> list[str]:
        """Print a prediction for each image as CSV; return the images that could not be read, with reasons.

        Raises:
            UserError: the task does not take images, or two images would be written to one file.
        """
        raise UserError(f"run {request.run_id} has no images as input: regcls predict is for runs on images and depth")


def too_many_classes(spec: RunSpec, samples: int, things: str) -> str | None:
    """Why a run with more classes than training samples (`things`) cannot be trained; None if it has no more."""
    if spec.classes <= samples:
        return None
    return f"it has {spec.classes:,} classes, but there are only {samples:,} {things} here"


def open_data(params: Params, root: Path, dataset: str, *, verify: bool) -> Any:
    """Open the prepared data set that params.yaml describes; see `Task.open`.

    Raises:
        UserError: as `Task.open`, or params.yaml has no such data set.
    """
    params.check_name(dataset)
    task = task_named(params.task(dataset))
    return task.open(prepared_folder(root, dataset), section=params.datasets[dataset], verify=verify)
