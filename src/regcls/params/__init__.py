"""Reads params.yaml, the single source of defaults, into frozen dataclasses. Nothing else reads it."""

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from regcls.errors import UserError
from regcls.methods import Need, missing_need
from regcls.params.adding import extended
from regcls.params.reading import parse_yaml, read_yaml
from regcls.params.types import STRICT, Natural, OneOrMore, Positive, Section
from regcls.tasks import TASKS, task_params
from regcls.words import suggestion

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]*$")]  # of a data set: a folder, an argument, a key for dvc exp run -S


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Tracking settings, besides MLflow's own environment variables."""

    experiment: Annotated[str, Field(min_length=1)]
    state_epochs: Natural
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How to compute, without effect on what is computed."""

    engine: Literal["local", "ray"]
    address: Annotated[str, Field(pattern=r"^(auto|[\w.:\[\]-]+:\d+)$")]
    device: Literal["auto", "cpu", "cuda"]
    gpus: Literal["auto"] | Annotated[int, Field(ge=1, le=2**10)]
    processes: Literal["auto"] | Annotated[int, Field(ge=1, le=2**10)]
    loaders: Literal["auto"] | Annotated[int, Field(ge=0, le=2**10)]
    channels_last: bool
    compile: bool
    checkpoint_minutes: Positive
    __pydantic_config__ = STRICT

    @property
    def cores(self) -> int:
        """CPU cores available to this process."""
        return len(os.sched_getaffinity(0))

    @property
    def process_count(self) -> int:
        """Worker processes on the CPU; auto: one per core."""
        return self.cores if self.processes == "auto" else self.processes


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """The keys of params.yaml that are not data sets."""

    datasets: OneOrMore[Name]
    default_dataset: Name
    tracking: Tracking
    compute: Compute
    __pydantic_config__ = STRICT


SETTINGS = tuple(setting.name for setting in fields(_Settings))


@dataclass(frozen=True, kw_only=True)
class Params:
    """The content of params.yaml."""

    chosen: tuple[str, ...]  # `datasets`: the data sets that `dvc repro` processes
    default_dataset: str  # the data set of `regcls run` and `mlflow run .` if none is named
    tracking: Tracking
    compute: Compute
    datasets: Mapping[str, Any]  # name -> section, a dataclass of the data set's task

    def task(self, dataset: str) -> str:
        """The task name of a data set."""
        section: Section = self.datasets[dataset]
        return section.task

    def check_name(self, dataset: str) -> None:
        """Raise a UserError if params.yaml has no such data set."""
        if dataset not in self.datasets:
            hint = suggestion(dataset, self.datasets) or f"; there are {', '.join(self.datasets)}"
            raise UserError(f"{dataset or repr('')} is not a data set in params.yaml{hint}")

    def check_new_name(self, name: str) -> None:
        """Raise a UserError if no new data set can have this name: of a folder, an argument and a key."""
        if name in SETTINGS:
            fault = "it is a setting of params.yaml"
        elif name in self.datasets:
            fault = "params.yaml has one of this name"
        elif not re.fullmatch(r"[^\W\d_][\w-]{0,99}", name):
            fault = "begin with a letter, and use only letters, digits, _ and -, at most 100"
        elif yaml.safe_dump([name], allow_unicode=True) != f"- {name}\n":
            fault = "YAML reads it as another value"
        else:
            return
        raise UserError(f"{json.dumps(name, ensure_ascii=False)} cannot be the name of a new data set: {fault}")

    def left_out(self, dataset: str) -> str:
        """A note if `dvc repro` and `regcls compare` do not process a data set; else empty."""
        if dataset in self.chosen:
            return ""
        return f"dvc repro and regcls compare leave {dataset} out: it is not in `datasets` of params.yaml"


def load_params(path: Path) -> Params:
    """Read and validate `path`.

    Raises:
        UserError: the file or a value is invalid; the message names the key, the value and what is allowed.
    """
    return _checked(path, _read(path))


def with_section(path: Path, name: str, section: str) -> str:
    """The text of `path` with a new data set, whose `section` is YAML, at its end and in `datasets`. Nothing is written.

    Raises:
        UserError: the section is invalid, or `path` is written in a way that cannot be extended as text.
    """
    before, text, kept = _read(path), "", None
    try:
        text = extended(path.read_bytes().decode(), name, section)  # bytes: its line ends are kept
        after = {str(key): value for key, value in parse_yaml(text, path).items()}
        kept = {**after, "datasets": after["datasets"][:-1]}
        del kept[name]
    except (UserError, ValueError, TypeError, KeyError, yaml.YAMLError):
        pass
    if kept != before:
        raise UserError(f"{path} cannot be extended as it is written: add {name} to `datasets`, and this section:\n\n{section}")
    _checked(path, after)
    return text


def _checked(path: Path, tree: Mapping[str, Any]) -> Params:
    sections = {name: section for name, section in tree.items() if name not in SETTINGS}
    _check_names(path, sections)
    # Sections that others inherit from come first, so that a mistake is reported in the section that contains it.
    order = sorted(sections, key=lambda name: len(_ancestors(path, sections, name)))
    whole = {name: resolved(path, sections, name) for name in order}
    settings: _Settings = _validated(path, _Settings, {name: tree[name] for name in SETTINGS if name in tree})
    datasets = {}
    for name in order:
        params = task_params(whole[name]["task"])
        datasets[name] = _validated(path, params.section, whole[name], within=name)
        params.check(path, name, datasets[name])
        _check_methods(path, name, datasets[name], params.provides)
    for key, names in {"datasets": settings.datasets, "default_dataset": (settings.default_dataset,)}.items():
        if unknown := [name for name in names if name not in datasets]:
            hint = suggestion(unknown[0], sections) or f"; sections: {', '.join(sections)}"
            raise UserError(f"{path}: {key} names {unknown[0]}, which has no section{hint}")
    return Params(
        chosen=settings.datasets,
        default_dataset=settings.default_dataset,
        tracking=settings.tracking,
        compute=settings.compute,
        datasets={name: datasets[name] for name in sections},
    )


def _check_methods(path: Path, name: str, section: Any, provides: Collection[Need]) -> None:
    """Raise a UserError if a method needs what the networks of the task do not have."""
    methods = {f"grids.{key}.methods": grid.methods for key, grid in section.grids.items()} | {"run.method": (section.run.method,)}
    for key, names in methods.items():
        for method in names:
            if missing := missing_need(method, provides):
                raise UserError(f"{path}: {name}.{key}: {missing}")


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = read_yaml(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Run this from the project's root, or restore it with: git checkout params.yaml") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path} has no keys. Restore it with: git checkout params.yaml")
    return {str(key): value for key, value in tree.items()}


def _check_names(path: Path, sections: Mapping[str, Any]) -> None:
    for name in sections:
        try:
            _adapter(Name).validate_python(name)
        except ValidationError:
            rule = "a name begins with a letter or digit and contains only letters, digits, _ and -"
            raise UserError(f"{path}: {json.dumps(name, ensure_ascii=False)} cannot be the name of a data set: {rule}") from None


def resolved(path: Path, sections: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The section `name`, merged over the sections it inherits from by `like:`. Null grids are removed.

    Raises:
        UserError: it is not a data set, or `like:` names an unknown section.
    """
    whole: Any = {}
    for ancestor in reversed([name, *_ancestors(path, sections, name)]):
        if whole and sections[ancestor].get("task", whole.get("task")) != whole.get("task"):
            raise UserError(
                f"{path}: {ancestor}.task = {json.dumps(sections[ancestor]['task'], default=str)}, but `like:` names a section whose "
                f"task is {whole.get('task')}: remove one of the two"
            )
        whole = _merged(whole, {key: value for key, value in sections[ancestor].items() if key != "like"})
    if whole.get("task") not in TASKS:
        choices = f"write one of {', '.join(TASKS)}, or `like:` and the name of another data set"
        hint = suggestion(name, SETTINGS) or next(filter(None, (suggestion(key, ("like", "task")) for key in whole if key != "task")), "")
        raise UserError(f"{path}: {name}.task = {json.dumps(whole.get('task'), default=str)}: {choices}{hint}")
    if isinstance(grids := whole.get("grids"), dict):
        whole["grids"] = {key: grid for key, grid in grids.items() if grid is not None}
    return dict(whole)


