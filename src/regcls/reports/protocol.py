"""What params.yaml asks for beside what the paper ran, in words: values are compared, not how many there are."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from regcls.params import Grid, Params
from regcls.reports.published import PAPER_GRIDS, PAPER_SEEDS, PAPER_VALUES

AXES = {
    "settings": "settings", "samplings": "samplings", "noise": "noise levels", "methods": "methods", "classes": "class counts",
    "lambdas": "values of λ", "repetitions": "repetitions",
}  # fmt: skip


def reductions(params: Params) -> list[str]:
    """Where the grids and seeds are not the paper's: `Figure 3: 3 of 5 class counts, 2 of 5 repetitions`."""
    lines = []
    for name, paper in PAPER_GRIDS.items():
        grid = params.synthetic.grids.get(name)
        other = ["left out"] if grid is None else list(_differences(grid, paper).values())
        if other:
            lines.append(f"{name.replace('figure', 'Figure ')}: {', '.join(other)}")
    ours = {"data_seeds": params.synthetic.data.data_seeds, "seeds": params.synthetic.training.seeds}
    changed = [name for name, seeds in PAPER_SEEDS.items() if any(here != there for here, there in zip(ours[name], seeds, strict=False))]
    return lines + [f"other {' and '.join(changed)}"] * bool(changed)


def unshown(params: Params) -> list[str]:
    """Grids whose runs are trained but have no figure."""
    return [name for name in params.synthetic.grids if name not in PAPER_GRIDS]


def departures(params: Params, grid: Grid) -> list[str]:
    """The data and training values of a grid that are not the paper's: `epochs 2 instead of 80`."""
    ours = asdict(params.synthetic.data) | asdict(params.synthetic.training)
    values = {name: value for name, value in PAPER_VALUES.items() if name != "lam" or grid.lambdas == "default"}
    lines = []
    for name, there in values.items():
        what, here = {"lam": "λ"}.get(name, name.replace("_", " ")), ours[name]
        if name == "functions":
            lines += ["other functions"] * (here != there)
        elif isinstance(there, Mapping):  # by setting or by sampling: those of the grid count
            used = [key for key in there if key in (*grid.settings, *grid.samplings) and here[key] != there[key]]
            lines += [f"{what} {_text(here[key])} instead of {_text(there[key])} ({key})" for key in used]
        elif here != there:
            lines.append(f"{what} {_text(here)} instead of {_text(there)}")
    return lines


def not_comparable(params: Params, name: str) -> str:
    """Why the released values of Figure 3, or the printed ones of Table 1 (grid figure4), are not of what was trained; empty if they are.

    Released values are matched by class count, so fewer of them do no harm to Figure 3; a share is over all class counts and λ.
    """
    grid, paper = params.synthetic.grids[name], PAPER_GRIDS[name]
    why, axes = departures(params, grid), _differences(grid, paper)
    if name == "figure4" or not set(grid.classes) <= set(paper.classes):
        why += [axes["classes"]] if "classes" in axes else []
    why += [axes["lambdas"]] if "lambdas" in axes else []
    return f"Not comparable with the {'printed' if name == 'figure4' else 'released'} values: {', '.join(why)}." if why else ""


def _differences(grid: Grid, paper: Grid) -> dict[str, str]:
    """By axis, the words for it."""
    noisy = "noisy" in (*grid.settings, *paper.settings)
    words = {axis: _difference(axis, getattr(grid, axis), getattr(paper, axis)) for axis in AXES if axis != "noise" or noisy}
    return {axis: text for axis, text in words.items() if text}


def _difference(axis: str, here: Any, there: Any) -> str:
    what = AXES[axis]
    if axis == "repetitions":
        return "" if here == there else f"{here} {'of' if here < there else 'instead of'} {there} {what}"
    if "default" in (here, there):
        return "" if here == there else f"{what} {_text(here)} instead of {_text(there)}"
    if set(here) == set(there):
        return ""
    if set(here) < set(there):
        return f"{len(here)} of {len(there)} {what}"
    return f"{what} {_text(here)} instead of {_text(there)}"


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    if value == "default":
        return "those found on the validation sets"
    return f"{value:g}" if isinstance(value, float) else str(value)
