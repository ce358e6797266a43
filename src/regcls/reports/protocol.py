"""Differences between params.yaml and the paper's experiments, in words."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from regcls.data.counts import about_equal
from regcls.params.single import SEARCH

AXES = {
    "settings": "settings", "samplings": "samplings", "noise": "noise levels", "methods": "methods", "classes": "class counts",
    "lambdas": "values of λ", "repetitions": "repetitions", "balanced_data": "balanced data", "seeds": "seeds",
    "units": "units", "splits": "splits",
}  # fmt: skip

# (our value, the paper's value) -> phrases for the difference, which may be empty.
Say = Callable[[Any, Any], Sequence[str]]


def reductions(grids: Mapping[str, Any], papers: Mapping[str, Any]) -> list[str]:
    """Differences of the grids to the paper's: `Table 3: 2 of 3 class counts, 2 of 3 seeds`."""
    lines = []
    for name, paper in papers.items():
        grid = grids.get(name)
        differences = ["left out"] if grid is None or not getattr(grid, "seeds", 1) else list(by_axis(grid, paper).values())
        if differences:
            lines.append(f"{name.replace('figure', 'Figure ').replace('table', 'Table ')}: {', '.join(differences)}")
    return lines


def unshown(grids: Mapping[str, Any], shown: Sequence[str]) -> list[str]:
    """Names of grids that are trained but have no table or figure."""
    return [name for name, grid in grids.items() if getattr(grid, "seeds", 1) and name not in (*shown, SEARCH)]


def departures(
    ours: Mapping[str, Any], paper: Mapping[str, Any], *, unused: Sequence[str] = (), say: Mapping[str, Say] | None = None
) -> list[str]:
    """Data and training values that differ from the paper's: `epochs 10 instead of 90`. `say`: name -> own phrases for a value."""
    lines: list[str] = []
    for name, papers in paper.items():
        value = ours[name]
        if name in unused or value == papers:
            continue
        if say and name in say:
            lines += say[name](value, papers)
        else:
            lines.append(f"{name.replace('_', ' ')} {text_of(value)} instead of {text_of(papers)}")
    return list(dict.fromkeys(lines))


def by_key(what: str, keys: Sequence[Any]) -> Say:
    """Phrases for a mapping by setting, class count or unit, of which only `keys` are used: `λ 7 instead of 100 (clean)`."""

    def say(ours: Any, papers: Any) -> list[str]:
        different = [key for key in keys if key in papers and ours[key] != papers[key]]
        return [f"{what} {text_of(ours[key])} instead of {text_of(papers[key])} ({key})" for key in different]

    return say


def other_lambdas(lambdas: Any) -> list[str]:
    """A phrase if λ is not the paper's."""
    if lambdas == "default":
        return []
    return ["λ from our own search" if lambdas == "searched" else f"λ {text_of(lambdas)} instead of the paper's"]


def other_counts(ours: Mapping[str, int], paper: Mapping[str, int]) -> list[str]:
    """Differences of the prepared data's counts to the paper's: `300 instead of 1712 videos`."""
    return [f"{ours[what]} instead of {papers} {what}" for what, papers in paper.items() if not about_equal(ours[what], papers)]


def by_axis(grid: Any, paper: Any) -> dict[str, str]:
    """Phrases for the axes of a grid that differ from the paper's, by axis."""
    words = {axis: _difference(axis, getattr(grid, axis), getattr(paper, axis)) for axis in AXES if hasattr(paper, axis)}
    if "noisy" not in (*getattr(grid, "settings", ("noisy",)), *getattr(paper, "settings", ())):
        words.pop("noise", None)
    return {axis: text for axis, text in words.items() if text}


def _difference(axis: str, ours: Any, papers: Any) -> str:
    what = AXES[axis]
    if axis in ("repetitions", "seeds"):
        return "" if ours == papers else f"{ours} {'of' if ours < papers else 'instead of'} {papers} {what}"
    if not (isinstance(ours, tuple) and isinstance(papers, tuple)):
        return "" if ours == papers else f"{what} {text_of(ours)} instead of {text_of(papers)}"
    if axis == "methods":  # others may be trained beside the paper's
        ours = tuple(method for method in ours if method in papers)
    if set(ours) == set(papers):
        return ""
    if set(ours) < set(papers):
        return f"{len(ours)} of {len(papers)} {what}"
    return f"{what} {text_of(ours)} instead of {text_of(papers)}"


def text_of(value: Any) -> str:
    """A value of params.yaml, for readers."""
    if isinstance(value, tuple):
        return ", ".join(map(text_of, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == "default":
        return "those found on the validation sets"
    if value == "searched":
        return "of our own search"
    return f"{value:g}" if isinstance(value, float) else str(value)


def paper_differences(published: str | None, *, reduced: Sequence[str], changed: Sequence[str], without: Sequence[str]) -> list[str]:
    """Sentences for the head of a page on differences to the paper's experiments; `without`: grids from `unshown`."""
    lines = []
    if published and reduced:
        lines.append(f"Different from the paper – {'; '.join(reduced)}.")
    if published and changed:
        lines.append(f"Not the paper's data or training values: {', '.join(changed)}.")
    if published and not reduced and not changed:
        lines.append("The paper's grids in full, with its training values.")
    if without:
        lines.append(f"Trained, but not shown here: the grid{'s' if len(without) > 1 else ''} {', '.join(without)}.")
    return lines
