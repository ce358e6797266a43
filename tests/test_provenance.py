"""Provenance with real git repositories and the project's own source."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from regcls import provenance
from regcls.provenance import code_digest, dvc_md5, git_refusal, git_tags, import_closure, machine_tags
from repositories import git

SOURCE = Path(provenance.__file__).parent


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--initial-branch=trunk")
    (tmp_path / "a.txt").write_text("a")
    git(tmp_path, "add", "a.txt")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package `regcls`: a imports b, b imports a part of a subpackage, which imports a again."""
    root = tmp_path / "regcls"
    (root / "part").mkdir(parents=True)
    for name, text in {
        "__init__.py": "",
        "a.py": '"""Doc."""\nimport os\nfrom regcls import b\n\n\ndef double(x):\n    """Twice."""\n    return 2 * x  # a comment\n',
        "b.py": "def late():\n    import regcls.part.c\n",
        "alone.py": "import numpy\n",
        "part/__init__.py": "",
        "part/c.py": "from regcls.a import double\n\nfour = double(2)\n",
    }.items():
        (root / name).write_text(text)
    monkeypatch.setattr(provenance, "SOURCE", root)
    return root


def names(files: list[Path], root: Path) -> list[str]:
    return [file.relative_to(root).as_posix() for file in files]


def test_a_clean_commit_is_reported(repository: Path) -> None:
    assert git_tags(repository) == {"git_commit": git(repository, "rev-parse", "HEAD").strip(), "git_branch": "trunk", "git_dirty": "false"}


def test_a_changed_file_makes_the_commit_dirty_but_a_new_one_does_not(repository: Path) -> None:
    (repository / "new.txt").write_text("new")
    assert git_tags(repository)["git_dirty"] == "false"
    (repository / "a.txt").write_text("changed")
    assert git_tags(repository)["git_dirty"] == "true"


def test_a_detached_head_has_no_branch(repository: Path) -> None:
    git(repository, "checkout", "--detach")
    assert git_tags(repository)["git_branch"] == "detached"


def test_a_repository_without_commits_has_a_branch(tmp_path: Path) -> None:
    git(tmp_path, "init", "--initial-branch=trunk")
    assert git_tags(tmp_path) == {"git_commit": "unknown", "git_branch": "trunk", "git_dirty": "false"}


def test_outside_a_repository_everything_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert set(git_tags(tmp_path).values()) == {"unknown"}


def test_without_git_everything_is_unknown(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repository))
    assert set(git_tags(repository).values()) == {"unknown"}


def test_git_refuses_another_users_folder_with_a_remedy(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git_refusal(repository) is None
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    refusal = git_refusal(repository)
    assert refusal and refusal.endswith(f"git config --global --add safe.directory {repository}")
    assert git_tags(repository)["git_commit"] == "unknown"


def test_the_machine_is_described_in_text(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = machine_tags()
    assert set(tags) == {"host", "cpus", "gpu", "python", "torch", "numpy", "mlflow"}
    assert all(isinstance(value, str) and value for value in tags.values())
    assert tags["python"] == ".".join(map(str, sys.version_info[:3]))


def test_describing_the_machine_does_not_import_torch() -> None:
    code = "import sys; from regcls.provenance import machine_tags; machine_tags(); sys.exit(bool({'torch', 'mlflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SOURCE.parent)}, check=False).returncode == 0


def test_the_md5_of_an_output_is_read_from_dvc_lock(tmp_path: Path) -> None:
    outputs = "outs: [{path: data/functions/prepared, md5: abc.dir}]"
    (tmp_path / "dvc.lock").write_text(f"schema: '2.0'\nstages: {{prepare@functions: {{cmd: x, {outputs}}}, train: {{cmd: y}}}}\n")
    assert dvc_md5(tmp_path, Path("data/functions/prepared")) == "abc.dir"
    assert dvc_md5(tmp_path, tmp_path / "data/functions/prepared") == "abc.dir"
    assert dvc_md5(tmp_path, Path("data/other")) == "unknown"


@pytest.mark.parametrize("text", ["", "stages: 3", "<<<<<<< HEAD", "stages: {a: {outs: [x]}}"])
def test_a_useless_dvc_lock_gives_unknown(tmp_path: Path, text: str) -> None:
    assert dvc_md5(tmp_path, Path("data")) == "unknown"
    (tmp_path / "dvc.lock").write_text(text)
    assert dvc_md5(tmp_path, Path("data")) == "unknown"


def test_the_closure_follows_all_forms_of_imports_and_cycles(package: Path) -> None:
    everything = ["__init__.py", "a.py", "b.py", "part/__init__.py", "part/c.py"]
    assert names(import_closure("regcls.a"), package) == everything
    assert names(import_closure("regcls.part.c"), package) == everything
    assert names(import_closure("regcls.alone"), package) == ["__init__.py", "alone.py"]


def test_type_checking_imports_are_not_in_the_closure(package: Path) -> None:
    (package / "alone.py").write_text("from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from regcls import a\n")
    assert names(import_closure("regcls.alone"), package) == ["__init__.py", "alone.py"]


def test_a_missing_module_has_neither_closure_nor_digest(package: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"regcls\.nothing"):
        import_closure("regcls.nothing")
    with pytest.raises(ModuleNotFoundError, match=r"regcls\.nothing"):
        code_digest("regcls.a", alone=["regcls.nothing"])


def test_the_closure_contains_what_python_really_imports() -> None:
    code = "import sys, regcls.runs; print('\\n'.join(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'regcls'))"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE.parent)}
    imported = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert set(imported) <= set(map(str, import_closure("regcls.runs")))


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("  # a comment", "", True),
        ('"""Twice."""', '"""Two times."""', True),
        ('    """Twice."""\n', "", True),
        ("2 * x", "(2*x)", True),
        ("2 * x", "3 * x", False),
        ("import os", "import sys", False),
        ("from regcls import b", "from regcls import alone as b", False),
        ("double", "twice", False),
    ],
)
def test_the_digest_covers_code_only(package: Path, old: str, new: str, same: bool) -> None:
    before = code_digest("regcls.part.c")
    text = (package / "a.py").read_text()
    (package / "a.py").write_text(text.replace(old, new))
    assert (code_digest("regcls.part.c") == before) is same


