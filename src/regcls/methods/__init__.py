"""Methods: training losses, named by their parts, such as `reg+cls`, `lds+fds` or `bmse-gai(sigma=2)+cls-bal`.

A part is one of KINDS, with options in parentheses where they differ from the defaults. A method has one regression loss (`reg` if it names
none), or predicts by classes alone; weights of samples, methods on features, and a class loss (Eq. 4) may be added. Each part but `reg` and
the class losses is a file of this folder. Grids list such names.
"""

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from regcls.provenance import code_digest

if TYPE_CHECKING:
    from regcls.methods.distribution import Distribution
    from regcls.methods.features import FeatureMethods
    from regcls.methods.loss import Loss, TrainingTargets

Role = Literal["loss", "distribution", "weights", "features", "classes"]  # the order of parts in a name
# What a trainer must have: features of each sample or pixel before the last layer; one vector of features for each sample.
Need = Literal["features", "features of each sample"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of part."""

    role: Role
    meaning: str  # for reports and `regcls methods`
    source: str = ""
    options: Mapping[str, float] = field(default_factory=dict)  # and their defaults
    needs: Need | None = None
    by_sample: bool = True  # a loss: whether it is a mean over samples, which weights can enter


ZHANG, YANG, REN = "Pintea et al., ICCV 2023", "Yang et al., ICML 2021", "Ren et al., CVPR 2022"
KINDS: Mapping[str, Kind] = {
    "reg": Kind(role="loss", meaning="the regression loss alone"),
    "focal-r": Kind(
        role="loss", meaning="large errors weigh more in the regression loss", source=YANG, options={"beta": 0.2, "gamma": 1.0}
    ),
    "bmse-bmc": Kind(
        role="loss",
        meaning="Balanced MSE: the likelihood of a target among the targets of the batch",
        source=REN,
        options={"sigma": 1.0, "rate": 0.01},
        by_sample=False,
    ),
    "bmse-gai": Kind(
        role="loss",
        meaning="Balanced MSE: the likelihood of a target, given a Gaussian mixture of the training targets",
        source=REN,
        options={"sigma": 1.0, "rate": 0.01, "components": 8},
        by_sample=False,
    ),
    "bmse-bni": Kind(
        role="loss",
        meaning="Balanced MSE: the likelihood of a target, given a smoothed histogram of the training targets",
        source=REN,
        options={"sigma": 1.0, "rate": 0.01, "bins": 0, "kernel_size": 5, "kernel_sigma": 2.0},
        by_sample=False,
    ),
    "inverse": Kind(
        role="weights",
        meaning="samples weigh 1/n, for n training samples in their bin of targets",
        source=YANG,
        options={"bins": 0, "least": 5, "most": 1000},
    ),
    "sqrt-inverse": Kind(role="weights", meaning="samples weigh 1/√n", source=YANG, options={"bins": 0}),
    "lds": Kind(
        role="weights",
        meaning="samples weigh 1/√n, with √n smoothed over neighbouring bins",
        source=YANG,
        options={"bins": 0, "size": 5, "sigma": 2.0},
    ),
    "fds": Kind(
        role="features",
        meaning="in training, features get the mean and variance of their bin of targets, smoothed over neighbouring bins",
        source=YANG,
        options={"bins": 0, "size": 5, "sigma": 2.0, "momentum": 0.9, "least": 0.2, "most": 5.0},
        needs="features",
    ),
    "ranksim": Kind(
        role="features",
        meaning="a second loss ranks the images of a batch by the similarity of features as by that of targets",
        source="Gong et al., ICML 2022",
        options={"gamma": 100.0, "strength": 2.0},
        needs="features of each sample",
    ),
    "cls": Kind(role="classes", meaning="a class loss on uniform classes (Eq. 4)", source=ZHANG),
    "cls-bal": Kind(role="classes", meaning="a class loss on equalised classes (Eq. 12), kept with probability ρ (Eq. 13)", source=ZHANG),
    "hl-gauss": Kind(
        role="distribution",
        meaning="a class loss alone, on histograms of Gaussians around the targets; predicts the mean of the classes",
        source="Imani and White, ICML 2018",
        options={"sigma": 0.75},
    ),
    "ce-mean": Kind(role="distribution", meaning="a class loss alone; predicts the mean of the classes", source="Rothe et al., IJCV 2018"),
}
CLASS_LOSSES = tuple(name for name, kind in KINDS.items() if kind.role == "classes")
ROLES: tuple[Role, ...] = ("loss", "distribution", "weights", "features", "classes")

_PART = r"[a-z][a-z0-9-]*(?:\([^()]*\))?"
_NAME = re.compile(rf"{_PART}(?:\+{_PART})*")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a method."""

    name: str  # of KINDS
    options: Mapping[str, float]  # all of them, defaults included

    @property
    def kind(self) -> Kind:
        """Its kind."""
        return KINDS[self.name]

    @property
    def text(self) -> str:
        """`focal-r`, with options that differ from the defaults: `focal-r(beta=0.5)`."""
        options = [f"{key}={str(value).removesuffix('.0')}" for key, value in self.options.items() if value != self.kind.options[key]]
        return f"{self.name}({','.join(options)})" if options else self.name


REG = Part(name="reg", options={})


@dataclass(frozen=True, kw_only=True)
class Method:
    """The parts of a method."""

    parts: tuple[Part, ...]  # in the order of ROLES, beginning with the loss or the distribution

    def of(self, role: Role) -> tuple[Part, ...]:
        """The parts of a role."""
        return tuple(part for part in self.parts if part.kind.role == role)

    @property
    def name(self) -> str:
        """The canonical name, in grids, tables and tracked runs."""
        shown = self.parts[1:] if self.parts[0] == REG and (self.of("weights") or self.of("features")) else self.parts
        return "+".join(part.text for part in shown)

    @property
    def files(self) -> tuple[Part, ...]:
        """The parts with a file of their own."""
        return tuple(part for part in self.parts if part != REG and part.kind.role != "classes")


def yaml_name(name: str) -> str:
    """A method's name in a list or mapping of YAML: in quotes if it has a comma."""
    return f"'{name}'" if "," in name else name


def in_words() -> str:
    """The available methods, for help texts."""
    return "reg, or other parts of a training loss, joined by +, such as reg+cls, lds+cls-bal: regcls methods lists them"


def meanings(names: Iterable[str]) -> list[str]:
    """A sentence on each part of the methods, except reg and the class losses."""
    used = {part.name for name in names if (method := _known(name)) for part in method.files}
    return [f"{name}: {kind.meaning} ({kind.source})." for name, kind in KINDS.items() if name in used]


def has_classes(name: str) -> bool:
    """Whether a method has a class count."""
    return has_class_loss(name) or bool((method := _known(name)) and method.of("distribution"))


def has_class_loss(name: str) -> bool:
    """Whether a method has a class loss beside a regression loss, and thus λ."""
    return bool((method := _known(name)) and method.of("classes"))


def has_regression_loss(name: str) -> bool:
    """Whether a method has a regression loss; else it predicts by classes alone."""
    return not ((method := _known(name)) and method.of("distribution"))


def is_balanced(name: str) -> bool:
    """Whether a method's classes are equalised (Eq. 12) and kept with ρ (Eq. 13)."""
    return name.endswith("+cls-bal")


def has_bins(name: str) -> bool:
    """Whether a method counts training samples in bins over the range of classes."""
    return bool((method := _known(name)) and any("bins" in part.options for part in method.parts))


def searched_as(name: str) -> str:
    """The method whose λ is used if λ is not searched for `name`: for balanced classes, the method with uniform ones."""
    return name.removesuffix("-bal") if is_balanced(name) else name


def canonical(name: str, *, also: tuple[str, ...] = ()) -> str:
    """The canonical form of a method's name (`Method.name`); `also`: further names that a task accepts.

    Raises:
        ValueError: see `parsed`.
    """
    return name if name in also else parsed(name, also=also).name


def missing_need(name: str, provides: Collection[Need]) -> str | None:
    """Why a trainer that provides only these cannot use the method, as a sentence; None if it can."""
    method = _known(name)
    part = next((part for part in (method.parts if method else ()) if part.kind.needs not in (None, *provides)), None)
    return None if part is None else f"{name}: {part.name} needs {part.kind.needs}, which the networks here do not have (regcls methods)"


def _known(name: str) -> Method | None:
    """The method of this name; None if a task has it of its own."""
    try:
        return parsed(name)
    except ValueError:
        return None


@cache
def parsed(name: str, *, also: tuple[str, ...] = ()) -> Method:
    """Parse the name of a method; `also` only completes the error message.

    Raises:
        ValueError: there is no such part or option, or parts do not go together.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a method: write parts joined by +, as in reg+cls ({_listed(also)})")
    parts = sorted((_part(name, text, also) for text in re.findall(_PART, name)), key=_place)
    if parts[0].kind.role not in ("loss", "distribution"):
        if parts[0].kind.role == "classes":
            raise ValueError(f"{name}: a class loss stands beside a regression loss: write reg+{name}")
        parts.insert(0, REG)
    _check_together(name, parts)
    return Method(parts=tuple(parts))


def _place(part: Part) -> tuple[int, str]:
    """The order of parts: by role, and methods on features by name."""
    return ROLES.index(part.kind.role), part.name if part.kind.role == "features" else ""


def _listed(also: tuple[str, ...]) -> str:
    return f"there are {', '.join([*KINDS, *also])}"


def _part(method: str, text: str, also: tuple[str, ...]) -> Part:
    name, _, listed = text.removesuffix(")").partition("(")
    if name not in KINDS:
        where = "there is no method" if text == method else f"{method}: there is no"
        raise ValueError(f"{where} {name}; {_listed(also)}")
    defaults, options = KINDS[name].options, dict[str, float]()
    for pair in filter(None, listed.split(",")):
        key, _, value = (piece.strip() for piece in pair.partition("="))
        if key not in defaults:
            raise ValueError(f"{method}: {name} has no option {key}; it has {', '.join(defaults) or 'none'}")
        if key in options:
            raise ValueError(f"{method}: {key} is given twice")
        options[key] = _number(value)
        if not 0 <= options[key] < math.inf:
            raise ValueError(f"{method}: {key} = {value!r} is not a number of 0 or more")
        if isinstance(defaults[key], int) and not options[key].is_integer():
            raise ValueError(f"{method}: {key} = {value!r} is not a whole number")
        if fault := _fault(KINDS[name], key, options[key]):
            raise ValueError(f"{method}: {key} = {value!r}: write {fault}")
    part = Part(name=name, options={**defaults, **options})
    if part.options.get("least", 0.0) > part.options.get("most", math.inf):
        raise ValueError(f"{method}: least = {part.options['least']:g} is more than most = {part.options['most']:g}")
    return part


def _fault(kind: Kind, key: str, value: float) -> str:
    """What to write instead of the value of an option; empty if it makes sense."""
    match key:
        case "bins":
            return "2 to 10000 bins, or 0 for the default" if value == 1 or value > 10_000 else ""
        case "size" | "kernel_size":
            return "an odd number of bins, at most 999" if value % 2 == 0 or value > 999 else ""
        case "momentum":
            return "a number below 1" if value >= 1 else ""
        case "components":
            return "1 to 1000" if not 1 <= value <= 1000 else ""
        case "sigma":
            return "a number above 0" if value == 0 and kind.role == "loss" else ""
        case _:
            return ""


def _check_together(method: str, parts: list[Part]) -> None:
    for role in ROLES:
        names = [part.name for part in parts if part.kind.role == role]
        if len(set(names)) < len(names) or (len(names) > 1 and role != "features"):
            raise ValueError(f"{method}: {' and '.join(names)} do not go together: a method has one of them")
    first, others = parts[0], parts[1:]
    if others and (alone := next((part for part in parts if part.kind.role == "distribution"), None)):
        raise ValueError(f"{method}: {alone.name} predicts by its classes, and takes no other part")
    if not first.kind.by_sample and (weights := next((part for part in others if part.kind.role == "weights"), None)):
        raise ValueError(f"{method}: {first.name} is no mean over samples that {weights.name} could weigh")


def _number(text: str) -> float:
    try:
        return abs(float(text)) if float(text) == 0 else float(text)  # no −0: it would give another name
    except ValueError:
        return math.nan


def make_loss(name: str, *, kind: Any, huber_delta: float = 1.0) -> "Loss":
    """The regression loss of a method that has one, with its weights; `kind` and `huber_delta` define its error per sample."""
    from regcls.methods.loss import Plain

    method = parsed(name)
    part = method.parts[0]
    kind_of = Plain if part == REG else _module(part).LOSS
    loss: Loss = kind_of(kind=kind, huber_delta=huber_delta, **part.options)
    for weights in method.of("weights"):
        loss = _module(weights).WEIGHTING(**weights.options).weighing(loss)
    return loss


def make_distribution(name: str) -> "Distribution | None":
    """How a method that predicts by classes alone turns targets into distributions; None with a regression loss."""
    if has_regression_loss(name):
        return None
    part = parsed(name).parts[0]
    distribution: Distribution = _module(part).DISTRIBUTION(**part.options)
    return distribution


def make_feature_methods(name: str, *, features: int, targets: "TrainingTargets") -> "FeatureMethods | None":
    """The methods on the features of a network, of which it has `features` before its last layer; None if the method has none."""
    from regcls.methods.features import FeatureMethods

    parts = parsed(name).of("features")
    return FeatureMethods({p.name: _module(p).FEATURES(features=features, targets=targets, **p.options) for p in parts}) if parts else None


def _module_of(part: Part) -> str:
    return f"regcls.methods.{part.name.replace('-', '_')}"


def _module(part: Part) -> Any:
    return import_module(_module_of(part))


def engine_loss(name: str) -> "Loss | None":
    """The regression loss of a method for the ensemble engine, on squared errors; None for the plain squared error, or without one."""
    return make_loss(name, kind="mse") if any(part.kind.role in ("loss", "weights") for part in _files(name)) else None


def _files(name: str) -> Iterator[Part]:
    method = _known(name)
    yield from method.files if method else ()


def code_of(name: str) -> str:
    """Digest of the code of a method's parts, with all options; "" for `reg` and class losses, whose code is in every run's digest."""
    return " ".join(f"{code_digest(_module_of(part), but=[__name__])} {part.options}" for part in _files(name))
