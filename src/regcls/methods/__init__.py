"""Methods: how a training loss is made of predictions, targets and, where there is one, a class head.

A method's name says all of it: `reg` or another regression loss of LOSSES, with options where they are not the usual ones,
`focal-r(beta=0.5)`, and a class loss beside it (Eq. 4): `reg+cls`, `focal-r+cls-bal`. A grid lists such names.
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

CLASS_LOSSES = ("cls", "cls-bal")  # uniform classes; equalised ones (Eq. 12), kept with ρ (Eq. 13)
OPTIONS: Mapping[str, Mapping[str, float]] = {"reg": {}, "focal-r": {"beta": 0.2, "gamma": 1.0}}  # of each loss, with usual values
LOSSES = tuple(OPTIONS)
MEANINGS = {"focal-r": "large errors weigh more in the regression loss (Yang et al., ICML 2021)"}  # for readers of reports

_NAME = re.compile(r"(?P<loss>[a-z][a-z0-9-]*)(?:\((?P<options>[^()]*)\))?(?:\+(?P<classes>[a-z-]+))?")


def in_words() -> str:
    """What there is, for help."""
    losses = (loss + f"({','.join(f'{key}={value:g}' for key, value in usual.items())})" * bool(usual) for loss, usual in OPTIONS.items())
    return f"{' or '.join(losses)}, alone or with a class loss: +cls, or +cls-bal (balanced classes)"


def meanings(names: Iterable[str]) -> list[str]:
    """A sentence for each regression loss but reg among methods."""
    losses = {match["loss"] for name in names if (match := _NAME.fullmatch(name))}
    return [f"{loss}: {meaning}." for loss, meaning in MEANINGS.items() if loss in losses]


def has_classes(name: str) -> bool:
    """Whether a method has a class loss, and so class counts and λ."""
    return "+" in name.rpartition(")")[2]


def is_balanced(name: str) -> bool:
    """Whether its classes are equalised (Eq. 12) and kept with ρ (Eq. 13)."""
    return name.endswith("+cls-bal")


def searched_as(name: str) -> str:
    """The method whose λ it takes where λ is not searched for itself: with balanced classes, that with uniform ones."""
    return name.removesuffix("-bal") if is_balanced(name) else name


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method by its parts."""

    loss: str  # of LOSSES
    options: Mapping[str, float]  # all of them, with the usual values where none is given
    classes: Literal["", "cls", "cls-bal"]  # the class loss beside it

    @property
    def name(self) -> str:
        """As grids, tables and tracked runs have it: options stand in it where they are not the usual ones."""
        usual = OPTIONS[self.loss]
        given = ",".join(f"{key}={str(value).removesuffix('.0')}" for key, value in self.options.items() if value != usual[key])
        return self.loss + f"({given})" * bool(given) + f"+{self.classes}" * bool(self.classes)


def canonical(name: str, *, also: tuple[str, ...] = ()) -> str:
    """The name of a method as `Method.name` has it; `also`: names of a task that are no loss.

    Raises:
        ValueError: see `parsed`.
    """
    return name if name in also else parsed(name, also=also).name


@cache
def parsed(name: str, *, also: tuple[str, ...] = ()) -> Method:
    """The method of a name.

    Raises:
        ValueError: there is no such method (nor one of `also`), or it has no such option.
    """
    match = _NAME.fullmatch(name)
    if match is None or match["loss"] not in LOSSES:
        losses = f"{', '.join(LOSSES)}, each alone or with +cls or +cls-bal behind it"
        raise ValueError(f"there is no method {name}; there are {', and '.join([losses, *also])}")
    if match["classes"] not in (None, *CLASS_LOSSES):
        raise ValueError(f"{name}: +{match['classes']} is no class loss; there are +{' and +'.join(CLASS_LOSSES)}")
    usual, given = OPTIONS[match["loss"]], dict[str, float]()
    for part in filter(None, (match["options"] or "").split(",")):
        key, _, text = (piece.strip() for piece in part.partition("="))
        if key not in usual:
            raise ValueError(f"{name}: {match['loss']} has no option {key}; it has {', '.join(usual) or 'none'}")
        if key in given:
            raise ValueError(f"{name}: {key} stands in it twice")
        given[key] = _number(text)
        if not 0 <= given[key] < math.inf:
            raise ValueError(f"{name}: {key} = {text!r} is no number of 0 or more")
    classes: Any = match["classes"] or ""
    return Method(loss=match["loss"], options={**usual, **given}, classes=classes)


def _number(text: str) -> float:
    try:
        return abs(float(text)) if float(text) == 0 else float(text)  # no −0, which would be another name
    except ValueError:
        return math.nan


def make_loss(name: str, *, kind: Any, huber_delta: float = 1.0) -> "Loss":
    """The regression loss of a method; `kind` and `huber_delta`: of the error that it builds on."""
    from regcls.methods.loss import Plain

    method = parsed(name)
    kind_of = Plain if method.loss == "reg" else import_module(_module_of(method.loss)).LOSS
    loss: Loss = kind_of(kind=kind, huber_delta=huber_delta, **method.options)
    return loss


def _module_of(loss: str) -> str:
    """Where a loss but `reg` lies."""
    return f"regcls.methods.{loss.replace('-', '_')}"


def engine_loss(name: str) -> "Loss | None":
    """The regression loss of a method for the engine of many small networks, on squared errors; None: these themselves."""
    return make_loss(name, kind="mse") if _has_module(name) else None


def code_of(name: str) -> str:
    """Digest of the code of a method's regression loss, and its options, usual ones too; "" where that is the code that all runs share."""
    if not _has_module(name):
        return ""
    method = parsed(name)
    return f"{code_digest('regcls.losses', alone=['regcls.methods.loss', _module_of(method.loss)])} {method.options}"


def _has_module(name: str) -> bool:
    match = _NAME.fullmatch(name)
    return match is not None and match["loss"] in LOSSES and match["loss"] != "reg"
