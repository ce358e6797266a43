"""What a task must provide, in full, and what the pipeline gives it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd

from regcls.data.store import PreparedSet, prepared_folder
from regcls.errors import UserError
from regcls.params import Params
from regcls.provenance import lineage
from regcls.reports.report import Report
from regcls.runs import RunSpec
from regcls.tasks import task_named
from regcls.tracking.tracker import Tracker
from regcls.training.outcome import Outcome

SectionT = TypeVar("SectionT")
SpecT = TypeVar("SpecT", bound=RunSpec)
DataT = TypeVar("DataT", bound=PreparedSet[Any])


@dataclass(frozen=True, kw_only=True)
class Session:
    """Where runs on a data set are made and tracked."""

    params: Params
    root: Path
    dataset: str
    tracker: Tracker
    repeats: str | None = None  # the id of a run that is to be made once more, as a run of its own, whatever the store holds

    @property
    def section(self) -> Any:
        """The data set's, of params.yaml."""
        return self.params.datasets[self.dataset]

    @cached_property
    def origin(self) -> dict[str, Any]:
        """See provenance.lineage."""
        return lineage(self.root, self.dataset)

    def tags(self, code: str) -> dict[str, str]:
        """What every run is tagged with; `code`: digest of the code that decides its result."""
        origin: Mapping[str, Any] = self.origin
        return {**origin["git"], **origin["machine"], "data_md5": origin["data_md5"], "code_digest": code[:16]}


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What the report on a data set is made from."""

    params: Params
    root: Path
    dataset: str
    data: Any  # the opened data set
    runs: pd.DataFrame  # a row a tracked run on it (tracking/run_table.py)
    tracker: Tracker
    provenance: Mapping[str, str]

    @property
    def section(self) -> Any:
        """The data set's, of params.yaml."""
        return self.params.datasets[self.dataset]

    def table(self, path: str) -> Callable[[str], pd.DataFrame]:
        """Run id -> the table that the run keeps at `path`; a MissingError where it is gone."""
        return lambda run_id: self.tracker.files.table(run_id, path)

    def arrays(self, path: str) -> Callable[[str], dict[str, np.ndarray]]:
        """Run id -> the arrays of the .npz that the run keeps at `path`; a MissingError where it is gone."""

        def read(run_id: str) -> dict[str, np.ndarray]:
            with TemporaryDirectory() as folder, np.load(self.tracker.files.fetch(run_id, path, Path(folder))) as content:
                return dict(content)

        return read


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to predict with, for which images, and where files go."""

    run_id: str
    spec: Mapping[str, Any]  # the run's parameters, by their names in its spec
    checkpoint: Callable[[], Path]  # fetches it
    device: Any  # cpu or cuda
    images: Sequence[Path]
    folder: Path | None  # for files; None: none was named


class Task(ABC, Generic[SectionT, SpecT, DataT]):
    """A kind of problem: from raw files to a trained network and a report. `params.py` beside it says what params.yaml may hold."""

    spec_type: type[SpecT]
    data_type: type[DataT]
    error: tuple[str, str]  # the test error that a run tells of itself: in words, and its metric

    @abstractmethod
    def prepare(self, section: SectionT, folder: Path, *, raw: Path, dataset: str, processes: int) -> list[str]:
        """Write the prepared data set into `folder`, from `raw` or a generated stand-in; returns its counts, in lines.

        Raises:
            UserError: raw files are missing, damaged or not what they should be, or the disk is full; the folder is as it was.
        """

    def write_stand_in(self, section: SectionT, folder: Path, *, processes: int) -> str:
        """Write the generated stand-in for the raw files into `folder`; returns what they are.

        Raises:
            UserError: the task has no raw files.
        """
        raise UserError("its data are drawn from params.yaml alone: there are no raw files")

    def open(self, folder: Path, *, section: SectionT | None, verify: bool) -> DataT:
        """The prepared data; with a `section`, only if they are those that it asks for; with `verify`, after comparing all checksums.

        Raises:
            UserError: absent, damaged, of another format version, or made from other parameters.
        """
        made_from: Any = None if section is None else getattr(section, "data")  # noqa: B009  # every section has it
        return self.data_type(folder, verify=verify, made_from=made_from)

    @abstractmethod
    def digest(self, spec: SpecT, data: DataT) -> str:
        """Of the samples that a run sees.

        Raises:
            UserError: the data have no such samples.
        """

    @abstractmethod
    def misfit(self, spec: SpecT, data: DataT) -> str | None:
        """Why a run cannot be made on these data, a sentence; None if it can."""

    @abstractmethod
    def code(self) -> str:
        """Digest of the code that decides a result, next to the spec and the data."""

    @abstractmethod
    def fingerprint(self, spec: SpecT, data: DataT) -> str:
        """Of a run, with the data and the code that are here."""

    @abstractmethod
    def single_spec(self, section: SectionT, dataset: str, options: Any) -> SpecT:
        """The run that params.yaml's `run:` describes, with `options` over it.

        Raises:
            UserError: an option that would be ignored, or does not fit.
        """

    @abstractmethod
    def train_grids(self, data: DataT, session: Session) -> Outcome:
        """Make every run of the grids that is not tracked as FINISHED yet."""

    @abstractmethod
    def train_one(self, spec: SpecT, data: DataT, session: Session) -> Outcome:
        """Make one run, in the run of `mlflow run` if that has begun one; an equal one that is finished is kept."""

    @abstractmethod
    def report(self, sources: Sources) -> Report:
        """Tables, figures and words from the tracked runs; equal runs give equal bytes.

        Raises:
            UserError: no run counts.
        """

    def predict(self, asked: Asked) -> list[str]:
        """Print, as csv, a prediction for each image; returns which could not be read, and why.

        Raises:
            UserError: the task has no images, or two of them would be written to one file.
        """
        raise UserError(f"run {asked.run_id} has no images as input: regcls predict is for runs on images and depth")


def open_data(params: Params, root: Path, dataset: str, *, verify: bool) -> Any:
    """The prepared data that params.yaml asks for; see `Task.open`.

    Raises:
        UserError: absent, damaged, of another format version, or made from other parameters; or params.yaml has no such data set.
    """
    params.check_name(dataset)
    task = task_named(params.task(dataset))
    return task.open(prepared_folder(root, dataset), section=params.datasets[dataset], verify=verify)
