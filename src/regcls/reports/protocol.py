"""What params.yaml asks for beside what the paper ran, in words: values are compared, not how many there are."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, replace
from typing import Any

from regcls.data.counts import about_equal
from regcls.params.single import SEARCH, SingleGrid
from regcls.reports.published import (
    PAPER_COUNTS,
    PAPER_DEPTH_GRIDS,
    PAPER_DEPTH_VALUES,
    PAPER_FACE_GRIDS,
    PAPER_FACE_VALUES,
    PAPER_GRIDS,
    PAPER_SEEDS,
    PAPER_VALUES,
    PAPER_VIDEO_GRIDS,
    PAPER_VIDEO_VALUES,
)
from regcls.tasks.depth.params import Depth
from regcls.tasks.functions.params import FunctionGrid, Functions
from regcls.tasks.images.params import Images
from regcls.tasks.sequences.params import SequenceGrid, Sequences, Unit

AXES = {
    "settings": "settings", "samplings": "samplings", "noise": "noise levels", "methods": "methods", "classes": "class counts",
    "lambdas": "values of λ", "repetitions": "repetitions", "balanced_data": "balanced data", "seeds": "seeds",
    "units": "units", "splits": "splits",
}  # fmt: skip
BALANCED = "reg+cls-bal"  # the method with equalised classes
# What another value is called where the values themselves would say less.
IN_WORDS = {"source": "generated stand-in images", "many": "other shot groups", "medium": "other shot groups"}


def reductions(functions: Functions) -> list[str]:
    """Where the grids and seeds are not the paper's: `Figure 3: 3 of 5 class counts, 2 of 5 repetitions`."""
    lines = []
    for name, paper in PAPER_GRIDS.items():
        grid = functions.grids.get(name)
        other = ["left out"] if grid is None else list(_differences(grid, paper).values())
        if other:
            lines.append(f"{name.replace('figure', 'Figure ')}: {', '.join(other)}")
    ours = {"data_seeds": functions.data.data_seeds, "seeds": functions.training.seeds}
    changed = [name for name, seeds in PAPER_SEEDS.items() if any(here != there for here, there in zip(ours[name], seeds, strict=False))]
    return lines + [f"other {' and '.join(changed)}"] * bool(changed)


def unshown(functions: Functions) -> list[str]:
    """Grids whose runs are trained but have no figure."""
    return [name for name in functions.grids if name not in PAPER_GRIDS]


def departures(functions: Functions, grid: FunctionGrid) -> list[str]:
    """The data and training values of a grid that are not the paper's: `epochs 2 instead of 80`."""
    ours = asdict(functions.data) | asdict(functions.training)
    unused = {name for name, used in (("lam", grid.lambdas == "default"), ("rounding", BALANCED in grid.methods)) if not used}
    values = {name: value for name, value in PAPER_VALUES.items() if name not in unused}
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


def not_comparable(functions: Functions, name: str) -> str:
    """Why the released values of Figure 3, or the printed ones of Table 1 (grid figure4), are not of what was trained; empty if they are.

    Released values are matched by class count, so fewer of them do no harm to Figure 3; a share is over all class counts and λ.
    """
    grid, paper = functions.grids[name], PAPER_GRIDS[name]
    why, axes = departures(functions, grid), _differences(grid, paper)
    if name == "figure4" or not set(grid.classes) <= set(paper.classes):
        why += [axes["classes"]] if "classes" in axes else []
    why += [axes["lambdas"]] if "lambdas" in axes else []
    return f"Not comparable with the {'printed' if name == 'figure4' else 'released'} values: {', '.join(why)}." if why else ""


def other_data(published: str | None, counts: Mapping[str, int], *, source: str) -> list[str]:
    """Where other numbers were prepared than of the paper's data: `300 instead of 1712 videos`. Stand-ins are named as such anyway."""
    paper = PAPER_COUNTS.get(published or "", {}) if source == "raw" else {}
    return [f"{counts[what]} instead of {there} {what}" for what, there in paper.items() if not about_equal(counts[what], there)]


