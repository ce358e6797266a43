"""Stand-in features: the original layout, widely differing lengths, and walks that reveal the progress, though not linearly."""

import io
import re
import tarfile

import numpy as np
import pytest

from regcls.errors import UserError
from regcls.tasks.sequences.params import ACTIVITIES, SequenceStandIn
from regcls.tasks.sequences.prepare import parse
from regcls.tasks.sequences.stand_in import Walk, features, text, write_archive

STAND_IN = SequenceStandIn(persons=4, frames=60, seed=0)
NAME = r"features/([a-z]+)/P(\d\d)_(cam01|cam02|stereo01|webcam0[12])_P\2_\1\.txt"
DAMAGED = [
    "features/tea/P03_webcam02_P03_tea.txt",
    "features/tea/P20_webcam02_P20_tea.txt",
    "features/toast/P37_webcam02_P37_toast.txt",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    write_archive(folder, STAND_IN)
    return folder


def opened(folder):
    """Content of the files by name; every name occurs once."""
    with tarfile.open(folder / "features.tar") as tar:
        members = tar.getmembers()
        files = {member.name: tar.extractfile(member).read() for member in members}
    assert len(files) == len(members)
    return files


def test_names_and_lines_follow_the_original(folder):
    files = opened(folder)
    assert all(re.fullmatch(NAME, name) for name in files)
    first = next(iter(files.values())).decode().splitlines()
    assert all(len(line.split(" ")) == 64 for line in first)
    assert set(first[0].split(" ")) == {"0.000000000000000000e+00"}
    assert re.fullmatch(r"-?\d\.\d{18}e[+-]\d\d", first[5].split(" ")[0])


def test_all_persons_and_activities_occur_some_with_two_cameras(folder):
    seen = [re.fullmatch(NAME, name).groups() for name in opened(folder) if name not in DAMAGED]
    assert {(activity, person) for activity, person, _ in seen} == {(a, p) for a in ACTIVITIES for p in ("03", "20", "37", "54")}
    assert 40 < len(seen) < 80 and len({(person, camera) for _, person, camera in seen}) == 8


@pytest.mark.parametrize("persons", [4, 5, 7])
def test_every_split_has_test_persons(tmp_path, persons):
    write_archive(tmp_path, SequenceStandIn(persons=persons, frames=40, seed=0))
    found = {int(name.partition("/P")[2][:2]) for name in opened(tmp_path)}
    assert len(found) == persons
    assert all(any(first <= person < first + 13 for person in found) for first in (3, 16, 29, 42))


def test_the_damaged_files_are_those_prepare_must_skip(folder):
    files = opened(folder)
    column, nan, unknown = (files.pop(name) for name in DAMAGED)
    with pytest.raises(ValueError, match="^number of columns is not 64: 63 in line 13$"):
        parse(column)
    with pytest.raises(ValueError, match="^not finite: nan in line 13$"):
        parse(nan)
    assert parse(unknown).shape == (24, 64)
    assert all(np.isfinite(parse(content)).all() for content in files.values())


def test_bytes_depend_on_the_seed(folder, tmp_path):
    write_archive(tmp_path, STAND_IN)
    assert (tmp_path / "features.tar").read_bytes() == (folder / "features.tar").read_bytes()
    write_archive(tmp_path, SequenceStandIn(persons=4, frames=60, seed=1))
    assert (tmp_path / "features.tar").read_bytes() != (folder / "features.tar").read_bytes()


def test_lengths_vary_widely_around_the_requested_mean(tmp_path):
    write_archive(tmp_path, SequenceStandIn(persons=16, frames=60, seed=0))
    lengths = {name: content.count(b"\n") for name, content in opened(tmp_path).items()}
    pancakes = [length for name, length in lengths.items() if "/pancake/" in name]
    coffees = [length for name, length in lengths.items() if "/coffee/" in name]
    assert np.mean(list(lengths.values())) == pytest.approx(60, rel=0.15)
    assert np.mean(pancakes) > 3 * np.mean(coffees) and max(pancakes) > 4 * min(pancakes)


def test_two_cameras_record_a_person_for_nearly_the_same_time(folder):
    lengths = {}
    for name, content in opened(folder).items():
        if name not in DAMAGED:
            activity, person, _ = re.fullmatch(NAME, name).groups()
            lengths.setdefault((activity, person), []).append(content.count(b"\n"))
    assert all(max(of) - min(of) < 4 for of in lengths.values())


def test_more_persons_than_in_the_original_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"stand_in.persons = 53: there are 52 persons in Breakfast \(P03 to P54\)"):
        write_archive(tmp_path, SequenceStandIn(persons=53, frames=40, seed=0))


def test_numbers_survive_writing_as_text(tmp_path):
    walk = features(Walk(3, "cam01", "tea", 50), seed=0, index=0)
    assert np.array_equal(np.loadtxt(io.BytesIO(text(walk))), walk)
    assert walk.shape == (50, 64) and np.array_equal(walk, np.round(walk, 6)) and not walk[:4].any() and walk[4:].all()


def progress_error(predict):
    """Mean squared error of the progress in percent of its variance, on persons that `predict` was not fitted on."""
    walks = [features(Walk(person, "cam01", "salat", 300), seed=0, index=person)[4:] for person in range(3, 27)]
    progress = np.arange(4, 300) / 300
    fitted = predict(np.concatenate(walks[:20]), np.tile(progress, 20))
    return np.mean([np.mean((fitted(walk) - progress) ** 2) for walk in walks[20:]]) / progress.var() * 100


def linear(features, progress):
    weights = np.linalg.lstsq(np.c_[features, np.ones(len(features))], progress, rcond=None)[0]
    return lambda unseen: np.c_[unseen, np.ones(len(unseen))] @ weights


def neighbours(features, progress):
    def fitted(unseen):
        distances = (unseen**2).sum(1)[:, None] - 2 * unseen @ features.T + (features**2).sum(1)
        return progress[np.argsort(distances, axis=1)[:, :20]].mean(1)

    return fitted


def test_a_curve_predicts_progress_better_than_a_line():
    line, curve = progress_error(linear), progress_error(neighbours)
    assert 20 < line < 80
    assert curve < 0.6 * line
