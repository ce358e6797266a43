"""What params.yaml asks for beside what the paper ran, in words: values are compared, not how many there are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from regcls.data.counts import about_equal
from regcls.params.single import SEARCH

AXES = {
    "settings": "settings", "samplings": "samplings", "noise": "noise levels", "methods": "methods", "classes": "class counts",
    "lambdas": "values of λ", "repetitions": "repetitions", "balanced_data": "balanced data", "seeds": "seeds",
    "units": "units", "splits": "splits",
}  # fmt: skip

# Of a value that is another one: its name, ours and the paper's -> words for it, none or several; without one it is said as it stands.
Say = Callable[[Any, Any], Sequence[str]]


def reductions(grids: Mapping[str, Any], papers: Mapping[str, Any]) -> list[str]:
    """Where the grids are not the paper's: `Table 3: 2 of 3 class counts, 2 of 3 seeds`."""
    lines = []
    for name, paper in papers.items():
        grid = grids.get(name)
        other = ["left out"] if grid is None or not getattr(grid, "seeds", 1) else list(by_axis(grid, paper).values())
        if other:
            lines.append(f"{name.replace('figure', 'Figure ').replace('table', 'Table ')}: {', '.join(other)}")
    return lines


def unshown(grids: Mapping[str, Any], shown: Sequence[str]) -> list[str]:
    """Grids whose runs are trained but have no table or figure."""
    return [name for name, grid in grids.items() if getattr(grid, "seeds", 1) and name not in (*shown, SEARCH)]


def departures(
    ours: Mapping[str, Any], paper: Mapping[str, Any], *, unused: Sequence[str] = (), say: Mapping[str, Say] | None = None
) -> list[str]:
    """The data and training values that are not the paper's: `epochs 10 instead of 90`. `say`: words where the values would say less."""
    lines: list[str] = []
    for name, there in paper.items():
        here = ours[name]
        if name in unused or here == there:
            continue
        if say and name in say:
            lines += say[name](here, there)
        else:
            lines.append(f"{name.replace('_', ' ')} {text_of(here)} instead of {text_of(there)}")
    return list(dict.fromkeys(lines))


def by_key(what: str, keys: Sequence[Any]) -> Say:
    """Words for values by key (setting, class count, unit), of which only `keys` are used: `λ 7 instead of 100 (clean)`."""

    def say(here: Any, there: Any) -> list[str]:
        used = [key for key in keys if key in there and here[key] != there[key]]
        return [f"{what} {text_of(here[key])} instead of {text_of(there[key])} ({key})" for key in used]

    return say


def other_lambdas(lambdas: Any) -> list[str]:
    """Where λ is not the paper's."""
    if lambdas == "default":
        return []
    return ["λ from our own search" if lambdas == "searched" else f"λ {text_of(lambdas)} instead of the paper's"]


def other_counts(found: Mapping[str, int], paper: Mapping[str, int]) -> list[str]:
    """Where other numbers were prepared than of the paper's data: `300 instead of 1712 videos`."""
    return [f"{found[what]} instead of {there} {what}" for what, there in paper.items() if not about_equal(found[what], there)]


def by_axis(grid: Any, paper: Any) -> dict[str, str]:
    """The axes of a grid that are not the paper's, each with words for it."""
    words = {axis: _difference(axis, getattr(grid, axis), getattr(paper, axis)) for axis in AXES if hasattr(paper, axis)}
    if "noisy" not in (*getattr(grid, "settings", ("noisy",)), *getattr(paper, "settings", ())):
        words.pop("noise", None)
    return {axis: text for axis, text in words.items() if text}


def _difference(axis: str, here: Any, there: Any) -> str:
    what = AXES[axis]
    if axis in ("repetitions", "seeds"):
        return "" if here == there else f"{here} {'of' if here < there else 'instead of'} {there} {what}"
    if not (isinstance(here, tuple) and isinstance(there, tuple)):
        return "" if here == there else f"{what} {text_of(here)} instead of {text_of(there)}"
    if set(here) == set(there):
        return ""
    if set(here) < set(there):
        return f"{len(here)} of {len(there)} {what}"
    return f"{what} {text_of(here)} instead of {text_of(there)}"


def text_of(value: Any) -> str:
    """A value of params.yaml for readers."""
    if isinstance(value, tuple):
        return ", ".join(map(text_of, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == "default":
        return "those found on the validation sets"
    if value == "searched":
        return "of our own search"
    return f"{value:g}" if isinstance(value, float) else str(value)


def beside(published: str | None, *, reduced: Sequence[str], changed: Sequence[str], without: Sequence[str]) -> list[str]:
    """Sentences for the head of a page: how what was run differs from what the paper ran; `without`: see unshown."""
    lines = []
    if published:
        lines += [f"Other than in the paper – {'; '.join(reduced)}."] * bool(reduced)
        lines += [f"Not the paper's data or training values: {', '.join(changed)}."] * bool(changed)
        lines += ["The paper's grids in full, with its training values."] * (not reduced and not changed)
    if without:
        lines.append(f"Trained, but not shown here: the grid{'s' if len(without) > 1 else ''} {', '.join(without)}.")
    return lines
