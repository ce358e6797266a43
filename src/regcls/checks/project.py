"""Checks of the project: params.yaml, git, dvc.lock, prepared data, the environment of `mlflow run`."""

import sys
from pathlib import Path

from regcls.checks import Finding, Place, bad, good, note
from regcls.dvc_lock import NAME, faults
from regcls.errors import UserError
from regcls.provenance import UNKNOWN, git_refusal, git_tags


def params(place: Place) -> Finding:
    """Whether params.yaml can be read."""
    if place.params is None:
        raise UserError(place.problem)
    text = f"data sets: {', '.join(place.params.chosen)}"
    others = [name for name in place.params.datasets if name not in place.params.chosen]
    return good(f"{text}; there are also {', '.join(others)}" if others else text)


def git(place: Place) -> Finding:
    """The commit that runs will be tagged with."""
    tags = git_tags(place.root)
    commit, branch = tags["git_commit"], tags["git_branch"]
    if commit == UNKNOWN:
        if refusal := git_refusal(place.root):
            raise UserError(refusal)
        if any((folder / ".git").exists() for folder in (place.root, *place.root.parents)):
            return bad(f"git does not say the commit of {place.root}: not installed, or no commit yet", "git status says more")
        return note("no repository: runs will not say which code made them", "clone the project with git")
    if tags["git_dirty"] == "true":
        return note(f"{commit[:12]} on {branch}, with changes: runs will be tagged git_dirty", "git commit, before runs that matter")
    return good(f"{commit[:12]} on {branch}, nothing changed")


def dvc_lock(place: Place) -> Finding:
    """Whether a killed DVC has left files that keep it from working."""
    if found := faults(place.root):
        text = "; ".join(f"{file} {fault}" for file, fault in found.items())
        return bad(f"{text}: DVC cannot start, or runs stages again", "regcls doctor --repair (make repro does it)")
    return good("whole") if (place.root / NAME).exists() else note("there is none yet", "dvc repro writes it")


def data(place: Place) -> Finding:
    """Which data sets are prepared with the parameters of params.yaml."""
    from regcls.tasks.task import open_data

    assert place.params is not None  # comes after `params`
    ready, not_ready = [], {}
    for dataset in place.params.chosen:
        try:
            open_data(place.params, place.root, dataset, verify=False)
            ready.append(dataset)
        except UserError as error:
            not_ready[dataset] = str(error).partition(". ")[0]
    if not not_ready:
        return good(f"prepared: {', '.join(ready)}")
    text = "; ".join(([f"prepared: {', '.join(ready)}"] if ready else []) + list(not_ready.values()))
    return note(text, f"dvc repro {' '.join(f'prepare@{dataset}' for dataset in not_ready)}")


def mlproject(place: Place) -> Finding:
    """Whether a plain `mlflow run .` uses this environment."""
    from regcls.mlproject import environment_link

    link, here = environment_link(place.root), Path(sys.prefix)
    if link.is_symlink() and link.resolve() == here.resolve():
        return good(f"mlflow run . uses {here}")
    if not (here / "bin" / "activate").is_file():
        return note(f"{here} is not a virtual environment: a plain mlflow run . would build one", "mlflow run . --env-manager local")
    if link.exists():
        return note(f"mlflow run . uses {link.resolve()}, not {here}", "regcls setup")
    return bad("a plain mlflow run . would look for pyenv to build an environment", "regcls setup (make does it)")
