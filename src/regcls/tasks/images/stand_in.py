"""Stand-in portraits in the layout of IMDB-WIKI: imdb_crop.tar and wiki_crop.tar with their imdb.mat and wiki.mat.

The portraits are drawn (see drawing.py). As in IMDB-WIKI, the ages are skewed, some rows must be filtered out, some images are grey and
some files are damaged.
"""

import io
import tarfile
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from scipy.io import savemat

from regcls.processes import worker_pool
from regcls.progress import tracked
from regcls.tasks.images.drawing import draw_portrait
from regcls.tasks.images.params import StandIn

IMDB_SHARE = 0.88  # of the images; the rest are wiki's
DOUBTFUL_SHARE = 0.08  # of the images, which the filter must drop
UNREADABLE_SHARE = 0.002  # of the images: half empty, half truncated
MODE, YOUNGER, OLDER = 31.0, 7.0, 13.0  # years: the most frequent age, and the width of the histogram below and above it
TAIL = 0.09  # share of the images spread evenly over all ages
OLDEST = 95  # years
GREY_SHARE = 0.08  # of the images
FROM_MATLAB = 366  # days between MATLAB's day 0 and Python's
MAT_HEADING = b"MATLAB 5.0 MAT-file, generated portraits"  # replaces scipy's 116-byte heading, which contains the time of day
CHUNK = 32  # images drawn by a process at a time


class Portrait(NamedTuple):
    """One image: its row of imdb.mat or wiki.mat, and what is drawn."""

    path: str  # within its archive's folder
    dob: int  # MATLAB's serial day
    photo_taken: int  # year
    female: bool
    face_score: float
    second_face_score: float  # NaN: no second face
    age: int  # years, as drawn
    damage: str  # "", "empty" or "cut"


def write_archives(folder: Path, stand_in: StandIn, *, size: int, processes: int) -> None:
    """Write imdb_crop.tar and wiki_crop.tar with JPEGs of about `size` × `size` pixels.

    The bytes depend on `stand_in` and `size` only, not on the number of processes.
    """
    rng = default_rng([stand_in.seed, 1])
    plan = _plan(rng, stand_in.images)
    parts = {"imdb": round(IMDB_SHARE * stand_in.images)}
    parts["wiki"] = stand_in.images - parts["imdb"]
    start = 0
    with worker_pool(processes) if processes > 1 else nullcontext() as pool:
        for part, images in parts.items():
            rows = [_row(rng, part, start + index, *plan[start + index]) for index in range(images)]
            work = [(start + first, rows[first : first + CHUNK]) for first in range(0, images, CHUNK)]
            drawn = (pool.map if pool else map)(partial(_draw_chunk, stand_in.seed, size), work)
            with tarfile.open(folder / f"{part}_crop.tar", "w", format=tarfile.GNU_FORMAT) as tar:
                for (_, chunk), files in zip(work, tracked(drawn, len(work), f"drawing {part} portraits"), strict=True):
                    for row, content in zip(chunk, files, strict=True):
                        _add(tar, f"{part}_crop/{row.path}", content)
                _add(tar, f"{part}_crop/{part}.mat", _mat(part, rows))
            start += images


def age_histogram(images: int) -> NDArray[np.int64]:
    """Number of images of each age from 0 to 95: a skewed bell with long, thin tails."""
    age = np.arange(OLDEST + 1)
    bell = np.exp(-0.5 * ((age - MODE) / np.where(age < MODE, YOUNGER, OLDER)) ** 2)
    share = (1 - TAIL) * bell / bell.sum() + TAIL / len(age)
    return np.asarray(np.diff(np.rint(np.cumsum(share) * images).astype(np.int64), prepend=0))