def face_reductions(faces: Images) -> list[str]:
    """Where the grids of a data set of faces are not the paper's: `Table 3: 2 of 3 class counts, 2 of 3 seeds`."""
    return _image_reductions(faces, PAPER_FACE_GRIDS)


def faces_unshown(faces: Images) -> list[str]:
    """Grids whose runs are trained but have no table."""
    return _images_unshown(faces, PAPER_FACE_GRIDS)


def face_departures(faces: Images, grid: SingleGrid) -> list[str]:
    """The data and training values of a grid on faces that are not the paper's: `epochs 10 instead of 90`."""
    unused = {"learning_rate"} if grid.balanced_data else {"balanced_learning_rate", "balanced_bins"}
    if faces.data.source == "stand-in":
        unused |= {"min_face_score", "split_seed"}  # other images are split anyway
    return _image_departures(faces, grid, PAPER_FACE_VALUES, unused)


def faces_not_comparable(faces: Images, name: str, data: Sequence[str] = ()) -> str:
    """Why the published values of Table 3 or 4 are not of what was trained; empty if they are. They are of IMDB-WIKI.

    `data`: see `other_data`.
    Fewer class counts, methods or seeds do no harm: a row of the table stands for itself.
    """
    grid = faces.grids[name]
    return ", ".join([*data, *face_departures(faces, grid), *_other_balance(grid, PAPER_FACE_GRIDS[name])])


def depth_reductions(depth: Depth) -> list[str]:
    """Where the grids on depth are not the paper's: `Table 2: 2 of 3 class counts, 2 of 3 seeds`."""
    return _image_reductions(depth, PAPER_DEPTH_GRIDS)


def depth_unshown(depth: Depth) -> list[str]:
    """Grids whose runs are trained but have no table."""
    return _images_unshown(depth, PAPER_DEPTH_GRIDS)


def depth_departures(depth: Depth, grid: SingleGrid, *, drawn_mask: bool) -> list[str]:
    """The data and training values of a grid on depth that are not the paper's: `epochs 10 instead of 5`.

    `drawn_mask`: the test pixels were drawn in preparing, for want of the official mask.
    """
    unused = {"batch_size", "accumulate"} if grid.balanced_data else {"balanced_batch_size", "balanced_accumulate", "balanced_bins"}
    if depth.data.source == "stand-in":
        unused |= {"split_seed"}  # other scenes are split anyway
    lines = _image_departures(depth, grid, PAPER_DEPTH_VALUES, unused)
    return lines + ["another draw of test pixels, without test_balanced_mask.npy"] * (drawn_mask and depth.data.source == "raw")


def depth_not_comparable(depth: Depth, name: str, data: Sequence[str] = (), *, drawn_mask: bool) -> str:
    """Why the published values of Table 2 or 4 are not of what was trained; empty if they are: see `faces_not_comparable`."""
    why = [*data, *depth_departures(depth, depth.grids[name], drawn_mask=drawn_mask)]
    return ", ".join(why + _other_balance(depth.grids[name], PAPER_DEPTH_GRIDS[name]))


def _image_reductions(section: Images | Depth, papers: Mapping[str, SingleGrid]) -> list[str]:
    lines = []
    for name, paper in papers.items():
        grid = section.grids.get(name)
        other = ["left out"] if grid is None or not grid.seeds else list(_by_axis(grid, paper).values())
        if other:
            lines.append(f"{name.replace('table', 'Table ')}: {', '.join(other)}")
    return lines


def _images_unshown(section: Images | Depth, papers: Mapping[str, SingleGrid]) -> list[str]:
    return [name for name, grid in section.grids.items() if grid.seeds and name not in (*papers, SEARCH)]


