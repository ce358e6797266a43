"""Stand-in archives: the original layout, an imbalanced histogram, and portraits that reveal the age, though not exactly."""

import io
import re
import tarfile
from datetime import date

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from regcls.tasks.images.drawing import draw_portrait
from regcls.tasks.images.params import StandIn
from regcls.tasks.images.stand_in import age_histogram, write_archives

NAMES = {
    "imdb": r"imdb_crop/(\d\d)/nm\d{5}\1_rm\d+_(\d{4})-\d{1,2}-\d{1,2}_(\d{4})\.jpg",
    "wiki": r"wiki_crop/(\d\d)/\d+\1_(\d{4})-\d\d-\d\d_(\d{4})\.jpg",
}
FIELDS = ["dob", "photo_taken", "full_path", "gender", "name", "face_location", "face_score", "second_face_score"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    write_archives(folder, StandIn(images=300, seed=0), size=40, processes=1)
    return folder


def opened(folder, part):
    """The archive's images by name, and its struct."""
    with tarfile.open(folder / f"{part}_crop.tar") as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    return files, loadmat(io.BytesIO(files.pop(f"{part}_crop/{part}.mat")))[part][0, 0]


@pytest.mark.parametrize("part", ["imdb", "wiki"])
def test_names_and_fields_follow_the_original(folder, part):
    files, struct = opened(folder, part)
    assert list(struct.dtype.names) == FIELDS + (["celeb_names", "celeb_id"] if part == "imdb" else [])
    assert [f"{part}_crop/{path[0]}" for path in struct["full_path"][0]] == list(files)
    assert all(re.fullmatch(NAMES[part], name) for name in files)
    assert all(struct[name].shape == (1, len(files)) for name in FIELDS)
    assert (struct["dob"].dtype, struct["photo_taken"].dtype, struct["face_location"][0, 0].shape) == (np.int32, np.uint16, (1, 4))


def test_dates_in_file_names_match_their_rows(folder):
    files, struct = opened(folder, "imdb")
    for name, dob, taken in zip(files, struct["dob"][0], struct["photo_taken"][0], strict=True):
        year, month, day, photo = map(int, re.search(r"_(\d+)-(\d+)-(\d+)_(\d+)\.jpg", name).groups())
        assert photo == taken and int(dob) in (date(year, month, day).toordinal() + 366, 47)


def test_every_case_for_the_filter_and_the_decoder_occurs(folder):
    files, struct = opened(folder, "imdb")
    score, second = struct["face_score"][0], struct["second_face_score"][0]
    assert np.isneginf(score).any() and ((score > 0) & (score < 1)).any() and (second > 0).any() and (struct["dob"][0] == 47).any()
    wiki = opened(folder, "wiki")[0]
    contents = [*files.values(), *wiki.values()]
    whole = [content for content in contents if content.endswith(b"\xff\xd9")]
    assert contents.count(b"") == 1 and len(whole) == len(contents) - 2
    images = [Image.open(io.BytesIO(content)) for content in whole]
    assert {image.mode for image in images} == {"RGB", "L"}
    assert len({image.size for image in images}) > 20 and all(36 <= side <= 45 for image in images for side in image.size)


def test_bytes_depend_on_the_seed_but_not_on_the_number_of_processes(folder, tmp_path):
    write_archives(tmp_path, StandIn(images=300, seed=0), size=40, processes=2)
    for name in ("imdb_crop.tar", "wiki_crop.tar"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    write_archives(tmp_path, StandIn(images=300, seed=1), size=40, processes=1)
    assert (tmp_path / "imdb_crop.tar").read_bytes() != (folder / "imdb_crop.tar").read_bytes()


def test_all_shot_groups_occur_and_every_age_can_be_tested():
    images = age_histogram(3672)  # of 4000, those that are good
    held_out = np.minimum(images // 3, 12)
    train = images - 2 * held_out
    assert images.sum() == 3672 and 25 <= images.argmax() <= 40
    assert min((train > 100).sum(), ((train >= 20) & (train <= 100)).sum(), (train < 20).sum()) >= 8
    assert held_out.min() >= 1


def thumbnails(count, seed):
    """Grey thumbnails of 16 × 16 pixels, with evenly spread ages."""
    age = np.random.default_rng(seed).integers(0, 91, count)
    faces = [draw_portrait(np.random.default_rng([seed, k]), age[k], female=bool(k % 2), width=64, height=64) for k in range(count)]
    return np.stack([np.asarray(face.convert("L").resize((16, 16))).ravel() / 255 for face in faces]), age


def test_a_linear_model_on_thumbnails_predicts_age_only_in_part():
    (x, y), (x_test, y_test) = thumbnails(900, 0), thumbnails(300, 1)
    mean = x.mean(0)
    weights = np.linalg.solve((x - mean).T @ (x - mean) + np.eye(256), (x - mean).T @ (y - y.mean()))
    error = (x_test - mean) @ weights + y.mean() - y_test
    assert 0.2 < 1 - (error**2).mean() / y_test.var() < 0.8


@pytest.mark.parametrize(("width", "height"), [(64, 64), (70, 59), (250, 230)])
def test_a_portrait_has_the_requested_size(width, height):
    image = draw_portrait(np.random.default_rng(0), 30, female=True, width=width, height=height)
    assert image.size == (width, height) and image.mode == "RGB"


@pytest.mark.parametrize("age", [0, 1, 95, 110])
def test_the_youngest_and_the_oldest_can_be_drawn(age):
    for seed in range(40):
        draw_portrait(np.random.default_rng(seed), age, female=bool(seed % 2), width=32, height=32)
