"""Methods: training losses, named by their parts.

A name consists of a regression loss of LOSSES (`reg`), its options if they differ from the defaults (`focal-r(beta=0.5)`), and
optionally a class loss (Eq. 4): `reg+cls`, `focal-r+cls-bal`. Grids list such names.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from regcls.provenance import code_digest

if TYPE_CHECKING:
    from regcls.methods.loss import Loss

CLASS_LOSSES = ("cls", "cls-bal")  # uniform classes; equalised classes (Eq. 12) whose samples are kept with probability ρ (Eq. 13)
OPTIONS: Mapping[str, Mapping[str, float]] = {"reg": {}, "focal-r": {"beta": 0.2, "gamma": 1.0}}  # loss -> options and their defaults
LOSSES = tuple(OPTIONS)
MEANINGS = {"focal-r": "large errors weigh more in the regression loss (Yang et al., ICML 2021)"}  # explanations in reports

_NAME = re.compile(r"(?P<loss>[a-z][a-z0-9-]*)(?:\((?P<options>[^()]*)\))?(?:\+(?P<classes>[a-z-]+))?")


def in_words() -> str:
    """The available methods, for help texts."""
    losses = []
    for loss, defaults in OPTIONS.items():
        options = ",".join(f"{key}={value:g}" for key, value in defaults.items())
        losses.append(f"{loss}({options})" if options else loss)
    return f"{' or '.join(losses)}, alone or with a class loss: +cls, or +cls-bal (balanced classes)"


def meanings(names: Iterable[str]) -> list[str]:
    """A sentence on each regression loss among the methods, except reg."""
    losses = {match["loss"] for name in names if (match := _NAME.fullmatch(name))}
    return [f"{loss}: {meaning}." for loss, meaning in MEANINGS.items() if loss in losses]


def has_classes(name: str) -> bool:
    """Whether a method has a class loss, and thus a class count and λ."""
    return "+" in name.rpartition(")")[2]


def is_balanced(name: str) -> bool:
    """Whether a method's classes are equalised (Eq. 12) and kept with ρ (Eq. 13)."""
    return name.endswith("+cls-bal")


def searched_as(name: str) -> str:
    """The method whose λ is used if λ is not searched for `name`: for balanced classes, the method with uniform ones."""
    return name.removesuffix("-bal") if is_balanced(name) else name


@dataclass(frozen=True, kw_only=True)
class Method:
    """The parts of a method."""

    loss: str  # of LOSSES
    options: Mapping[str, float]  # all options of the loss, defaults included
    classes: Literal["", "cls", "cls-bal"]  # the class loss

    @property
    def name(self) -> str:
        """The canonical name, in grids, tables and tracked runs; it shows options that differ from the defaults."""
        defaults = OPTIONS[self.loss]
        options = ",".join(f"{key}={str(value).removesuffix('.0')}" for key, value in self.options.items() if value != defaults[key])
        return self.loss + (f"({options})" if options else "") + (f"+{self.classes}" if self.classes else "")


def canonical(name: str, *, also: tuple[str, ...] = ()) -> str:
    """The canonical form of a method's name (`Method.name`); `also`: further names that a task accepts.

    Raises:
        ValueError: see `parsed`.
    """
    return name if name in also else parsed(name, also=also).name


@cache
def parsed(name: str, *, also: tuple[str, ...] = ()) -> Method:
    """Parse the name of a method; `also` only completes the error message.

    Raises:
        ValueError: there is no such method or option.
    """
    match = _NAME.fullmatch(name)
    if match is None or match["loss"] not in LOSSES:
        losses = f"{', '.join(LOSSES)}, each alone or followed by +cls or +cls-bal"
        raise ValueError(f"there is no method {name}; there are {', and '.join([losses, *also])}")
    if match["classes"] not in (None, *CLASS_LOSSES):
        raise ValueError(f"{name}: +{match['classes']} is not a class loss; there are +{' and +'.join(CLASS_LOSSES)}")
    defaults, options = OPTIONS[match["loss"]], dict[str, float]()
    for part in filter(None, (match["options"] or "").split(",")):
        key, _, text = (piece.strip() for piece in part.partition("="))
        if key not in defaults:
            raise ValueError(f"{name}: {match['loss']} has no option {key}; it has {', '.join(defaults) or 'none'}")
        if key in options:
            raise ValueError(f"{name}: {key} is given twice")
        options[key] = _number(text)
        if not 0 <= options[key] < math.inf:
            raise ValueError(f"{name}: {key} = {text!r} is not a number of 0 or more")
    classes: Any = match["classes"] or ""
    return Method(loss=match["loss"], options={**defaults, **options}, classes=classes)


def _number(text: str) -> float:
    try:
        return abs(float(text)) if float(text) == 0 else float(text)  # no −0: it would give another name
    except ValueError:
        return math.nan


def make_loss(name: str, *, kind: Any, huber_delta: float = 1.0) -> "Loss":
    """The regression loss of a method; `kind` and `huber_delta` define its error per sample."""
    from regcls.methods.loss import Plain

    method = parsed(name)
    kind_of = Plain if method.loss == "reg" else import_module(_module_of(method.loss)).LOSS
    loss: Loss = kind_of(kind=kind, huber_delta=huber_delta, **method.options)
    return loss


def _module_of(loss: str) -> str:
    """The module of a loss other than `reg`."""
    return f"regcls.methods.{loss.replace('-', '_')}"


def engine_loss(name: str) -> "Loss | None":
    """The regression loss of a method for the ensemble engine, on squared errors; None for `reg`, the plain squared error."""
    return make_loss(name, kind="mse") if _has_module(name) else None


def code_of(name: str) -> str:
    """Digest of the code of a method's regression loss, with all its options; "" for `reg`, whose code is part of every run's digest."""
    if not _has_module(name):
        return ""
    method = parsed(name)
    return f"{code_digest('regcls.losses', alone=['regcls.methods.loss', _module_of(method.loss)])} {method.options}"


def _has_module(name: str) -> bool:
    match = _NAME.fullmatch(name)
    return match is not None and match["loss"] in LOSSES and match["loss"] != "reg"
