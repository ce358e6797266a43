"""The checks of `regcls doctor`: small functions that return findings. pipeline/doctor.py runs them and prints the table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from regcls.params import Params

State = Literal["good", "note", "bad"]


@dataclass(frozen=True, kw_only=True)
class Place:
    """The project to check."""

    root: Path
    params: Params | None  # None: params.yaml cannot be used
    problem: str = ""  # why not


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of a check. A check may raise UserError instead, which counts as bad."""

    state: State
    text: str
    remedy: str = ""  # what the user can do about it


def good(text: str) -> Finding:
    """All is well."""
    return Finding(state="good", text=text)


def note(text: str, remedy: str = "") -> Finding:
    """Worth knowing, but not a fault."""
    return Finding(state="note", text=text, remedy=remedy)


def bad(text: str, remedy: str) -> Finding:
    """Something will not work."""
    return Finding(state="bad", text=text, remedy=remedy)


def nearest(path: Path) -> Path:
    """`path`, or the nearest existing folder above it."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
