"""What `regcls doctor` looks at: small functions that say what they found. stages/doctor.py runs them and makes the table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from regcls.params import Params

State = Literal["good", "note", "bad"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """What is examined."""

    root: Path
    params: Params | None  # None where params.yaml cannot be used
    problem: str = ""  # why


@dataclass(frozen=True, kw_only=True)
class Found:
    """The outcome of a check. A check may raise UserError instead, which counts as bad."""

    state: State
    said: str
    do: str = ""  # what the user can do about it


def good(said: str) -> Found:
    """All is well."""
    return Found(state="good", said=said)


def note(said: str, do: str = "") -> Found:
    """Worth knowing, no fault."""
    return Found(state="note", said=said, do=do)


def bad(said: str, do: str) -> Found:
    """Something will not work."""
    return Found(state="bad", said=said, do=do)


def nearest(path: Path) -> Path:
    """`path`, or the folder above it that exists, where `path` would be made."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
