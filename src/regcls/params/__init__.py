"""params.yaml -> frozen dataclasses. The only reader of params.yaml, which is the only home of a default."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from regcls.errors import UserError

Scale = Literal["demo", "paper"]
Setting = Literal["clean", "noisy", "ood"]
Sampling = Literal["uniform", "mild", "moderate", "severe"]
Method = Literal["reg", "reg+cls", "reg+cls-bal"]
Optimizer = Literal["adam", "sgd"]
Precision = Literal["float32", "float64"]

T = TypeVar("T")


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) != len(values):
        raise ValueError("a value stands in the list twice")
    return values


def _layer_widths(text: str) -> tuple[int, int]:
    first, _, second = text.replace(",", "x").partition("x")
    if not (first.isdecimal() and second.isdecimal()):
        raise ValueError("write the units of two layers, as in 6x15")
    return int(first), int(second)


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Classes = Annotated[int, Field(ge=2)]  # one class has nothing to tell apart
Seed = Annotated[int, Field(ge=0, lt=2**32)]
OneOrMore = Annotated[tuple[T, ...], Field(min_length=1), AfterValidator(_distinct)]

STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, kw_only=True)
class BySetting:
    """A number for each setting of the 1D study."""

    clean: Positive
    noisy: Positive
    ood: Positive
    __pydantic_config__ = STRICT

    def __getitem__(self, setting: Setting) -> float:
        return float(getattr(self, setting))


@dataclass(frozen=True, kw_only=True)
class PeakWidth:
    """Half the width of the peak region, as a share of the range of y."""

    mild: Annotated[float, Field(gt=0, le=1)]
    moderate: Annotated[float, Field(gt=0, le=1)]
    severe: Annotated[float, Field(gt=0, le=1)]
    __pydantic_config__ = STRICT

    def __getitem__(self, sampling: Sampling) -> float:
        return float(getattr(self, sampling))


@dataclass(frozen=True, kw_only=True)
class SyntheticData:
    """What `prepare` draws (protocol, section 2.1)."""

    functions: OneOrMore[tuple[Annotated[float, Field(allow_inf_nan=False)], Count]]
    data_seeds: OneOrMore[Seed]
    repetitions: Count
    samples: Annotated[int, Field(ge=18432)]  # two from each of 1024 bins of y, in three regions of three splits
    settings: OneOrMore[Setting]
    samplings: OneOrMore[Sampling]
    peak_width: PeakWidth
    peak_share: Literal["released"] | Annotated[float, Field(gt=0, lt=1)]
    noise: OneOrMore[Positive]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class SyntheticTraining:
    """How each network is trained (protocol, section 2.1)."""

    hidden: Annotated[tuple[Count, ...], Field(min_length=2, max_length=2)]
    epochs: Count
    batch_size: Count
    optimizer: Optimizer
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    learning_rate: BySetting
    lam: Annotated[BySetting, Field(alias="lambda")]
    precision: Precision
    seeds: OneOrMore[Seed]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class SyntheticRun:
    """The run that `regcls run synthetic` trains where no option says otherwise."""

    setting: Setting
    sampling: Sampling
    noise: Positive
    method: Method
    classes: Classes
    repetition: Annotated[int, Field(ge=0)]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What may be said of a single run on the command line; None leaves it to params.yaml."""

    setting: Setting | None = None
    sampling: Sampling | None = None
    noise: Positive | None = None
    method: Method | None = None
    classes: Classes | None = None
    lam: Annotated[Positive | None, Field(alias="lambda")] = None
    repetition: Annotated[int, Field(ge=0)] | None = None
    seed: Seed | None = None
    hidden: Annotated[tuple[Count, Count] | None, BeforeValidator(_layer_widths)] = None
    epochs: Count | None = None
    batch_size: Count | None = None
    optimizer: Optimizer | None = None
    learning_rate: Positive | None = None
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    precision: Precision | None = None
    __pydantic_config__ = ConfigDict(extra="forbid")  # not strict: all comes as text


OPTION_NAMES = tuple("lambda" if option.name == "lam" else option.name for option in fields(RunOptions))


def parse_options(given: Mapping[str, str]) -> RunOptions:
    """Command-line text, by option name -> options.

    Raises:
        UserError: naming the option, the value and what is allowed.
    """
    try:
        return TypeAdapter(RunOptions).validate_python(dict(given))
    except ValidationError as error:
        raise UserError(f"--{_explain(error).replace('_', '-')}") from None


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Every combination is one run. `reg` has neither classes nor λ: once for each data set."""

    settings: OneOrMore[Setting]
    samplings: OneOrMore[Sampling]
    noise: OneOrMore[Positive]
    methods: OneOrMore[Method]
    classes: OneOrMore[Classes]
    lambdas: Literal["default"] | OneOrMore[Positive]
    repetitions: Count
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """The controlled 1D study."""

    data: SyntheticData
    training: SyntheticTraining
    run: SyntheticRun
    grids: Annotated[dict[str, Grid], Field(min_length=1)]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Where runs are tracked, as far as it is not MLflow's own environment variables."""

    experiment: Annotated[str, Field(min_length=1)]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How to compute; never what."""

    device: Literal["auto", "cpu", "cuda"]
    processes: Literal["auto"] | Count
    __pydantic_config__ = STRICT

    @property
    def process_count(self) -> int:
        """Processes on the CPU; auto is one for each core that this process may use."""
        return len(os.sched_getaffinity(0)) if self.processes == "auto" else self.processes


@dataclass(frozen=True, kw_only=True)
class Params:
    """All of params.yaml at one scale."""

    scale: Scale
    datasets: OneOrMore[Literal["synthetic"]]
    tracking: Tracking
    compute: Compute
    synthetic: Synthetic
    __pydantic_config__ = STRICT


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
    _check_consistent(path, params.synthetic)
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


def _check_consistent(path: Path, synthetic: Synthetic) -> None:
    data, training = synthetic.data, synthetic.training
    for key, seeds in (("data.data_seeds", data.data_seeds), ("training.seeds", training.seeds)):
        if data.repetitions > len(seeds):
            raise UserError(
                f"{path}: synthetic.data.repetitions = {data.repetitions}, but synthetic.{key} has {len(seeds)} seeds: one is needed each"
            )
    if "uniform" not in data.samplings:
        raise UserError(f"{path}: synthetic.data.samplings must hold 'uniform': every network is validated and tested on the uniform sets")
    if synthetic.run.repetition >= data.repetitions:
        raise UserError(f"{path}: synthetic.run.repetition = {synthetic.run.repetition}, but only 0 to {data.repetitions - 1} are prepared")
    for name, grid in synthetic.grids.items():
        where = f"{path}: synthetic.grids.{name}"
        if grid.repetitions > data.repetitions:
            raise UserError(f"{where}.repetitions = {grid.repetitions}, but synthetic.data.repetitions prepares {data.repetitions}")
        for key, asked, prepared in (
            ("settings", grid.settings, data.settings),
            ("samplings", grid.samplings, data.samplings),
            ("noise", grid.noise if "noisy" in grid.settings else (), data.noise),
        ):
            if missing := [value for value in asked if value not in prepared]:
                raise UserError(f"{where}.{key} asks for {missing}, but synthetic.data.{key} prepares only {list(prepared)}")