def _ancestors(path: Path, sections: Mapping[str, Any], name: str) -> list[str]:
    """The sections that `name` inherits from, nearest first."""
    ancestors: list[str] = []
    current = name
    while True:
        section = sections[current]
        if not isinstance(section, dict):
            raise UserError(
                f"{path}: {current} is neither a known key nor a data set, which has `task:` or `like:`. Known keys: {', '.join(SETTINGS)}"
            )
        if "like" not in section:
            return ancestors
        like = section["like"]
        if not isinstance(like, str) or like not in sections:
            others = [other for other in sections if other != current]
            hint = suggestion(str(like), others) or f"; there are {', '.join(others)}"
            raise UserError(f"{path}: {current}.like = {json.dumps(like, default=str)}: there is no such section{hint}")
        chain = [name, *ancestors]
        if like in chain:
            between = chain[chain.index(like) + 1 :]
            raise UserError(f"{path}: {like} inherits from itself" + (f" through {', '.join(between)}" if between else ""))
        ancestors.append(like)
        current = like


def _merged(base: Any, override: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(override, dict)):
        return override
    return {**base, **{key: _merged(base.get(key), value) for key, value in override.items()}}


def origins(path: Path, name: str) -> list[tuple[str, Any, str]]:
    """Every value of a data set's section: its key (`training.epochs`), the value, and the section that defines it.

    Raises:
        UserError: params.yaml has no such data set.
    """
    sections = {key: section for key, section in _read(path).items() if key not in SETTINGS}
    ancestry = [name, *_ancestors(path, sections, name)]

    def source(keys: tuple[str, ...]) -> str:
        for section in ancestry:
            value = sections[section]
            for key in keys:
                value = value.get(key) if isinstance(value, dict) and key in value else _ABSENT
            if value is not _ABSENT:
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
        # Via JSON, so that validation is strict (no "3" for 3) but still accepts a YAML list for a tuple.
        return _adapter(kind).validate_json(json.dumps(tree, default=str))
    except ValidationError as error:
        raise UserError(f"{path}: {_explain(error, within, tree)}") from None
    except (TypeError, ValueError) as error:  # a key that is not text, a recursive alias
        raise UserError(f"{path} has a value that cannot be a parameter: {error}") from None