def _plan(rng: Generator, images: int) -> list[tuple[int, str, str]]:
    """Age, filter reason and damage of every image, shuffled. The good images follow the histogram exactly."""
    unreadable, doubtful = max(2, round(UNREADABLE_SHARE * images)), round(DOUBTFUL_SHARE * images)
    good = np.repeat(np.arange(OLDEST + 1), age_histogram(images - unreadable - doubtful))
    others = rng.choice(good, unreadable + doubtful)
    plan = [(int(age), "", "") for age in good]
    plan += [(int(age), "", ("empty", "cut")[index % 2]) for index, age in enumerate(others[:unreadable])]
    plan += [(int(age), ("no face", "faint", "second", "date")[index % 4], "") for index, age in enumerate(others[unreadable:])]
    return [plan[index] for index in rng.permutation(images)]


def _row(rng: Generator, part: str, index: int, age: int, doubt: str, damage: str) -> Portrait:
    taken = int(rng.integers(1960, 2015))
    month, day = int(rng.integers(1, 13)), int(rng.integers(1, 29))
    born = date(taken - age - (month >= 7), month, day)
    if part == "imdb":
        person = f"{100 + index // 4:07d}"
        path = f"{person[-2:]}/nm{person}_rm{10**7 + 9973 * index}_{born.year}-{born.month}-{born.day}_{taken}.jpg"
    else:
        person = str(10**7 + 101 * index)
        path = f"{person[-2:]}/{person}_{born.isoformat()}_{taken}.jpg"
    return Portrait(
        path=path,
        dob=47 if doubt == "date" else born.toordinal() + FROM_MATLAB,
        photo_taken=taken,
        female=bool(rng.random() < 0.45),
        face_score={"no face": -np.inf, "faint": rng.uniform(0, 1)}.get(doubt, rng.uniform(1, 6)),
        second_face_score=rng.uniform(1, 4) if doubt == "second" else np.nan,
        age=age,
        damage=damage,
    )


def _draw_chunk(seed: int, size: int, work: tuple[int, Sequence[Portrait]]) -> list[bytes]:
    start, rows = work
    return [_jpeg(default_rng([seed, 2, start + index]), row, size) for index, row in enumerate(rows)]


def _jpeg(rng: Generator, row: Portrait, size: int) -> bytes:
    width, height = (round(size * factor) for factor in rng.uniform(0.92, 1.12, 2))
    image = draw_portrait(rng, row.age, female=row.female, width=width, height=height)
    if rng.random() < GREY_SHARE:
        image = image.convert("L")
    content = io.BytesIO()
    image.save(content, "JPEG", quality=int(rng.integers(80, 96)))
    whole = content.getvalue()
    return {"empty": b"", "cut": whole[: len(whole) // 2]}.get(row.damage, whole)


def _mat(part: str, rows: Sequence[Portrait]) -> bytes:
    """A MATLAB v5 file with the same struct as the original."""

    def cells(values: Sequence[Any]) -> NDArray[np.object_]:
        array = np.empty((1, len(values)), dtype=object)
        array[0, :] = values
        return array

    names = [f"Person {row.path[3:].partition('_')[0]}" for row in rows]
    struct: dict[str, Any] = {
        "dob": np.array([[row.dob for row in rows]], dtype=np.int32),
        "photo_taken": np.array([[row.photo_taken for row in rows]], dtype=np.uint16),
        "full_path": cells([row.path for row in rows]),
        "gender": np.array([[0.0 if row.female else 1.0 for row in rows]]),
        "name": cells(names),
        "face_location": np.array([[None] * len(rows)], dtype=object),
        "face_score": np.array([[row.face_score for row in rows]]),
        "second_face_score": np.array([[row.second_face_score for row in rows]]),
    }
    for column in range(len(rows)):
        struct["face_location"][0, column] = np.array([[1.0, 1.0, 64.0, 64.0]])
    if part == "imdb":
        celebrities = sorted(set(names))
        number = {name: index + 1.0 for index, name in enumerate(celebrities)}
        struct |= {"celeb_names": cells(celebrities), "celeb_id": np.array([[number[name] for name in names]])}
    content = io.BytesIO()
    savemat(content, {part: struct}, do_compression=True)  # type: ignore[arg-type]  # it takes files as well
    return MAT_HEADING.ljust(116) + content.getvalue()[116:]


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
