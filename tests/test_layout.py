"""Architecture: who imports whom; only a task's folder knows the task, and only params.yaml its data sets."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import CHECKED, ROOT, SHIPPED
from regcls.provenance import import_closure
from regcls.tasks import TASKS

SOURCE = ROOT / "src" / "regcls"
FILES = {file.relative_to(SOURCE).as_posix(): file for file in sorted(SOURCE.rglob("*.py"))}  # "tasks/many.py": …
PURE = ["regcls.classes", "regcls.losses", "regcls.metrics", "regcls.models.mlp", "regcls.models.predictor", "regcls.training.ensemble"]
PURE += ["regcls.tasks.depth.metrics", "regcls.tasks.depth.model", "regcls.models.pretrained", "regcls.training.loop"]

# From top to bottom: a part imports from itself and from those below. Parts of one line do not import each other. The list of tasks,
# `regcls.tasks` itself, may be imported by all.
LAYERS = (
    {"__main__", "api"},
    {"cli"},
    {"pipeline"},
    {"checks"},
    {"tasks"},
    {"training", "reports"},
    {"tracking"},
    {"data"},
    {"dvc_lock", "dvc_remote", "mlproject", "models", "object_store", "options", "runs"},
    {"params"},
    {"methods"},
    {"classes", "files", "losses", "metrics", "processes", "progress", "provenance", "proxy", "relevance"},
    {"__init__", "choices", "errors", "words"},
)
HEIGHT = {part: -number for number, parts in enumerate(LAYERS) for part in parts}

PAPER = re.compile(r"\b(imdb_wiki|agedb|nyud2|breakfast|synthetic)\b")  # its data sets
PRINTED = re.compile(r"imdb|agedb|nyud|breakfast|(table|figure) ?[1-9]", re.IGNORECASE)  # data sets and tables, in the spellings of readers
HELP = re.compile(r"(Example: )?regcls ")  # the start of an example on the command line


def runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes except imports for annotations only."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            yield from runtime_nodes(child)


def imports(file: Path) -> Iterator[str]:
    """The modules that a file imports; for `from regcls import files`, `regcls.files`."""
    for node in runtime_nodes(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = SOURCE.parent.joinpath(*node.module.split("."), alias.name)
                yield f"{node.module}.{alias.name}" if inner.is_dir() or inner.with_suffix(".py").is_file() else node.module


def own_imports(file: Path) -> Iterator[tuple[str, ...]]:
    """The imported modules of regcls: ("data", "store")."""
    for module in imports(file):
        package, *parts = module.split(".")
        if package == "regcls" and parts not in ([], ["tasks"]):
            yield tuple(parts)


def part_of(name: str) -> str:
    return name.split("/")[0].removesuffix(".py")


def test_modules_with_checked_shapes_exist():
    assert {f"{name.replace('.', '/')}.py" for name in CHECKED} <= FILES.keys()


def test_every_module_belongs_to_a_layer():
    assert {part_of(name) for name in FILES} == HEIGHT.keys()


def test_imports_go_down_the_layers_only():
    wrong = [
        f"{name} imports {'.'.join(module)}"
        for name, file in FILES.items()
        for module in own_imports(file)
        if HEIGHT[module[0]] >= HEIGHT[part_of(name)] and module[0] != part_of(name)
    ]
    assert wrong == []


def foreign_tasks(name: str) -> set[str]:
    """The tasks from whose folders a file imports, except its own."""
    own = name.split("/")[1] if name.startswith("tasks/") else ""
    return {module[1] for module in own_imports(FILES[name]) if module[0] == "tasks" and module[1] in TASKS} - {own}


def test_nothing_outside_a_task_imports_from_its_folder():
    assert {name: found for name in FILES if (found := foreign_tasks(name))} == {}


def test_shared_reports_import_no_task():
    reports = {name: file for name, file in FILES.items() if part_of(name) == "reports"}
    assert {name for name, file in reports.items() if any(module.startswith("regcls.tasks") for module in imports(file))} == set()


def words(file: Path) -> Iterator[str]:
    """Identifiers and strings of a file, without comments, docstrings and examples in help."""
    tree = ast.parse(file.read_text())
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent and not HELP.match(node.value):
            yield node.value
        yield from (value for field in ("id", "attr", "name", "arg") if isinstance(value := getattr(node, field, None), str))


def test_no_code_names_a_data_set_of_the_paper():
    named = {name: {word for word in words(file) if PAPER.search(word)} for name, file in FILES.items()}
    assert {name: found for name, found in named.items() if found} == {  # allowed values of `published:`
        "tasks/depth/params.py": {"nyud2"},
        "tasks/images/params.py": {"imdb_wiki"},
        "tasks/sequences/params.py": {"breakfast"},
    }


def test_shared_reports_name_no_data_set_or_table_of_the_paper():
    named = {name: {word for word in words(file) if PRINTED.search(word)} for name, file in FILES.items() if part_of(name) == "reports"}
    assert {name: found for name, found in named.items() if found} == {}
    texts = {file.name: re.sub("<style>.*?</style>", "", file.read_text(), flags=re.DOTALL) for file in (SOURCE / "reports").glob("*.html")}
    assert len(texts) >= 4 and not [name for name, text in texts.items() if PRINTED.search(text)]


def test_dvc_yaml_names_no_data_set_and_runs_one_command_per_stage():
    text = re.sub("#.*", "", (ROOT / "dvc.yaml").read_text())
    datasets = [name for name in SHIPPED if (ROOT / "data" / name / "raw").is_dir()]
    assert len(datasets) >= 9 and not [name for name in datasets if re.search(rf"\b{name}\b", text)]
    assert re.findall(r"cmd: (.*)", text) == [
        f"PYTHONPATH=src python -m regcls {command}"
        for command in ("inputs", "prepare ${item.dataset}", "train ${item.dataset}", "compare")
    ]


@pytest.mark.parametrize("module", PURE)
def test_computing_modules_need_only_torch_numpy_and_pandas(module):
    for file in import_closure(module):
        foreign = {name.split(".")[0] for name in imports(file)} - {"torch", "numpy", "pandas", "jaxtyping", "regcls"}
        assert not foreign - sys.stdlib_module_names


def calls(file: Path) -> set[str | None]:
    """Names of the functions that a file calls."""
    found = (node.func for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
    return {getattr(function, "id", None) or getattr(function, "attr", None) for function in found}


def test_only_the_command_line_loads_the_params():
    """params.yaml has one reader, and all others receive values; provenance reads dvc.lock."""
    assert {name for name, file in FILES.items() if "read_yaml" in calls(file)} == {"params/__init__.py"}
    assert {name for name, file in FILES.items() if "safe_load" in calls(file)} == {"provenance.py"}
    assert {name for name, file in FILES.items() if "load_params" in calls(file)} == {"cli.py", "api.py"}
