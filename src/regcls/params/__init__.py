"""params.yaml -> frozen dataclasses. The only reader of params.yaml, which is the only home of a default."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from regcls.errors import UserError
from regcls.params.types import STRICT, Count, OneOrMore, Positive, Section
from regcls.tasks import TASKS, task_params

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]*$")]  # of a data set: a folder, an argument, a key for dvc exp run -S


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Where runs are tracked, as far as it is not MLflow's own environment variables."""

    experiment: Annotated[str, Field(min_length=1)]
    state_epochs: Annotated[int, Field(ge=0)]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How to compute; never what."""

    device: Literal["auto", "cpu", "cuda"]
    processes: Literal["auto"] | Count
    loaders: Literal["auto"] | Annotated[int, Field(ge=0)]
    channels_last: bool
    compile: bool
    checkpoint_minutes: Positive
    __pydantic_config__ = STRICT

    @property
    def cores(self) -> int:
        """Those that this process may use."""
        return len(os.sched_getaffinity(0))

    @property
    def process_count(self) -> int:
        """Processes on the CPU; auto is one a core."""
        return self.cores if self.processes == "auto" else self.processes

    @property
    def threads(self) -> int:
        """Of a training on the CPU, however many there are: other numbers of threads round otherwise, which training amplifies."""
        return max(1, self.cores // self.process_count)


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """The keys of params.yaml that are no data set."""

    datasets: OneOrMore[Name]
    default_dataset: Name
    tracking: Tracking
    compute: Compute
    __pydantic_config__ = STRICT


SETTINGS = tuple(setting.name for setting in fields(_Settings))


@dataclass(frozen=True, kw_only=True)
class Params:
    """All of params.yaml."""

    chosen: tuple[str, ...]  # the data sets that `dvc repro` makes: `datasets` in params.yaml
    default_dataset: str  # which `regcls run` and `mlflow run .` train on where none is named
    tracking: Tracking
    compute: Compute
    datasets: Mapping[str, Any]  # every data set's section, by name: a dataclass of its task

    def task(self, dataset: str) -> str:
        """The name of the task of a data set."""
        section: Section = self.datasets[dataset]
        return section.task

    def check_name(self, dataset: str) -> None:
        """Raise a UserError where params.yaml has no such data set."""
        if dataset not in self.datasets:
            raise UserError(f"{dataset or repr('')} is no data set of params.yaml; there are {', '.join(self.datasets)}")


def load_params(path: Path) -> Params:
    """Read `path`.

    Raises:
        UserError: naming the key, the value and what is allowed.
    """
    tree = _read(path)
    sections = {name: section for name, section in tree.items() if name not in SETTINGS}
    _check_names(path, sections)
    # First those that others take values from, so that a mistake is named where it stands.
    order = sorted(sections, key=lambda name: len(_ancestors(path, sections, name)))
    whole = {name: resolved(path, sections, name) for name in order}
    settings: _Settings = _validated(path, _Settings, {name: tree[name] for name in SETTINGS if name in tree})
    datasets = {}
    for name in order:
        params = task_params(whole[name]["task"])
        datasets[name] = _validated(path, params.section, whole[name], within=name)
        params.check(path, name, datasets[name])
    for key, names in {"datasets": settings.datasets, "default_dataset": (settings.default_dataset,)}.items():
        if unknown := [name for name in names if name not in datasets]:
            raise UserError(f"{path}: {key} names {unknown[0]}, which has no section; sections: {', '.join(sections)}")
    return Params(
        chosen=settings.datasets,
        default_dataset=settings.default_dataset,
        tracking=settings.tracking,
        compute=settings.compute,
        datasets={name: datasets[name] for name in sections},
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Run this from the project's root, or restore it with: git checkout params.yaml") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds no keys. Restore it with: git checkout params.yaml")
    return {str(key): value for key, value in tree.items()}


def _check_names(path: Path, sections: Mapping[str, Any]) -> None:
    for name in sections:
        try:
            _adapter(Name).validate_python(name)
        except ValidationError:
            known = "a name begins with a letter or digit and has no more than letters, digits, _ and -"
            raise UserError(f"{path}: {json.dumps(name, ensure_ascii=False)} cannot be the name of a data set: {known}") from None


def resolved(path: Path, sections: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The section `name` with what it takes from the section that it is `like`; a grid that is null there is left out.

    Raises:
        UserError: it is no data set, or is like one that there is not.
    """
    whole: Any = {}
    for ancestor in reversed([name, *_ancestors(path, sections, name)]):
        if whole and sections[ancestor].get("task", whole.get("task")) != whole.get("task"):
            raise UserError(
                f"{path}: {ancestor}.task = {json.dumps(sections[ancestor]['task'], default=str)}, but it is like a section whose "
                f"task is {whole.get('task')}: leave one of the two out"
            )
        whole = _laid_over(whole, {key: value for key, value in sections[ancestor].items() if key != "like"})
    if whole.get("task") not in TASKS:
        known = f"write one of {', '.join(TASKS)}, or `like:` and the name of another data set"
        raise UserError(f"{path}: {name}.task = {json.dumps(whole.get('task'), default=str)}: {known}")
    if isinstance(grids := whole.get("grids"), dict):
        whole["grids"] = {key: grid for key, grid in grids.items() if grid is not None}
    return dict(whole)


