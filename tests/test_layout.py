"""What holds for the project as a whole: who imports whom, and that dvc.yaml names what the stages read."""

import ast

import pytest
import yaml

from conftest import ROOT
from regcls.provenance import import_closure

SOURCE = ROOT / "src" / "regcls"
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
CORE = ["regcls.classes", "regcls.losses", "regcls.metrics", "regcls.models.mlp", "regcls.models.predictor", "regcls.training.ensemble"]
CORE += ["regcls.tasks.depth.metrics", "regcls.tasks.depth.model", "regcls.models.pretrained", "regcls.training.loop"]


def imported(file):
    """Top-level names of the packages that a file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def says_nothing(file):
    """An __init__.py with a docstring alone."""
    return len(ast.parse(file.read_text()).body) <= 1


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_source_file_that_it_imports(stage):
    listed = [ROOT / dep for dep in STAGES[stage]["deps"] if "$" not in dep]
    missing = [
        f
        for f in import_closure(f"regcls.pipeline.{stage}")
        if not says_nothing(f) and not any(f == dep or dep in f.parents for dep in listed)
    ]
    assert not missing


@pytest.mark.parametrize("stage", STAGES)
def test_every_source_file_that_a_stage_lists_exists(stage):
    assert all((ROOT / dep).exists() for dep in STAGES[stage]["deps"] if dep.startswith("src/"))


@pytest.mark.parametrize("module", CORE)
def test_the_core_needs_torch_numpy_and_pandas_only(module):
    for file in import_closure(module):
        foreign = set(imported(file)) - {"torch", "numpy", "pandas", "jaxtyping", "regcls"}
        assert not {name for name in foreign if name not in __import__("sys").stdlib_module_names}


def calls(file):
    """Names of the functions that a file calls."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            yield getattr(node.func, "id", None) or getattr(node.func, "attr", None)


def test_only_params_and_provenance_read_yaml_and_only_the_command_line_loads_the_params():
    """So that params.yaml has one reader and all others are given values; provenance reads dvc.lock."""
    files = list(SOURCE.rglob("*.py"))
    assert {str(file.relative_to(SOURCE)) for file in files if "yaml" in imported(file)} == {"params/__init__.py", "provenance.py"}
    assert {file.name for file in files if "load_params" in calls(file)} == {"cli.py"}


@pytest.mark.parametrize("stage", ["train", "compare"])
def test_a_stage_that_uses_the_store_is_redone_at_another_scale_or_in_another_experiment(stage):
    assert {"scale", "tracking.experiment"} <= set(STAGES[stage]["params"])


def test_the_train_stage_reads_all_that_its_runs_are_made_from():
    """The whole section: a key that is left out would leave runs stale without a word."""
    assert "${item.dataset}" in STAGES["train"]["params"]
