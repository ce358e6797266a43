"""What the stages must know of a kind of data set."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from regcls.params import Params
from regcls.provenance import lineage
from regcls.runs import RunSpec
from regcls.tracking.tracker import Tracker
from regcls.training.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class Session:
    """Where runs are made and tracked."""

    params: Params
    root: Path
    dataset: str
    tracker: Tracker
    repeats: str | None = None  # the id of a run that is to be made once more, as a run of its own, whatever the store holds

    @cached_property
    def origin(self) -> dict[str, Any]:
        """See provenance.lineage."""
        return lineage(self.root, self.dataset)

    def tags(self, code: str) -> dict[str, str]:
        """What every run is tagged with; `code`: digest of the code that decides its result."""
        origin: Mapping[str, Any] = self.origin
        return {**origin["git"], **origin["machine"], "data_md5": origin["data_md5"], "code_digest": code[:16]}


class Kind(Protocol):
    """A kind of data set. `data` is what `open` gives; a `spec` is one of `spec_type`."""

    spec_type: type[RunSpec]
    error: tuple[str, str]  # the test error that a run tells of itself: in words, and its metric

    def open(self, params: Params, dataset: str, folder: Path, *, verify: bool) -> Any:
        """The prepared data that params.yaml asks for; with `verify`, after reading all of it and comparing checksums.

        Raises:
            UserError: absent, damaged, of another format version, or made from other parameters.
        """

    def open_as_it_is(self, folder: Path, *, verify: bool) -> Any:
        """The prepared data, whatever params.yaml says of them now. Raises as `open` does."""

    def digest(self, spec: Any, data: Any) -> str:
        """Of the samples that a run sees.

        Raises:
            UserError: the data have no such samples.
        """

    def misfit(self, spec: Any, data: Any) -> str:
        """Why a run cannot be made on these data, behind `the data here …`; empty if it can."""

    def code(self) -> str:
        """Digest of the code that decides a result, next to the spec and the data."""

    def fingerprint(self, spec: Any, data: Any) -> str:
        """Of a run, with the data and the code that are here."""

    def single_spec(self, params: Params, dataset: str, options: Any) -> Any:
        """The run that params.yaml's `run:` describes, with `options` over it.

        Raises:
            UserError: an option that would be ignored, or does not fit.
        """

    def train_grids(self, data: Any, session: Session) -> Outcome:
        """Make every run of the grids that is not tracked as FINISHED yet."""

    def train_one(self, spec: Any, data: Any, session: Session) -> Outcome:
        """Make one run, in the run of `mlflow run` if that has begun one; an equal one that is finished is kept."""
