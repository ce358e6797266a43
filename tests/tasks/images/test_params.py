"""Shot groups and class ranges in params.yaml."""

from types import SimpleNamespace

import numpy as np
import pytest

from regcls.errors import UserError
from regcls.params import load_params
from regcls.params.shots import DensityShots, IntegerShots
from regcls.tasks.images.params import shots_text
from regcls.tasks.images.runs import make_spec
from regcls.tasks.images.task import TASK

DENSITY = {"by": "density", "bins": 50, "many_above": 1.5, "few_below": 0.25}


def section_with(make_project, **changes):
    return load_params(make_project({"imdb_wiki": changes}) / "params.yaml").datasets["imdb_wiki"]


def test_shot_groups_may_be_by_integer_or_density(make_project):
    assert section_with(make_project).shots == IntegerShots(by="integer", many_above=6, few_below=4)
    assert section_with(make_project, shots=DENSITY).shots == DensityShots(**DENSITY)


def test_a_tag_describes_the_shot_groups(make_project):
    assert shots_text(section_with(make_project).shots) == "integer: many_above 6, few_below 4"
    assert shots_text(section_with(make_project, shots=DENSITY).shots) == "density: bins 50, many_above 1.5, few_below 0.25"


@pytest.mark.parametrize("limits", [{"many_above": 20, "few_below": 21}, {**DENSITY, "many_above": 0.5, "few_below": 0.5}], ids=["integer", "density"])  # fmt: skip
def test_limits_may_touch(make_project, limits):
    shots = section_with(make_project, shots=limits).shots
    assert shots.groups([1.0, 2.0]).few_below > 0  # as metrics.ShotGroups takes them


@pytest.mark.parametrize(
    ("shots", "message"),
    [
        ({"many_above": 20, "few_below": 22}, r"imdb_wiki\.shots: few_below = 22 and many_above = 20 overlap: a target would be both"),
        ({**DENSITY, "few_below": 1.75}, r"imdb_wiki\.shots: few_below = 1\.75 and many_above = 1\.5 overlap"),
        ({"by": "count"}, r"imdb_wiki\.shots = .*'count' .* does not match any of the expected tags: 'integer', 'density'"),
        ({"by": "density"}, r"bins is missing"),
        ({"bins": 50}, r"bins is not a known key"),
        ({**DENSITY, "bins": 0}, r"bins = 0: Input should be greater than or equal to 1"),
        ({"few_below": 2.5}, r"few_below = 2\.5: Input should be a valid integer"),
    ],
)
def test_invalid_shot_groups_are_refused(make_project, shots, message):
    with pytest.raises(UserError, match=message):
        section_with(make_project, shots=shots)


def test_image_classes_may_cover_the_range_of_the_data(make_project):
    assert section_with(make_project, training={"class_range": "data"}).training.class_range == "data"
    with pytest.raises(
        UserError, match=r"imdb_wiki\.training\.class_range = \"date\": Input should be 'data'; .*: Input should be a valid array"
    ):
        section_with(make_project, training={"class_range": "date"})


@pytest.mark.parametrize("method, balanced", [("reg+cls", False), ("reg+cls-bal", False), ("reg", True)])
def test_class_ranges_that_miss_most_targets_are_refused(make_project, method, balanced):
    def misfit(class_range, targets):
        section = section_with(make_project, training={"class_range": class_range})
        data = SimpleNamespace(size=section.data.size, targets=lambda split: np.array(targets, dtype=np.float32))
        return TASK.misfit(make_spec(section, "houses", method=method, classes=2, lam=1.0, balanced_data=balanced, seed=0), data)

    expected = "3 of 4 training targets are outside of its class range, 0 to 100: set training.class_range to data"
    assert expected in misfit([0.0, 100.0], [100, 101, 22_000, 5e6]) and expected in misfit([0.0, 100.0], [0, -1, -1, 101])
    assert misfit([0.0, 100.0], [0, 100, 101, 200]) is misfit("data", [1e6, 2e6]) is None


@pytest.mark.parametrize("targets, counted", [([7], "1 image"), ([7, 7], "2 images")])
def test_equal_targets_are_refused(make_project, targets, counted):
    section = section_with(make_project)
    data = SimpleNamespace(size=section.data.size, targets=lambda split: np.array(targets, dtype=np.float32))
    spec = make_spec(section, "houses", method="reg", classes=2, lam=1.0, balanced_data=False, seed=0)
    assert TASK.misfit(spec, data) == f"there is nothing to learn, since all training targets are 7 ({counted})"


def test_a_run_without_classes_needs_no_class_range(make_project):
    section = section_with(make_project)
    data = SimpleNamespace(size=section.data.size, targets=lambda split: np.array([1e6, 2e6]))
    assert TASK.misfit(make_spec(section, "houses", method="reg", classes=2, lam=1.0, balanced_data=False, seed=0), data) is None
