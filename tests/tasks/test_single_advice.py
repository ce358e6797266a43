"""Advice where each run trains one network: plans from large to small, smaller images, and an answer on images."""

import re
from dataclasses import replace

import pytest

from regcls.cli import main
from regcls.errors import UserError
from regcls.params import load_params
from regcls.pipeline.advise import advise
from regcls.runs.grids import all_specs
from regcls.tasks import single_advice
from regcls.tasks.depth.task import TASK as DEPTH
from regcls.tasks.images.runs import ImageSpec, make_spec
from regcls.tasks.images.task import TASK as IMAGES
from regcls.tasks.task import Session, open_data
from regcls.tracking.tracker import Tracker
from regcls.training.device import Place

SEARCHED = {
    "imdb_wiki": {
        "training": {"epochs": 8, "milestones": [4, 6]},
        "grids": {
            "table3": {"classes": [5, 10], "lambdas": "searched"},
            "lambda_search": {"classes": [5, 10], "lambdas": [0.1, 1.0, 10.0], "seeds": 1},
        },
    }
}


class FakeStudy:
    """A study on which training takes a second for each image and epoch."""

    dataset, samples, places = "imdb_wiki", 100, [Place(device="cpu", threads=1)] * 2


@pytest.fixture
def section(make_project):
    section = load_params(make_project(SEARCHED) / "params.yaml").datasets["imdb_wiki"]
    return replace(section, data=replace(section.data, size=128))


def plan(section, monkeypatch, *, budget=1e9, methods=("reg+cls", "reg+cls-bal"), sizes=None, level=None):
    monkeypatch.setattr(single_advice, "seconds_per_sample", lambda *_: 1.0)
    sizes = sizes or IMAGES.sizes(section)
    return single_advice.plan(FakeStudy(), sizes, make_spec, methods=methods, budget=budget, level=level)


def test_the_largest_plan_searches_all_lambdas_with_one_seed_and_compares_three_seeds(section, monkeypatch):
    found = plan(section, monkeypatch)
    grid, search = found.section.grids["advice"], found.section.grids["lambda_search"]
    assert (grid.methods, grid.classes, grid.lambdas, grid.seeds) == (("reg", "reg+cls", "reg+cls-bal"), (5, 10), "searched", 3)
    assert (search.methods, search.classes, search.lambdas, search.seeds) == (("reg+cls",), (5, 10), (0.1, 1.0, 10.0), 1)
    assert (found.level, list(found.words), found.section.training) == (0, [], section.training)
    # 2 × 3 of the search, of which two are among the 3 × (1 + 2 × 2) others, on two processes
    assert found.networks == 6 + 15 - 2 and found.seconds == pytest.approx(19 * (8 * 100 + single_advice.SECONDS_PER_RUN) / 2)


def test_plans_shrink_from_choices_to_epochs_and_images_and_say_so(section, monkeypatch):
    plans = [plan(section, monkeypatch, level=level) for level in range(10)]
    assert plans[-1].networks == 9 and plan(section, monkeypatch, level=-1) == plans[-1]
    for found in plans:
        training = found.section.training
        assert all(0 < milestone < training.epochs for milestone in training.milestones)
    meaning = "The answer is for networks trained like this: with more epochs or larger images it may be another."
    one = "To fit the budget: 1 class count (5) instead of 2, 1 λ (1) instead of 3."
    assert [" ".join(found.words) for found in plans] == [
        "",
        "To fit the budget: 2 λ (1, 10) instead of 3.",
        "To fit the budget: 1 class count (5) instead of 2, 2 λ (1, 10) instead of 3.",
        one,
        f"{one} To fit the budget: 4 epochs instead of 8. {meaning}",
        f"{one} To fit the budget: 64 pixels instead of 128. {meaning}",
        f"{one} To fit the budget: 64 pixels instead of 128, 4 epochs instead of 8. {meaning}",
        f"{one} To fit the budget: 32 pixels instead of 128. {meaning}",
        f"{one} To fit the budget: 32 pixels instead of 128, 4 epochs instead of 8. {meaning}",
        f"{one} To fit the budget: 32 pixels instead of 128, 3 epochs instead of 8. {meaning}",
    ]


def test_the_first_plan_within_the_budget_is_taken_and_smaller_ones_cost_less(section, monkeypatch):
    for budget in (20_000, 8_000, 3_000, 1_500, 800):
        found = plan(section, monkeypatch, budget=budget)
        assert found.seconds <= budget
        assert found.level == 0 or plan(section, monkeypatch, budget=budget / 2).level > found.level
    with pytest.raises(UserError, match=r"--budget: the smallest plan, 9 networks, takes about .* embeddings of the images to a table"):
        plan(section, monkeypatch, budget=1)


def test_grids_with_the_usual_lambdas_keep_that_of_each_class_count(make_project, monkeypatch):
    changes = {"training": {"lambda": {5: 1.0, 10: 0.1}}, "grids": {"table3": {"classes": [5, 10], "lambdas": "default"}}}
    section = load_params(make_project({"imdb_wiki": changes}) / "params.yaml").datasets["imdb_wiki"]
    found = plan(section, monkeypatch)
    specs = all_specs(make_spec, found.section, "imdb_wiki", {})
    assert {(spec.classes, spec.lam) for spec in specs} == {(0, None), (5, 1.0), (10, 0.1)} and found.networks == len(specs) == 15
    smaller = plan(section, monkeypatch, level=1)
    assert " ".join(smaller.words) == "To fit the budget: 1 class count (5) instead of 2."


