"""What became of the runs that were wanted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of one call of the train stage."""

    trained: int
    kept: int  # that were finished before
    failed: Mapping[str, str]  # name -> reason
    index: Sequence[Mapping[str, str]]  # fingerprint, run_id, status and name of every wanted run
