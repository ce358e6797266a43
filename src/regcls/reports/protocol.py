"""What params.yaml asks for beside what the paper ran, in words: values are compared, not how many there are."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from regcls.params import Params
from regcls.params.faces import SEARCH, FaceGrid, Faces
from regcls.params.synthetic import Grid
from regcls.reports.published import PAPER_FACE_GRIDS, PAPER_FACE_VALUES, PAPER_GRIDS, PAPER_SEEDS, PAPER_VALUES

AXES = {
    "settings": "settings", "samplings": "samplings", "noise": "noise levels", "methods": "methods", "classes": "class counts",
    "lambdas": "values of λ", "repetitions": "repetitions", "balanced_data": "balanced data", "seeds": "seeds",
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


def face_reductions(faces: Faces) -> list[str]:
    """Where the grids of a data set of faces are not the paper's: `Table 3: 2 of 3 class counts, 2 of 3 seeds`."""
    lines = []
    for name, paper in PAPER_FACE_GRIDS.items():
        grid = faces.grids.get(name)
        other = ["left out"] if grid is None or not grid.seeds else list(_by_axis(grid, paper).values())
        if other:
            lines.append(f"{name.replace('table', 'Table ')}: {', '.join(other)}")
    return lines


def faces_unshown(faces: Faces) -> list[str]:
    """Grids whose runs are trained but have no table."""
    return [name for name, grid in faces.grids.items() if grid.seeds and name not in (*PAPER_FACE_GRIDS, SEARCH)]


def face_departures(faces: Faces, grid: FaceGrid) -> list[str]:
    """The data and training values of a grid on faces that are not the paper's: `epochs 10 instead of 90`."""
    ours = asdict(faces.data) | asdict(faces.training) | asdict(faces.shots)
    unused = {"learning_rate"} if grid.balanced_data else {"balanced_learning_rate", "balanced_bins"}
    if faces.data.source == "stand-in":
        unused |= {"min_face_score", "split_seed"}  # other images are split anyway
    lines = []
    for name, there in PAPER_FACE_VALUES.items():
        what, here = {"lam": "λ", "source": "data"}.get(name, name.replace("_", " ")), ours[name]
        if name == "lam":
            used = [count for count in grid.classes if count in there and grid.lambdas == "default"]
            changed = [count for count in used if faces.training.lam_for(count) != there[count]]
            lines += [f"λ {faces.training.lam_for(count):g} instead of {there[count]:g} ({count} classes)" for count in changed]
        elif name not in unused and here != there:
            lines.append("generated stand-in images" if name == "source" else f"{what} {_text(here)} instead of {_text(there)}")
    if grid.lambdas != "default":
        lines.append("λ from our own search" if grid.lambdas == "searched" else f"λ {_text(grid.lambdas)} instead of the paper's")
    return lines


def faces_not_comparable(faces: Faces, name: str) -> str:
    """Why the published values of Table 3 or 4 are not of what was trained; empty if they are. They are of IMDB-WIKI.

    Fewer class counts, methods or seeds do no harm: a row of the table stands for itself.
    """
    grid, paper = faces.grids[name], PAPER_FACE_GRIDS[name]
    why = face_departures(faces, grid) + ["not on the data of this table"] * (grid.balanced_data != paper.balanced_data)
    return ", ".join(why)


def _differences(grid: Grid, paper: Grid) -> dict[str, str]:
    """By axis, the words for it."""
    noisy = "noisy" in (*grid.settings, *paper.settings)
    return {axis: text for axis, text in _by_axis(grid, paper).items() if axis != "noise" or noisy}


def _by_axis(grid: Grid | FaceGrid, paper: Grid | FaceGrid) -> dict[str, str]:
    words = {axis: _difference(axis, getattr(grid, axis), getattr(paper, axis)) for axis in AXES if hasattr(paper, axis)}
    return {axis: text for axis, text in words.items() if text}


def _difference(axis: str, here: Any, there: Any) -> str:
    what = AXES[axis]
    if axis in ("repetitions", "seeds"):
        return "" if here == there else f"{here} {'of' if here < there else 'instead of'} {there} {what}"
    if not (isinstance(here, tuple) and isinstance(there, tuple)):
        return "" if here == there else f"{what} {_text(here)} instead of {_text(there)}"
    if set(here) == set(there):
        return ""
    if set(here) < set(there):
        return f"{len(here)} of {len(there)} {what}"
    return f"{what} {_text(here)} instead of {_text(there)}"


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == "default":
        return "those found on the validation sets"
    if value == "searched":
        return "of our own search"
    return f"{value:g}" if isinstance(value, float) else str(value)