def test_what_methods_do_not_have_is_not_left_out(section, monkeypatch):
    for methods, told in ((["lds"], ""), (["hl-gauss"], "To fit the budget: 1 class count (5) instead of 2.")):
        assert " ".join(plan(section, monkeypatch, methods=methods, level=0).words) == ""
        assert " ".join(plan(section, monkeypatch, methods=methods, level=-1).words).startswith(told or "To fit the budget: 32 pixels")


def test_a_timed_run_that_diverges_is_a_mistake_in_words(make_faces, monkeypatch, capsys):
    root = make_faces({"imdb_wiki": {"training": {"learning_rate": 1e25}}})
    monkeypatch.chdir(root)
    assert main(["advise", "imdb_wiki", "--methods", "lds"]) == 2
    assert "diverged in epoch 1" in (text := capsys.readouterr().err) and "Set a lower learning_rate in params.yaml" in text


def test_methods_without_classes_need_no_search(section, monkeypatch):
    found = plan(section, monkeypatch, methods=["focal-r"])
    assert found.section.grids.keys() == {"advice"} and found.networks == 6


def test_methods_by_classes_alone_need_no_search_but_have_all_class_counts(section, monkeypatch):
    found = plan(section, monkeypatch, methods=["hl-gauss"])
    assert found.section.grids.keys() == {"advice"} and found.networks == 3 * (1 + 2)
    assert found.section.grids["advice"].lambdas != "searched"


def test_sections_of_one_seed_get_more_for_a_test(section, monkeypatch):
    one = replace(section, training=replace(section.training, seeds=(1,)))
    assert plan(one, monkeypatch).section.training.seeds == (1, 0, 2)


def test_padding_shrinks_with_the_images(section):
    assert [(own.data.size, own.training.pad, side) for own, side in IMAGES.sizes(section)] == [(128, 4, 128), (64, 2, 64), (32, 1, 32)]


def test_depth_maps_keep_their_size(make_project):
    section = load_params(make_project() / "params.yaml").datasets["nyud2"]
    assert DEPTH.sizes(section) == [(section, 1)]


def test_timing_trains_for_a_moment_and_leaves_nothing(make_faces, monkeypatch):
    root = make_faces()
    params = load_params(root / "params.yaml")
    tracker = Tracker(root, experiment="regcls")
    session = Session(params=params, root=root, dataset="imdb_wiki", tracker=tracker)
    data = open_data(params, root, "imdb_wiki", verify=False)
    monkeypatch.setattr("regcls.training.single_study.SECONDS_TIMED", 0.1)
    monkeypatch.setattr(single_advice, "affordable", lambda plans, *_, **__: plans[0])
    assert 0 < IMAGES.plan(data, session, methods=["reg+cls"], budget=60).seconds < 600
    assert tracker.collect("imdb_wiki", ImageSpec).empty and not (root / ".regcls" / "checkpoints").exists()


@pytest.mark.slow
def test_an_answer_on_images_of_half_the_size(make_faces, monkeypatch, capsys):
    root = make_faces({"imdb_wiki": {"training": {"epochs": 3, "milestones": []}}})
    monkeypatch.chdir(root)
    monkeypatch.setattr("regcls.tasks.images.own.SMALLEST_SIDE", 16)
    monkeypatch.setattr(
        single_advice, "seconds_per_sample", lambda spec, study: 10 / spec.epochs / study.samples
    )  # 10 s a run, with overhead
    assert main(["advise", "imdb_wiki", "--budget", "70s"]) == 0
    out, err = capsys.readouterr()
    assert "9 networks for reg, reg+cls, reg+cls-bal; about 63 s" in err and "9 runs trained, 0 were there already" in err
    assert re.search(
        r"^reg\+cls with 10 classes, λ .*: [a-z0-9 %]+\. It has the (lower|higher) test MAE: .* over .* and 3 seeds\.", out, re.M
    )
    assert "For comparison, test MAE (years): reg" in out and "16 pixels instead of 32" in out and "Evidence: " in out
    runs = Tracker(root, experiment="regcls").collect("imdb_wiki", ImageSpec)
    assert set(runs["size"]) == {16} and set(runs["status"]) == {"FINISHED"}
    page = (root / "advice" / "imdb_wiki" / "imdb_wiki" / "index.html").read_text()
    assert all(run_id in page for run_id in runs["run_id"])
    again = advise(load_params(root / "params.yaml"), root, "imdb_wiki", budget="70s")
    assert again.report.answers == out.splitlines()[-len(again.report.answers) - 3 : -3] and "0 runs trained" in capsys.readouterr().err


def test_data_that_cannot_be_learned_are_refused_before_anything_is_timed(make_faces, monkeypatch, capsys):
    root = make_faces({"imdb_wiki": {"training": {"class_range": [200.0, 300.0]}}})
    monkeypatch.chdir(root)
    monkeypatch.setattr(single_advice, "seconds_per_sample", lambda *_: pytest.fail("timed"))
    assert main(["advise", "imdb_wiki"]) == 2
    assert "training targets are outside of its class range" in capsys.readouterr().err
