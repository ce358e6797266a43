"""The provenance of a run: commit, machine, versions of data and code."""

import ast
import hashlib
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

UNKNOWN = "unknown"
DIFF_BYTES = 200_000  # most bytes of uncommitted changes to record; of larger ones only the digest
NEW_FILES = 50  # most names of untracked files to record
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


def git_refusal(root: Path) -> str | None:
    """Why git says nothing of `root`, and what to do, if it takes the folder for another user's; else None."""
    try:
        completed = _run_git(root, "rev-parse", "--git-dir")
    except (OSError, subprocess.TimeoutExpired):
        return None
    if not (found := re.search(rb"dubious ownership in repository at '(.*)'", completed.stderr)):
        return None
    folder = shlex.quote(os.fsdecode(found[1]))
    return (
        f"git refuses {folder}, which belongs to another user: runs are tracked without their commit. If you trust its owner: "
        f"git config --global --add safe.directory {folder}"
    )


def lineage(root: Path, dataset: str) -> dict[str, Any]:
    """The provenance of runs on a data set, from which they can be reproduced.

    git: see `git_tags`. changes: diff of the tracked files against the commit, for `git apply`, with its size and SHA-256 (`diff` is None
    above DIFF_BYTES, or if it is not UTF-8); None without a commit. new_files: the first NEW_FILES untracked files that are not ignored.
    machine: see `machine_tags`. params.yaml: its text. dvc.lock: the entry of the stage that prepared the data, or None. data_md5: see
    `dvc_md5`.
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
        "dvc.lock": locked_stages(root).get(f"prepare@{dataset}"),
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
    """Output of a git command; None if it fails or git is not installed."""
    content = _git_bytes(root, *arguments)
    return None if content is None else content.decode("utf-8", "replace").strip()


def _git_bytes(root: Path, *arguments: str) -> bytes | None:
    try:
        completed = _run_git(root, *arguments)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return completed.stdout if completed.returncode == 0 else None


def _run_git(root: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    # GIT_OPTIONAL_LOCKS: `status` must not lock the index, which would block the user's git commands.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    return subprocess.run(["git", *arguments], cwd=root, env=environment, capture_output=True, timeout=60, check=False)


def machine_tags() -> dict[str, str]:
    """host, cpus, gpu (see `gpu_name`) and the versions of python, torch, numpy and mlflow."""
    versions = {name: _version(name) for name in ("torch", "numpy", "mlflow")}
    return {"host": socket.gethostname(), "cpus": str(os.cpu_count()), "gpu": gpu_name(), "python": platform.python_version(), **versions}


def gpu_name() -> str:
    """The name of the first GPU that this process sees, or "none".

    Only if torch is imported already: a process that does not train should not wait for the import.
    """
    torch: Any = sys.modules.get("torch")
    return str(torch.cuda.get_device_name()) if torch is not None and torch.cuda.is_available() else "none"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return UNKNOWN


def dvc_md5(root: Path, path: Path) -> str:
    """The MD5 that dvc.lock records for the output `path` (relative to `root`, or absolute); "unknown" if none."""
    try:
        outputs = {out["path"]: out["md5"] for stage in locked_stages(root).values() for out in stage.get("outs", ())}
    except (KeyError, TypeError, AttributeError):  # another format
        return UNKNOWN
    relative = path.relative_to(root) if path.is_absolute() and path.is_relative_to(root) else path
    return str(outputs.get(relative.as_posix(), UNKNOWN))


def locked_stages(root: Path) -> dict[str, Any]:
    """The entries of dvc.lock by stage; empty if it is absent, has merge conflicts, or another format."""
    try:
        return dict(yaml.safe_load((root / "dvc.lock").read_text(encoding="utf-8"))["stages"])
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, RecursionError):
        return {}


def import_closure(module: str, *, without: Callable[[Path], bool] = lambda file: False) -> list[Path]:
    """The file of `module` ("regcls.training.ensemble") and all files of regcls that it imports, directly or indirectly; sorted.

    Includes imports inside functions, but not under `if TYPE_CHECKING`, and the __init__.py of each package that a module is in. Excludes
    files for which `without` is true, and files that only they import.

    Raises:
        ModuleNotFoundError: regcls has no such module.
    """
    _existing_file(module)
    seen: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        if name in seen or without(_existing_file(name)):
            continue
        seen.add(name)
        pending += _imports(name)
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


def _existing_file(module: str) -> Path:
    file = _file(module)
    if file is None:
        raise ModuleNotFoundError(f"no module {module} in {SOURCE}", name=module)
    return file


def _imports(module: str) -> list[str]:
    """The modules of regcls that importing `module` needs: those it imports, and all parent packages."""
    file = _file(module)
    assert file is not None
    names = [module, *_imported(file.read_bytes())]
    parents = [name.rsplit(".", end)[0] for name in names for end in range(1, name.count(".") + 1)]
    return [name for name in dict.fromkeys([*names, *parents]) if _file(name)]


# The next two by content, since most files count for several digests.
@cache
def _imported(content: bytes) -> tuple[str, ...]:
    """What the source code imports, whether modules or names in them."""
    names = []
    for node in _executed(ast.parse(content)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # `from regcls import files` imports a module, `from regcls.files import lock` a name from one: _file tells them apart.
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(names)


@cache
def _code(content: bytes) -> str:
    """What counts of source code; see `code_digest`."""
    return ast.unparse(_Code().visit(ast.parse(content)))


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and all nodes below it, except those under `if TYPE_CHECKING`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            yield from _executed(child)


def code_digest(module: str, *, alone: Sequence[str] = (), but: Sequence[str] = (), without_params: bool = False) -> str:
    """SHA-256 of the code of `module` and all it imports from regcls, and of the modules `alone` without their imports.

    `but`: modules that are left out, with what only they import.

    `without_params` excludes the code that reads params.yaml, the methods and the list of tasks, and what only they import: for callers
    that depend on the parameter values themselves.

    Ignores comments, docstrings, formatting, names and folders of files, and which module of regcls a name is imported from, so that moving
    code makes no tracked run stale. So it does not distinguish two functions of regcls with the same name. `other as name` and imports of
    other libraries count.

    Raises:
        ModuleNotFoundError: regcls has no such module.
    """
    params = [*(SOURCE / "params").glob("*.py"), *(SOURCE / "methods").glob("*.py"), SOURCE / "tasks" / "__init__.py"]
    excluded = {*map(_existing_file, but), *(params if without_params else ())}
    closure = import_closure(module, without=lambda file: file in excluded or (without_params and file.stem == "params"))
    files = {*closure, *map(_existing_file, alone)}
    code = sorted(filter(None, (_code(file.read_bytes()) for file in files)))
    return hashlib.sha256("\n".join(code).encode()).hexdigest()


class _Code(ast.NodeTransformer):
    """Removes docstrings and imports from regcls."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """Fill empty bodies with `pass`."""
        super().generic_visit(node)
        if getattr(node, "body", None) == [] and not isinstance(node, ast.Module):
            node.body = [ast.Pass()]  # type: ignore[attr-defined]
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """Remove docstrings and other bare strings."""
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> ast.stmt | None:
        """Of imports from regcls, keep only `other as name`."""
        module = node.names[0].name if isinstance(node, ast.Import) else node.module
        if (module or "").partition(".")[0] != SOURCE.name:
            return node
        node.names = [alias for alias in node.names if alias.asname not in (None, alias.name)]
        return ast.Import(names=node.names) if node.names else None

    visit_ImportFrom = visit_Import