def test_code_moved_to_another_file_keeps_its_digest(package: Path) -> None:
    before = code_digest("regcls.part.c")
    (package / "moved").mkdir()
    (package / "moved" / "__init__.py").write_text("")
    (package / "a.py").rename(package / "moved" / "first.py")
    (package / "part" / "c.py").write_text("from regcls.moved.first import double\n\nfour = double(2)\n")
    assert "moved/first.py" in names(import_closure("regcls.part.c"), package)
    assert code_digest("regcls.part.c") == before
    (package / "moved" / "first.py").write_text("from regcls import b\n")
    assert code_digest("regcls.part.c") != before


def test_modules_given_as_alone_count_without_their_imports(package: Path) -> None:
    before = code_digest("regcls.alone", alone=["regcls.part.c"])
    assert before != code_digest("regcls.alone")
    (package / "a.py").write_text("changed = 1\n")
    assert code_digest("regcls.alone", alone=["regcls.part.c"]) == before
    (package / "part" / "c.py").write_text("changed = 1\n")
    assert code_digest("regcls.alone", alone=["regcls.part.c"]) != before


@pytest.mark.parametrize(
    ("file", "same"),
    [("params/types.py", True), ("part/params.py", True), ("tasks/__init__.py", True), ("part/c.py", False), ("b.py", False)],
)
def test_without_params_the_digest_ignores_code_that_reads_params(package: Path, file: str, same: bool) -> None:
    for folder, text in {"params": "import regcls.tasks\n", "tasks": "TASKS = ('part',)\n"}.items():
        (package / folder).mkdir()
        (package / folder / "__init__.py").write_text(text)
    (package / "params" / "types.py").write_text("Count = int\n")
    (package / "part" / "params.py").write_text("from regcls.params.types import Count\n")
    (package / "part" / "c.py").write_text("import regcls.a\nfrom regcls.part.params import Count\n")
    before, whole = code_digest("regcls.part.c", without_params=True), code_digest("regcls.part.c")
    (package / file).write_text((package / file).read_text() + "MORE = 1\n")
    assert (code_digest("regcls.part.c", without_params=True) == before) is same
    assert code_digest("regcls.part.c") != whole


def test_only_tracking_and_mlflow_run_import_mlflow() -> None:
    def imports_mlflow(file: Path) -> bool:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
        modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        modules += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
        return any(name.split(".")[0] == "mlflow" for name in modules)

    found = {file.relative_to(SOURCE) for file in SOURCE.rglob("*.py") if imports_mlflow(file)}
    served = Path("tasks/table/served.py")  # code of a logged model, which this project does not import
    assert {file for file in found if file.parent.name != "tracking"} == {Path("mlproject.py"), served}
