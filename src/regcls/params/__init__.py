"""params.yaml -> frozen dataclasses. The only reader of params.yaml, which is the only home of a default."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from regcls.errors import UserError
from regcls.params.depth import Depth, DepthData, DepthOptions, check_depth
from regcls.params.faces import FaceData, FaceOptions, Faces, check_faces
from regcls.params.synthetic import Synthetic, SyntheticOptions, check_synthetic
from regcls.params.types import STRICT, Count, OneOrMore, Positive, Scale
from regcls.params.video import Video, VideoData, VideoOptions, check_video

Kind = Literal["synthetic", "faces", "depth", "video"]
KINDS: Mapping[str, Kind] = {"synthetic": "synthetic", "imdb_wiki": "faces", "agedb": "faces", "nyud2": "depth", "breakfast": "video"}
FACES = tuple(dataset for dataset, kind in KINDS.items() if kind == "faces")
Options = SyntheticOptions | FaceOptions | DepthOptions | VideoOptions
OPTIONS: Mapping[Kind, type[Options]] = {
    "synthetic": SyntheticOptions,
    "faces": FaceOptions,
    "depth": DepthOptions,
    "video": VideoOptions,
}


def option_names(dataset: str) -> tuple[str, ...]:
    """What `regcls run <dataset>` can be told."""
    return tuple("lambda" if option.name == "lam" else option.name for option in fields(OPTIONS[KINDS[dataset]]))


def parse_options(dataset: str, given: Mapping[str, str]) -> Options:
    """Command-line text, by option name -> the options of a data set.

    Raises:
        UserError: naming the option, the value and what is allowed.
    """
    try:
        options: Options = TypeAdapter(OPTIONS[KINDS[dataset]]).validate_python(dict(given))
        return options
    except ValidationError as error:
        raise UserError(f"--{_explain(error).replace('_', '-')}") from None


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
class Params:
    """All of params.yaml at one scale."""

    scale: Scale
    datasets: OneOrMore[Literal["synthetic", "imdb_wiki", "agedb", "nyud2", "breakfast"]]
    tracking: Tracking
    compute: Compute
    synthetic: Synthetic
    imdb_wiki: Faces
    agedb: Faces
    nyud2: Depth
    breakfast: Video
    __pydantic_config__ = STRICT

    def faces(self, dataset: str) -> Faces:
        """The section of a data set of faces."""
        section = getattr(self, dataset)
        assert isinstance(section, Faces)
        return section

    def raw_data(self, dataset: str) -> FaceData | DepthData | VideoData:
        """What is prepared from raw files: the `data` of any section but the 1D study's."""
        section: Faces | Depth | Video = getattr(self, dataset)
        return section.data


def load_params(path: Path, *, scale: Scale | None = None) -> Params:
    """Read `path` at `scale` (its own `scale:` where None).

    Raises:
        UserError: naming the key, the value and what is allowed.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Run this from the project's root, or restore it with: git checkout params.yaml") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds no keys. Restore it with: git checkout params.yaml")
    chosen = scale or tree.get("scale")
    if chosen not in ("demo", "paper"):
        raise UserError(f"{path}: scale = {chosen!r}: write demo or paper")
    # Both, so that a mistake in the scale not asked for is not found hours later.
    at = {known: _validate(path, {**tree, "scale": known}) for known in ("demo", "paper")}
    return at[chosen]


def _validate(path: Path, tree: dict[str, Any]) -> Params:
    plain = {key: _at_scale(path, key, section, tree["scale"]) for key, section in tree.items()}
    try:
        # Through JSON, so that strict means strict (no "3" for 3) while a YAML list may still fill a tuple.
        params: Params = TypeAdapter(Params).validate_json(json.dumps(plain, default=str))
    except ValidationError as error:
        raise UserError(f"{path}: {_explain(error)}") from None
    except (TypeError, ValueError) as error:  # a key that is no text, an alias within itself
        raise UserError(f"{path} holds what no parameter can be: {error}") from None
    check_synthetic(path, params.synthetic)
    for name in FACES:
        check_faces(path, name, params.faces(name))
    check_depth(path, "nyud2", params.nyud2)
    check_video(path, "breakfast", params.breakfast)
    return params


def _at_scale(path: Path, key: str, section: Any, scale: str) -> Any:
    if not isinstance(section, dict) or "demo" not in section:
        return section
    if not isinstance(section["demo"], dict):
        raise UserError(f"{path}: {key}.demo = {section['demo']!r}: write the keys that differ at scale demo, or remove it")
    published = {name: value for name, value in section.items() if name != "demo"}
    return _laid_over(path, f"{key}.demo", published, section["demo"]) if scale == "demo" else published


def _laid_over(path: Path, where: str, base: Any, over: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    for key in over:
        if key not in base:
            raise UserError(f"{path}: {where}.{key} overrides nothing; keys there: {', '.join(map(str, base))}")
    return {key: _laid_over(path, f"{where}.{key}", value, over[key]) if key in over else value for key, value in base.items()}


BRANCHES = ("function-", "constrained-", "literal[", "tuple[")  # what pydantic calls the alternatives of a type, among the keys


def _explain(error: ValidationError) -> str:
    said: list[str] = []
    for problem in error.errors():
        where = ".".join(part for part in map(str, problem["loc"]) if not part.startswith(BRANCHES))
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