def option_names(task: str) -> tuple[str, ...]:
    """The options of `regcls run` on a data set of the task."""
    return tuple("lambda" if option.name == "lam" else option.name for option in fields(task_params(task).options))


def parse_options(task: str, texts: Mapping[str, str]) -> Any:
    """Parse command-line texts, by option name, into the options dataclass of a task.

    Raises:
        UserError: an option is invalid; the message names it, its value and what is allowed.
    """
    try:
        kind: Any = task_params(task).options
        return _adapter(kind).validate_python(dict(texts))
    except ValidationError as error:
        raise UserError(f"--{_explain(error, '', texts).replace('_', '-')}") from None


BRANCHES = ("function-", "constrained-", "literal[", "tuple[")  # pydantic's names of a union's alternatives, which it puts among the keys


def _keys(location: Sequence[int | str], tree: Any) -> list[str]:
    """The keys of pydantic's error location, without its names of union alternatives."""
    keys, node = list[str](), tree
    for index, part in enumerate(map(str, location)):
        pairs = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
        children = {str(key): value for key, value in pairs}
        if part in children or (index == len(location) - 1 and not part.startswith(BRANCHES)):
            keys.append(part)
            node = children.get(part)
    return keys


def _explain(error: ValidationError, within: str, tree: Mapping[str, Any]) -> str:
    problems = [(problem, _keys(problem["loc"], tree)) for problem in error.errors()]
    known = {tuple(map(str, keys[:depth])) for keys, _ in _leaves(tree) for depth in range(1, len(keys) + 1)}
    known |= {tuple(keys) for problem, keys in problems if problem["type"] in ("missing", "missing_argument")}
    messages: list[str] = []
    for problem, keys in problems:
        key = ".".join([within, *keys] if within else keys)
        match problem["type"]:
            case "extra_forbidden" | "unexpected_keyword_argument":
                message = f"{key} is not a known key{_similar_key(tuple(keys), known)}"
            case "missing" | "missing_argument":
                message = f"{key} is missing"
            case _:
                message = f"{key} = {json.dumps(problem['input'], ensure_ascii=False)}: {problem['msg'].removeprefix('Value error, ')}"
                if isinstance(problem["input"], str) and (number := _number(problem["input"], problem["type"])):
                    message += f" (YAML reads this as text: write {number}, without quotes)"
        if message not in messages:
            messages.append(message)
    more = f" (and {len(messages) - 2} more)" if len(messages) > 2 else ""
    return "; ".join(messages[:2]) + more


def _similar_key(keys: tuple[str, ...], known: Collection[tuple[str, ...]]) -> str:
    """`; did you mean epochs?`: a similar key next to an unknown one, or the same key elsewhere in the section; else empty."""
    siblings = sorted(path[-1] for path in known if path[:-1] == keys[:-1] and path != keys)
    elsewhere = sorted(".".join(path) for path in known if path[-1] == keys[-1] and path != keys)
    return suggestion(keys[-1], siblings) or (f"; did you mean {elsewhere[0]}?" if elsewhere else "")


def _number(text: str, problem: str) -> str:
    """The number that `text` spells, as YAML reads it; empty if it is not a number or pydantic expected none."""
    try:
        return repr({"int_type": int, "float_type": float}[problem](text))
    except (KeyError, ValueError):
        return ""