def _image_departures(section: Images | Depth, grid: SingleGrid, paper: Mapping[str, Any], unused: Set[str]) -> list[str]:
    ours = asdict(section.data) | asdict(section.training) | asdict(section.shots)
    unused = unused | (set() if grid.balanced_data or BALANCED in grid.methods else {"rounding"})
    lines = []
    for name, there in paper.items():
        here = ours[name]
        if name == "lam":
            used = [count for count in grid.classes if count in there and grid.lambdas == "default"]
            changed = [count for count in used if section.training.lam_for(count) != there[count]]
            lines += [f"λ {section.training.lam_for(count):g} instead of {there[count]:g} ({count} classes)" for count in changed]
        elif name == "weights":  # wherever a file of them is: the paper does not say which ones
            lines += ["random weights instead of ImageNet's"] * (here == "random")
        elif name not in unused and here != there:
            lines.append(IN_WORDS.get(name) or f"{name.replace('_', ' ')} {_text(here)} instead of {_text(there)}")
    return list(dict.fromkeys(lines)) + _other_lambdas(grid)


def _other_balance(grid: SingleGrid, paper: SingleGrid) -> list[str]:
    return ["not on the data of this table"] * (grid.balanced_data != paper.balanced_data)


def video_reductions(video: Sequences) -> list[str]:
    """Where the grid on videos is not the paper's: `Table 5: 2 of 3 seeds`."""
    grid, paper = video.grids.get("table5"), PAPER_VIDEO_GRIDS["table5"]
    other = ["left out"] if grid is None or not grid.seeds else list(_by_axis(grid, paper).values())
    return [f"Table 5: {', '.join(other)}"] if other else []


def videos_unshown(video: Sequences) -> list[str]:
    """Grids whose runs are trained but have no table."""
    return [name for name, grid in video.grids.items() if grid.seeds and name not in (*PAPER_VIDEO_GRIDS, SEARCH)]


def video_departures(video: Sequences, grid: SequenceGrid) -> list[str]:
    """The data and training values of a grid on videos that are not the paper's: `epochs 10 instead of 40`."""
    ours = asdict(video.data) | asdict(video.training)
    lines: list[str] = []
    for name, there in PAPER_VIDEO_VALUES.items():
        what, here = name.replace("_", " "), ours[name]
        if name == "rounding" and BALANCED not in grid.methods:
            continue
        if name == "source":
            lines += ["generated stand-in videos"] * (here != there)
        elif name == "test_persons":
            lines += [f"other test persons ({split})" for split in grid.splits if here[split] != there[split]]
        elif name == "lam":
            changed = [unit for unit in grid.units if grid.lambdas == "default" and here[unit] != there[unit]]
            lines += [f"λ {_text(here[unit])} instead of {_text(there[unit])} ({unit})" for unit in changed]
        elif here != there:
            lines.append(f"{what} {_text(here)} instead of {_text(there)}")
    return lines + _other_lambdas(grid)


def videos_not_comparable(video: Sequences, unit: Unit, data: Sequence[str] = ()) -> str:
    """Why the published values of Table 5 (a: percent, b: frames) are not of what was trained; empty if they are.

    `data`: see `other_data`.
    """
    return ", ".join([*data, *video_departures(video, replace(video.grids["table5"], units=(unit,)))])


def _other_lambdas(grid: SingleGrid | SequenceGrid) -> list[str]:
    if grid.lambdas == "default":
        return []
    return ["λ from our own search" if grid.lambdas == "searched" else f"λ {_text(grid.lambdas)} instead of the paper's"]


def _differences(grid: FunctionGrid, paper: FunctionGrid) -> dict[str, str]:
    """By axis, the words for it."""
    noisy = "noisy" in (*grid.settings, *paper.settings)
    return {axis: text for axis, text in _by_axis(grid, paper).items() if axis != "noise" or noisy}


def _by_axis(grid: FunctionGrid | SingleGrid | SequenceGrid, paper: FunctionGrid | SingleGrid | SequenceGrid) -> dict[str, str]:
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
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == "default":
        return "those found on the validation sets"
    if value == "searched":
        return "of our own search"
    return f"{value:g}" if isinstance(value, float) else str(value)
