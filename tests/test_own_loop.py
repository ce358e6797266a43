"""The example of docs/own-data.md: a class loss in a plain PyTorch loop."""

import re
import runpy

import torch

from conftest import ROOT


def test_the_example_trains_a_network_that_has_learned_something(capsys):
    with torch.random.fork_rng():
        runpy.run_path(str(ROOT / "docs" / "own_loop.py"))
    rmse, of_mean = map(float, re.fullmatch(r"test RMSE ([\d.]+), of the mean ([\d.]+)\n", capsys.readouterr().out).groups())
    assert rmse < 0.3 * of_mean


def test_the_guide_names_the_example():
    assert "(own_loop.py)" in (ROOT / "docs" / "own-data.md").read_text()
