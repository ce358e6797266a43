"""params.yaml as it ships, and how scales lie over it. What is wrong with a file: test_bad_input.py."""

import pytest

from conftest import ROOT
from regcls.params import load_params, parse_options
from regcls.tasks.depth import runs as depth_runs
from regcls.runs import grids as image_runs
from regcls.tasks.sequences import runs as video_runs
from regcls.tasks.functions.runs import all_specs, expand


def test_the_shipped_file_is_the_published_protocol_at_paper_scale():
    synthetic = load_params(ROOT / "params.yaml", scale="paper").synthetic
    assert (synthetic.data.samples, synthetic.data.repetitions, len(synthetic.data.functions)) == (60000, 5, 10)
    assert synthetic.training.lam["noisy"] == 1000
    assert synthetic.training.learning_rate["ood"] == 1e-4
    networks = {name: len(expand(synthetic, grid)) * 10 for name, grid in synthetic.grids.items()}
    assert networks["figure3"] == 600 + 3000 + 3000
    assert networks["figure4"] == 19440
    new = len(set(expand(synthetic, synthetic.grids["figure5"])) - set(expand(synthetic, synthetic.grids["figure3"])))
    assert new * 10 == 4400


def test_demo_covers_every_sampling_clean_and_noisy_at_the_paper_protocol():
    demo, paper = (load_params(ROOT / "params.yaml", scale=scale).synthetic for scale in ("demo", "paper"))
    assert demo.training == paper.training
    shown = {(s.setting, s.sampling) for s in all_specs(demo)}
    assert shown == {(s.setting, s.sampling) for s in all_specs(paper) if s.setting != "ood"}
    assert set(all_specs(demo)) <= set(all_specs(paper))  # so that going to paper scale repeats nothing


@pytest.mark.parametrize("scale", ["demo", "paper"])
def test_both_data_sets_of_faces_have_one_protocol(scale):
    """Their sections are written out, so that each can be changed alone; as they come, only the data differ."""
    params = load_params(ROOT / "params.yaml", scale=scale)
    for part in ("training", "shots", "run", "grids"):
        assert getattr(params.agedb, part) == getattr(params.imdb_wiki, part)


def test_depth_and_video_are_the_published_protocols_at_paper_scale():
    params = load_params(ROOT / "params.yaml", scale="paper")
    depth, video = params.nyud2, params.breakfast
    assert (depth.data.expected_train, depth.data.expected_test, depth.data.crop) == (50688, 654, (228, 304))
    assert len(image_runs.all_specs(depth_runs.make_spec, depth, "nyud2", {})) == 3 * (1 + 3 + 3) + 3 * 2
    assert {depth.training.lam_for(classes) for classes in (2, 10)} == {0.1} and depth.training.lam_for(100) == 1.0
    assert len(video_runs.all_specs(video, "breakfast", {})) * 10 == 5 * 4 * 10 * 3 * 2


def test_the_buckets_of_depth_are_those_of_the_benchmark():
    shots = load_params(ROOT / "params.yaml").nyud2.shots
    many, medium = shots.buckets("many"), shots.buckets("medium")
    assert many == {*range(9, 46), 47, 49} and medium == {7, 8, 46, 48, *range(50, 57), 58, 60, 61, 63}


def test_options_come_as_text():
    options = parse_options("synthetic", {"classes": "100", "lambda": "1e2", "hidden": "6x15", "method": "reg+cls-bal"})
    assert (options.classes, options.lam, options.hidden, options.method, options.seed) == (100, 100.0, (6, 15), "reg+cls-bal", None)


@pytest.mark.parametrize("scale", ["demo", "paper"])
def test_the_scale_asked_for_wins_over_the_file(scale):
    assert load_params(ROOT / "params.yaml", scale=scale).scale == scale
