"""Stand-in features of videos in the layout of the Breakfast archive: features.tar with a text file per video, a line per frame.

A video is a walk: as it progresses, its features follow a curve of its activity, with deviations by person, camera and moment. Progress
can be learned from them, but only partly by a linear model. Lengths vary widely, and a few files are damaged.
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

PERSONS = (3, 54)  # first and last person of the original
# Mean length of an activity's videos relative to the overall mean: making coffee is quick, making pancakes is not.
LENGTHS = dict(zip(ACTIVITIES, (0.4, 0.5, 0.5, 0.6, 0.9, 0.9, 1.5, 1.4, 1.4, 1.9), strict=True))
SPREAD = 0.45  # σ of the logarithm of a length
MOST = 4.0  # lengths are between 1 / MOST and MOST times the mean
SHORTEST = 24  # frames
EMPTY = 4  # zero frames at the start, as in the original, whose trajectories have yet to begin
CAMERAS = ("cam02", "stereo01", "webcam01")  # second cameras besides cam01, one in each kitchen
SECOND_SHARE = 0.5  # of the videos of cam01, also seen by the second camera
TURNS = (1.0, 1.7)  # of the curve in a video: neither determines progress alone, nor does a linear function
SCALE = 0.2  # of the features: gives untrained networks about the same error as the original's features
WARP = 0.4  # unevenness of progress: speed varies from 1 - WARP to 1 + WARP times its mean


class Walk(NamedTuple):
    """One file."""

    person: int
    camera: str
    activity: str
    frames: int
    damage: str = ""  # "", "column", "nan" or "activity"

    @property
    def path(self) -> str:
        """Path in the archive."""
        activity = "toast" if self.damage == "activity" else self.activity
        return f"features/{activity}/P{self.person:02d}_{self.camera}_P{self.person:02d}_{activity}.txt"


def write_archive(folder: Path, stand_in: SequenceStandIn) -> None:
    """Write features.tar; its bytes depend on `stand_in` only.

    Raises:
        UserError: `stand_in` has more persons than the original.
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
    """Videos of each person in each activity by cam01, and of some also by a second camera, which starts slightly later."""
    # Spread evenly, so that each of the original's four splits has some of them as test persons.
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
    """Features (frames, 64) of a walk, with six decimals as in the original; `index`: of the walk in its archive."""
    activity = ACTIVITIES.index(walk.activity)
    curve = default_rng([seed, 2, activity]).normal(size=(2 * len(TURNS), FEATURES))
    of_person, rng = default_rng([seed, 3, walk.person, activity]), default_rng([seed, 4, index])
    progress = np.arange(walk.frames) / walk.frames
    progress += of_person.uniform(-WARP, WARP) * np.sin(2 * np.pi * progress) / (2 * np.pi)
    angles = 2 * np.pi * np.outer(progress, TURNS)
    position = np.concatenate([np.sin(angles), np.cos(angles)], axis=1) * of_person.uniform(0.8, 1.2)
    position += of_person.normal(0, 0.25, position.shape[1]) + _wandering(rng, position.shape, spread=0.4)
    values = 2 * position @ curve + of_person.normal(0, 0.5, FEATURES) + rng.normal(0, 0.5, FEATURES)
    values += _wandering(rng, values.shape, spread=1.0) + rng.normal(0, 0.5, values.shape)
    values[:EMPTY] = 0
    return np.asarray(np.round(SCALE * values, 6))


def _wandering(rng: Generator, shape: tuple[int, ...], *, spread: float, memory: float = 0.95) -> NDArray[np.float64]:
    """Mean-reverting random walks along the first axis, with stationary standard deviation `spread`."""
    steps = rng.normal(0, spread * np.sqrt(1 - memory**2), shape)
    from scipy.signal import lfilter  # slow to import (a second), and not needed to read videos

    return np.asarray(lfilter([1.0], [1.0, -memory], steps, axis=0))


def text(features: NDArray[np.float64]) -> bytes:
    """A file's content: a line per frame, numbers separated by blanks in NumPy's notation, as in the original."""
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
