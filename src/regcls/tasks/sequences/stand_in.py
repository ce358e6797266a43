"""Stand-in features of videos in the layout of the Breakfast archive: features.tar with a text file a video, a line a frame.

A video is a walk: its features follow a curve of their activity as it progresses, off it by what is peculiar to person, camera and moment.
Progress can be learned from them, by a line only in part. Lengths vary widely, and a few files are damaged.
"""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from regcls.errors import UserError
from regcls.progress import tracked
from regcls.tasks.sequences.params import ACTIVITIES, FEATURES, SequenceStandIn

PERSONS = (3, 54)  # the original's, from the first to the last
# Mean length of an activity's videos, as a share of the mean of all: coffee is soon made, a pancake is not.
LENGTHS = dict(zip(ACTIVITIES, (0.4, 0.5, 0.5, 0.6, 0.9, 0.9, 1.5, 1.4, 1.4, 1.9), strict=True))
SPREAD = 0.45  # σ of the logarithm of a length
MOST = 4.0  # times the mean, or one over it, that a length can be
SHORTEST = 24  # frames
EMPTY = 4  # frames at the start without features, zeros: the original's trajectories have to begin first
CAMERAS = ("cam02", "stereo01", "webcam01")  # next to cam01, one of them in each kitchen
SECOND_SHARE = 0.5  # of what cam01 has seen, that the second camera has seen as well
TURNS = (1.0, 1.7)  # of the curve in a video: neither tells the progress alone, and no line does
SCALE = 0.2  # of the features: a network as it is initialised is then off by about as much as on the original's
WARP = 0.4  # how unevenly a person progresses: the speed goes from 1 - WARP to 1 + WARP times its mean


class Walk(NamedTuple):
    """One file."""

    person: int
    camera: str
    activity: str
    frames: int
    damage: str = ""  # "", "column", "nan" or "activity"

    @property
    def path(self) -> str:
        """Where it lies in the archive."""
        activity = "toast" if self.damage == "activity" else self.activity
        return f"features/{activity}/P{self.person:02d}_{self.camera}_P{self.person:02d}_{activity}.txt"


def write_archive(folder: Path, stand_in: SequenceStandIn) -> None:
    """Write features.tar. The same `stand_in` gives the same bytes.

    Raises:
        UserError: more persons than the original has.
    """
    first, last = PERSONS
    if stand_in.persons > (most := last - first + 1):
        raise UserError(f"stand_in.persons = {stand_in.persons}: there are {most} persons in Breakfast (P{first:02d} to P{last})")
    walks = list(_plan(default_rng([stand_in.seed, 1]), stand_in))
    with tarfile.open(folder / "features.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for index, walk in enumerate(tracked(walks, len(walks), "making feature files")):
            content = _damaged(text(features(walk, seed=stand_in.seed, index=index)), walk.damage)
            member = tarfile.TarInfo(walk.path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def _plan(rng: Generator, stand_in: SequenceStandIn) -> Iterator[Walk]:
    """Every person is filmed in every activity by cam01, and in some by a second camera, which starts a moment later."""
    # Spread evenly, some of them are test persons in each of the original's four splits.
    persons = np.rint(np.linspace(*PERSONS, stand_in.persons)).astype(int).tolist()
    for activity in ACTIVITIES:
        for person in persons:
            factor = np.exp(np.clip(rng.normal(-(SPREAD**2) / 2, SPREAD), -np.log(MOST), np.log(MOST)))
            frames = max(SHORTEST, round(stand_in.frames * LENGTHS[activity] * factor))
            yield Walk(person, "cam01", activity, frames)
            if rng.random() < SECOND_SHARE:
                yield Walk(person, CAMERAS[person % len(CAMERAS)], activity, frames - int(rng.integers(EMPTY)))
    for person, damage in zip(persons, ("column", "nan", "activity"), strict=False):
        yield Walk(person, "webcam02", "tea", SHORTEST, damage)


def features(walk: Walk, *, seed: int, index: int) -> NDArray[np.float64]:
    """Features (frames, 64) of the walk that is the `index`-th of its archive, with six decimals as in the original."""
    activity = ACTIVITIES.index(walk.activity)
    curve = default_rng([seed, 2, activity]).normal(size=(2 * len(TURNS), FEATURES))
    of_person, rng = default_rng([seed, 3, walk.person, activity]), default_rng([seed, 4, index])
    progress = np.arange(walk.frames) / walk.frames
    progress += of_person.uniform(-WARP, WARP) * np.sin(2 * np.pi * progress) / (2 * np.pi)
    angles = 2 * np.pi * np.outer(progress, TURNS)
    place = np.concatenate([np.sin(angles), np.cos(angles)], axis=1) * of_person.uniform(0.8, 1.2)
    place += of_person.normal(0, 0.25, place.shape[1]) + _wandering(rng, place.shape, spread=0.4)
    found = 2 * place @ curve + of_person.normal(0, 0.5, FEATURES) + rng.normal(0, 0.5, FEATURES)
    found += _wandering(rng, found.shape, spread=1.0) + rng.normal(0, 0.5, found.shape)
    found[:EMPTY] = 0
    return np.asarray(np.round(SCALE * found, 6))


def _wandering(rng: Generator, shape: tuple[int, ...], *, spread: float, memory: float = 0.95) -> NDArray[np.float64]:
    """Random walks along the first axis that are drawn back to 0, of standard deviation `spread` in the long run."""
    steps = rng.normal(0, spread * np.sqrt(1 - memory**2), shape)
    from scipy.signal import lfilter  # takes a second to import, and reading videos needs none

    return np.asarray(lfilter([1.0], [1.0, -memory], steps, axis=0))


def text(features: NDArray[np.float64]) -> bytes:
    """A file's content: a line a frame, numbers separated by a blank, in NumPy's notation as in the original."""
    content = io.BytesIO()
    np.savetxt(content, features)
    return content.getvalue()


def _damaged(content: bytes, damage: str) -> bytes:
    lines = content.split(b"\n")
    middle = len(lines) // 2
    if damage == "column":
        lines[middle] = lines[middle].rpartition(b" ")[0]
    if damage == "nan":
        lines[middle] = b" ".join([b"nan", *lines[middle].split(b" ")[1:]])
    return b"\n".join(lines)
