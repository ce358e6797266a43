"""benchmarks/gpu.py: the whole report with tiny sizes on the CPU, and what is kept if a part fails or time runs out."""

import importlib
import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import ROOT

# As a sitecustomize.py: a machine with PyTorch, pandas, albumentations, rich and pydantic. SciPy is there for albumentations, which needs it.
BARE = """
import sys
from importlib import machinery

class PathFinder(machinery.PathFinder):  # jaxtyping looks for this name
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top, frame = name.partition(".")[0], sys._getframe()
        if top == "scipy":
            while frame and not any(part in frame.f_code.co_filename for part in ("/albumentations/", "/albucore/", "/scipy/")):
                frame = frame.f_back
        missing = top in {"mlflow", "dvc", "boto3", "matplotlib", "sklearn"} or not frame
        return None if missing else super().find_spec(name, path, target)

sys.meta_path[:] = [PathFinder if finder is machinery.PathFinder else finder for finder in sys.meta_path]
"""
PARTS = {"ceilings": 4, "tests": 0, "ensemble": 6, "video": 4, "head": 8, "resnet": 10, "depth": 18, "projections": 11}  # figures of each


def report(tmp_path: Path, *words: str, paths: tuple[Path, ...] = ()) -> tuple[int, dict[str, Any], str]:
    """Exit code, report.json and report.md of a tiny run."""
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", "cpu", "--tiny", "--out", str(tmp_path), *words]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": ":".join(map(str, paths))}, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    text = (tmp_path / "cpu" / "report.md").read_text()
    return done.returncode, json.loads((tmp_path / "cpu" / "report.json").read_text()), text


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_part_has_figures_without_mlflow_dvc_and_scikit_learn(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(BARE)
    code, found, text = report(tmp_path, "--minutes", "20", paths=(tmp_path,))
    assert code == 0
    parts = found["parts"]
    assert {part["state"] for part in parts.values()} == {"done"}
    assert parts["tests"]["figures"] == [{"what": "tests", "note": "not run, since they need mlflow"}]
    figures = {name: [row for row in part["figures"] if "median" in row] for name, part in parts.items()}
    assert {name: len(rows) for name, rows in figures.items()} == PARTS
    for name, part in parts.items():
        assert f"## {part['title']}\n" in text
        assert all(0 < row["least"] <= row["median"] <= row["greatest"] or "waiting" in row["what"] for row in figures[name])
        assert all(f"| {row['what']} | " in text for row in figures[name])
    assert [row["n"] for row in figures["ensemble"]] == [2] * 6 and all(row["ratio"] > 0 for row in figures["ensemble"])
    fed = next(row for row in figures["resnet"] if "through the feed" in row["what"])
    assert fed["aim"] == "ratio >= 0.95" and fed["met"] == (fed["ratio"] >= 0.95)
    assert figures["projections"][0]["what"] == "section 2, 27800 networks"


@pytest.mark.slow
def test_the_tests_marked_gpu_are_counted(tmp_path):
    code, found, _ = report(tmp_path, "--parts", "tests")
    counts = {row["what"]: row["median"] for row in found["parts"]["tests"]["figures"]}
    assert code == 0 and sum(counts.values()) >= 5
    assert set(counts) == {"passed" if torch.cuda.is_available() else "skipped"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_one_line_says_so():
    done = subprocess.run([sys.executable, str(ROOT / "benchmarks" / "gpu.py")], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "gpu.py: PyTorch sees no GPU; check nvidia-smi, or try the report on the CPU with: --device cpu --tiny\n"


@pytest.fixture
def parts(monkeypatch, signals):
    """The module, without time reserved for a last part."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("parts")
    monkeypatch.setattr(module, "RESERVED", 0)
    return module


def measured(parts, folder: Path, minutes: float, **sources: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, report.json and report.md of parts that are small programs; `row(…)` in them writes a figure."""

    def measure():
        """About it."""

    def command(name: str, seconds: float, report: Path, rows: Path) -> list[str]:
        row = f"def row(text): open({str(rows)!r}, 'a').write(text)"
        return [sys.executable, "-c", f"import os, subprocess, sys, time\n{row}\n{sources[name]}"]

    options = Namespace(device="cpu", minutes=minutes, out=folder, parts=list(sources))
    code = parts.measure_all({name: parts.Part(f"Part {name}", 60, measure) for name in sources}, options, command)
    return code, json.loads((folder / "cpu" / "report.json").read_text()), (folder / "cpu" / "report.md").read_text()


ROW = '{"what": "speed", "median": 2.0, "least": 1.0, "greatest": 3.0, "n": 2, "unit": "m/s"}\n'


def test_a_part_that_fails_is_named_and_the_others_run(parts, tmp_path):
    broken = f"row({ROW!r}); sys.excepthook = lambda *it: sys.__excepthook__(*it) or print('leaked', file=sys.stderr); raise RuntimeError('CUDA out of memory')"
    code, found, text = measured(parts, tmp_path, 2.0, broken=broken, killed="os.kill(os.getpid(), 9)", last=f"row({ROW!r})")
    states = {name: (part["state"], part["error"], len(part["figures"])) for name, part in found["parts"].items()}
    assert code == 1
    assert states == {
        "broken": ("failed", "RuntimeError: CUDA out of memory", 1),
        "killed": ("failed", "killed by signal 9", 0),
        "last": ("done", "", 1),
    }
    assert "- **Part broken: failed**: RuntimeError: CUDA out of memory\n- **Part killed: failed**: killed by signal 9\n" in text
    assert text.count("| speed | 2 (1 to 3) | 2 | m/s |  |  |  |") == 2


def test_what_was_measured_is_kept_when_time_runs_out(parts, tmp_path):
    marker = tmp_path / "alive"
    child = f"import time, pathlib; time.sleep(8); pathlib.Path({str(marker)!r}).touch()"
    long = f"subprocess.Popen([sys.executable, '-c', {child!r}]); row({ROW!r} + '{{\"what\": \"sp'); time.sleep(60)"
    code, found, text = measured(parts, tmp_path, 0.08, first=f"row({ROW!r})", long=long, never="")
    states = {name: (part["state"], len(part["figures"])) for name, part in found["parts"].items()}
    assert code == 1
    assert states == {"first": ("done", 1), "long": ("stopped", 1), "never": ("stopped", 0)}
    assert "- **Part never: stopped**: no time was left for it\n" in text
    assert not marker.exists()


def test_figures_stand_beside_what_they_are_compared_with(parts):
    row = parts.figure("a", [1.0, 4.0, 2.0], "m", beside=("b", 8.0), aim="ratio >= 0.5")
    assert (row["median"], row["least"], row["greatest"], row["n"], row["ratio"], row["met"]) == (2.0, 1.0, 4.0, 3, 0.25, False)
    assert parts.figure("a", [1.0], "%", aim="< 2")["met"] and not parts.figure("a", [2.0], "%", aim="< 2")["met"]
    assert not {"ratio", "aim"} & parts.figure("a", [1.0], "m", beside=("b", None), aim="ratio < 1").keys()


def test_a_clock_leaves_out_the_warm_up(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    step = importlib.import_module("step")
    clock, waits = step.Clock("cpu", warm_up=3, steps=2), []
    for _ in step.waited_for(iter(range(8)), waits):
        clock.batch(16, "")
    assert len(clock.speeds) == 2 and len(waits) == 8
    assert clock.seconds == pytest.approx(sum(32 / speed for speed in clock.speeds))
