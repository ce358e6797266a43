"""Where a run comes from: commit, machine, versions of data and code."""

import ast
import hashlib
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

UNKNOWN = "unknown"
DIFF_BYTES = 200_000  # of uncommitted changes that are kept with a run; of more, the digest alone
NEW_FILES = 50  # names of files unknown to git that are kept
SOURCE = Path(__file__).parent  # of the package regcls


def git_tags(root: Path) -> dict[str, str]:
    """git_commit, git_branch and git_dirty (true where a tracked file differs from the commit); "unknown" outside a repository."""
    commit = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    branch = _git(root, "symbolic-ref", "--quiet", "--short", "HEAD")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    if branch is None and commit is not None:
        branch = "detached"
    dirty = UNKNOWN if changes is None else str(bool(changes)).lower()
    return {"git_commit": commit or UNKNOWN, "git_branch": branch or UNKNOWN, "git_dirty": dirty}


def lineage(root: Path, dataset: str) -> dict[str, Any]:
    """What runs on a data set come from, for a person who wants to make them again.

    git: see `git_tags`. changes: the tracked files' difference to the commit, as `git apply` takes it, with its size and SHA-256 (`diff` is
    None above DIFF_BYTES, or where it is not UTF-8); None without a commit. new_files: not known to git and not ignored, the first
    NEW_FILES. machine: see `machine_tags`. params.yaml: its text. dvc.lock: the entry of the stage that prepared the data, None if there is
    none. data_md5: see `dvc_md5`.
    """
    prepared = Path("data") / dataset / "prepared"
    try:
        params = (root / "params.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        params = None
    return {
        "git": git_tags(root),
        "changes": _changes(root),
        "new_files": (_git(root, "ls-files", "--others", "--exclude-standard") or "").splitlines()[:NEW_FILES],
        "machine": machine_tags(),
        "params.yaml": params,
        "dvc.lock": _locked_stages(root).get(f"prepare@{dataset}"),
        "data_md5": dvc_md5(root, prepared),
    }


def _changes(root: Path) -> dict[str, Any] | None:
    content = _git_bytes(root, "diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", "HEAD")
    if content is None:
        return None
    try:
        text = content.decode() if len(content) <= DIFF_BYTES else None
    except UnicodeDecodeError:
        text = None
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "diff": text}


def _git(root: Path, *arguments: str) -> str | None:
    """git's answer; None if it fails or is not installed."""
    content = _git_bytes(root, *arguments)
    return None if content is None else content.decode("utf-8", "replace").strip()


def _git_bytes(root: Path, *arguments: str) -> bytes | None:
    # GIT_OPTIONAL_LOCKS: `status` must not take the index's lock away from the user.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(["git", *arguments], cwd=root, env=environment, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def machine_tags() -> dict[str, str]:
    """host, cpus, gpu (its name or "none") and the versions of python, torch, numpy and mlflow.

    The GPU is looked for only if torch is imported already: a process that does not train should not wait for it.
    """
    torch: Any = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else "none"
    versions = {name: _version(name) for name in ("torch", "numpy", "mlflow")}
    return {"host": socket.gethostname(), "cpus": str(os.cpu_count()), "gpu": gpu, "python": platform.python_version(), **versions}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return UNKNOWN


def dvc_md5(root: Path, path: Path) -> str:
    """The MD5 that dvc.lock records for the output `path` (relative to `root`, or absolute); "unknown" if none."""
    try:
        outputs = {out["path"]: out["md5"] for stage in _locked_stages(root).values() for out in stage.get("outs", ())}
    except (KeyError, TypeError, AttributeError):  # of another format
        return UNKNOWN
    relative = path.relative_to(root) if path.is_absolute() and path.is_relative_to(root) else path
    return str(outputs.get(relative.as_posix(), UNKNOWN))


def _locked_stages(root: Path) -> dict[str, Any]:
    """What dvc.lock says, by stage; nothing if it is absent, in the middle of a merge, or of another format."""
    try:
        return dict(yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))["stages"])
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return {}


def import_closure(module: str, *, without: Callable[[Path], bool] = lambda file: False) -> list[Path]:
    """The source files of regcls that `module` ("regcls.training.ensemble") imports, directly or through others, with its own; sorted.

    Imports inside functions count too, those under `if TYPE_CHECKING` do not. A package's __init__.py counts when something in it does.
    Files that are to be left out (`without`) do not count, nor does what they alone import.

    Raises:
        ModuleNotFoundError: regcls has no such module.
    """
    _known_file(module)
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen or without(_known_file(name)):
            continue
        seen.add(name)
        waiting += _imports(name)
    return sorted(file for name in seen if (file := _file(name)))


def _file(module: str) -> Path | None:
    package, *rest = module.split(".")
    if package != SOURCE.name:
        return None
    path = SOURCE.joinpath(*rest)
    for file in (path / "__init__.py", path.with_suffix(".py") if rest else path):
        if file.is_file():
            return file
    return None


def _known_file(module: str) -> Path:
    file = _file(module)
    if file is None:
        raise ModuleNotFoundError(f"no module {module} in {SOURCE}", name=module)
    return file


def _imports(module: str) -> list[str]:
    """The modules of regcls that must be there for `module`: those it names, and the packages that they and itself lie in."""
    file = _file(module)
    assert file is not None
    names = [module]
    for node in _executed(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from regcls import files` names a module, `from regcls.files import lock` a part of one: _file tells.
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    parents = [name.rsplit(".", end)[0] for name in names for end in range(1, name.count(".") + 1)]
    return [name for name in dict.fromkeys([*names, *parents]) if _file(name)]


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and all nodes below it, but for those under `if TYPE_CHECKING`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            yield from _executed(child)


def code_digest(module: str, *, alone: Sequence[str] = (), without_params: bool = False) -> str:
    """SHA-256 of the code of `module` with all it imports of regcls, and of the modules `alone` without what they import.

    `without_params`: not of the code that reads params.yaml, nor of methods and the list of tasks with it, for whom knows the values
    themselves; nor of what that code alone imports.

    Comments, docstrings and formatting do not count, nor do names and folders of files, and which module of regcls a name is imported
    from: code that is moved makes no tracked run stale. So two functions of regcls with one name are taken for one another; `other as name`
    counts, and so do imports of other libraries.

    Raises:
        ModuleNotFoundError: regcls has no such module.
    """
    params = [*(SOURCE / "params").glob("*.py"), *(SOURCE / "methods").glob("*.py"), SOURCE / "tasks" / "__init__.py"]
    reading = set(params) if without_params else set[Path]()
    closure = import_closure(module, without=lambda file: file in reading or (without_params and file.stem == "params"))
    files = {*closure, *map(_known_file, alone)}
    code = sorted(filter(None, (ast.unparse(_Code().visit(ast.parse(file.read_bytes()))) for file in files)))
    return hashlib.sha256("\n".join(code).encode()).hexdigest()


class _Code(ast.NodeTransformer):
    """Takes docstrings out, and imports of regcls."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Leave no body empty."""
        super().generic_visit(node)
        if getattr(node, "body", None) == [] and not isinstance(node, ast.Module):
            node.body = [ast.Pass()]  # type: ignore[attr-defined]
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """A docstring, or a text that does nothing elsewhere."""
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> ast.stmt | None:
        """Of those of regcls only `other as name` is left."""
        module = node.names[0].name if isinstance(node, ast.Import) else node.module
        if (module or "").partition(".")[0] != SOURCE.name:
            return node
        node.names = [alias for alias in node.names if alias.asname not in (None, alias.name)]
        return ast.Import(names=node.names) if node.names else None

    visit_ImportFrom = visit_Import
