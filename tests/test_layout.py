"""What holds for the project as a whole: who imports whom, and that dvc.yaml names what the stages read."""

import ast

import pytest
import yaml

from conftest import ROOT
from regcls.provenance import import_closure

SOURCE = ROOT / "src" / "regcls"
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
CORE = ["regcls.classes", "regcls.losses", "regcls.models.mlp", "regcls.training.ensemble"]


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
        for f in import_closure(f"regcls.stages.{stage}")
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


def test_params_yaml_has_one_reader():
    readers = [file.name for file in SOURCE.rglob("*.py") if "params.yaml" in file.read_text() and "load_params" in file.read_text()]
    assert sorted(readers) == ["cli.py", "params.py"]
