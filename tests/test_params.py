"""params.yaml as it ships, and how scales lie over it. What is wrong with a file: test_bad_input.py."""

import pytest

from conftest import ROOT
from regcls.params import load_params, parse_options
from regcls.runs.synthetic import all_specs, expand


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


def test_options_come_as_text():
    options = parse_options("synthetic", {"classes": "100", "lambda": "1e2", "hidden": "6x15", "method": "reg+cls-bal"})
    assert (options.classes, options.lam, options.hidden, options.method, options.seed) == (100, 100.0, (6, 15), "reg+cls-bal", None)


@pytest.mark.parametrize("scale", ["demo", "paper"])
def test_the_scale_asked_for_wins_over_the_file(scale):
    assert load_params(ROOT / "params.yaml", scale=scale).scale == scale