def _ancestors(path: Path, sections: Mapping[str, Any], name: str) -> list[str]:
    """The sections that one takes values from, the nearest first."""
    found: list[str] = []
    here = name
    while True:
        section = sections[here]
        if not isinstance(section, dict):
            raise UserError(
                f"{path}: {here} is not a known key, and no data set either: that has `task:` or `like:`. Known: {', '.join(SETTINGS)}"
            )
        if "like" not in section:
            return found
        like = section["like"]
        if not isinstance(like, str) or like not in sections:
            others = ", ".join(other for other in sections if other != here)
            raise UserError(f"{path}: {here}.like = {json.dumps(like, default=str)}: there is no such section; there are {others}")
        if like in (name, *found):
            way = [name, *found][[name, *found].index(like) + 1 :]
            raise UserError(f"{path}: {like} is like itself" + f", by way of {', '.join(way)}" * bool(way))
        found.append(like)
        here = like


def _laid_over(base: Any, over: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return {**base, **{key: _laid_over(base.get(key), value) for key, value in over.items()}}


def origins(path: Path, name: str) -> list[tuple[str, Any, str]]:
    """Every value of a data set's section: its key (`training.epochs`), the value, and the section that it stands in.

    Raises:
        UserError: params.yaml has no such data set.
    """
    sections = {key: section for key, section in _read(path).items() if key not in SETTINGS}
    ancestry = [name, *_ancestors(path, sections, name)]

    def source(keys: tuple[str, ...]) -> str:
        for section in ancestry:
            here = sections[section]
            for key in keys:
                here = here.get(key) if isinstance(here, dict) and key in here else _ABSENT
            if here is not _ABSENT:
                return section
        return name

    return [(".".join(map(str, keys)), value, source(keys)) for keys, value in _leaves(resolved(path, sections, name))]


_ABSENT = object()


def _leaves(tree: Any, keys: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], Any]]:
    if isinstance(tree, dict) and tree:
        return [leaf for key, value in tree.items() for leaf in _leaves(value, (*keys, key))]
    return [(keys, tree)]


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _validated(path: Path, kind: Any, tree: Mapping[str, Any], *, within: str = "") -> Any:
    try:
        # Through JSON, so that strict means strict (no "3" for 3) while a YAML list may still fill a tuple.
        return _adapter(kind).validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        raise UserError(f"{path}: {_explain(error, within, tree)}") from None
    except (TypeError, ValueError) as error:  # a key that is no text, an alias within itself
        raise UserError(f"{path} holds what no parameter can be: {error}") from None


def option_names(task: str) -> tuple[str, ...]:
    """What `regcls run` can be told of a run on a data set of the task."""
    return tuple("lambda" if option.name == "lam" else option.name for option in fields(task_params(task).options))


def parse_options(task: str, given: Mapping[str, str]) -> Any:
    """Command-line text, by option name -> the options of a task.

    Raises:
        UserError: naming the option, the value and what is allowed.
    """
    try:
        kind: Any = task_params(task).options
        return _adapter(kind).validate_python(dict(given))
    except ValidationError as error:
        raise UserError(f"--{_explain(error, '', given).replace('_', '-')}") from None


BRANCHES = ("function-", "constrained-", "literal[", "tuple[")  # what pydantic calls the alternatives of a type, among the keys


def _keys(place: Sequence[int | str], tree: Any) -> list[str]:
    """Where a mistake lies, without pydantic's names of alternatives: those are in the way to a key that is there."""
    keys, here = list[str](), tree
    for index, part in enumerate(map(str, place)):
        pairs = here.items() if isinstance(here, Mapping) else enumerate(here) if isinstance(here, list) else ()
        known = {str(key): value for key, value in pairs}
        if part in known or (index == len(place) - 1 and not part.startswith(BRANCHES)):
            keys.append(part)
            here = known.get(part)
    return keys


def _explain(error: ValidationError, within: str, tree: Mapping[str, Any]) -> str:
    said: list[str] = []
    for problem in error.errors():
        keys = _keys(problem["loc"], tree)
        where = ".".join([within, *keys] if within else keys)
        match problem["type"]:
            case "extra_forbidden" | "unexpected_keyword_argument":
                text = f"{where} is not a known key"
            case "missing" | "missing_argument":
                text = f"{where} is missing"
            case _:
                text = f"{where} = {json.dumps(problem['input'], ensure_ascii=False)}: {problem['msg'].removeprefix('Value error, ')}"
                if isinstance(problem["input"], str) and (meant := _number(problem["input"], problem["type"])):
                    text += f" (YAML reads this as text: write {meant}, without quotes)"
        if text not in said:
            said.append(text)
    more = f" (and {len(said) - 2} more)" if len(said) > 2 else ""
    return "; ".join(said[:2]) + more


def _number(text: str, problem: str) -> str:
    """The number that was meant where one was asked for, as YAML reads it; empty if none."""
    try:
        return repr({"int_type": int, "float_type": float}[problem](text))
    except (KeyError, ValueError):
        return ""
