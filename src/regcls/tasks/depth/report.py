"""The report on depth: Tables 2 and 4, the effect of a class loss, the error by depth, and examples."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pandas.api.types import is_integer_dtype, is_numeric_dtype

from regcls.errors import MissingError
from regcls.methods import is_balanced
from regcls.metrics import SHOTS, Shot
from regcls.params.single import SEARCH, SingleGrid
from regcls.reports import page, protocol, shots
from regcls.reports.drawing import error_by_target
from regcls.reports.measured import Runs, by_seed, checked_tables, collect, finite, rows_like, short_name, unusable_lines
from regcls.reports.picking import records, warnings_of
from regcls.reports.report import Report, Section
from regcls.reports.shot_differences import of_root_mean_squares
from regcls.reports.shot_subject import SHORT, Metric, Published, ShotTable, Subject, best_by_validation, reg_and_best
from regcls.runs.grids import BestLambdas, expand
from regcls.tasks.depth import figures, published
from regcls.tasks.depth.data import DepthSet
from regcls.tasks.depth.metrics import errors_of, sums_of
from regcls.tasks.depth.params import Depth, Groups, by_bucket
from regcls.tasks.depth.runs import DepthSpec, make_spec
from regcls.tasks.depth.sums import BUCKETS, COLUMNS, bucket_sums
from regcls.tasks.task import Sources
from regcls.tracking.views import View
from regcls.words import counted

TITLES = {"table2": "Table 2: RMSE by shot group", "table4": "Table 4: trained on balanced data"}  # other grids go by their names
PRINTED = {"table2": published.table2, "table4": published.table4}
SELECTED = {
    "val": "RMSE-val: model selected on validation",
    "test": "RMSE-test: model selected on test (as earlier work; optimistic)",
}
DELTAS = ("delta1", "delta2", "delta3")
TESTED = "rmse_val"  # the test error to compare: of the weights selected on validation
EXAMPLES, SUMS = "examples.npz", "sums.parquet"  # artifacts of a run
CHECKED = {  # errors from sums -> the tracked metrics that they must equal
    "val_selected/rmse/all": "test/rmse/all",
    "test_selected/rmse/all": "selected_on_test/test/rmse/all",
}


def report(sources: Sources, *, fingerprints: Mapping[DepthSpec, str], best_lambdas: BestLambdas) -> Report:
    """See `Task.report`; `fingerprints`: of every requested run; `best_lambdas`: chosen by the search."""
    depth: Depth = sources.section
    data: DepthSet = sources.data
    training = data.training_pixels()
    groups = depth.shots.groups(training)
    specs = {name: expand(make_spec, depth, sources.dataset, grid, best_lambdas) for name, grid in depth.grids.items()}
    # The search uses validation errors only: its runs need no test sums.
    summed = {fingerprints[spec] for name, wanted in specs.items() if name != SEARCH for spec in wanted}
    tables: dict[str, pd.DataFrame] = {}
    pixels = data.test_mask.sum(axis=(1, 2))

    def measure(chosen: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
        reasons = finite(chosen, ["val/rmse/all"])
        needed = chosen.loc[chosen["fingerprint"].isin(summed) & ~chosen["run_id"].isin(set(reasons)), "run_id"].tolist()
        usable, errors, unusable = checked_tables(
            chosen,
            needed,
            sources.table(SUMS),
            what="sums",
            fault=lambda table: _fault(table, pixels),
            errors=lambda table: _errors(table, groups),
            checked=CHECKED,
        )
        tables.update(usable)
        return chosen.set_index("run_id").join(errors), reasons | unusable

    runs, picked = collect(sources.runs, fingerprints, measure, dataset=sources.dataset)
    grids = {name: runs.of(wanted) for name, wanted in specs.items() if wanted}
    prepared = {"training images": len(data.rows("train")) + len(data.rows("val")), "test images": len(data.rows("test"))}
    counts = protocol.other_counts(prepared, published.COUNTS if depth.published else {})
    subject = _subject(depth, runs, tables, counts, data, groups)
    used = [grid for name, grid in depth.grids.items() if name in grids and name != SEARCH]
    changed = [*counts, *(line for grid in used for line in departures(depth, grid, drawn_mask=data.has_drawn_mask))]
    report = Report(
        dataset=sources.dataset,
        title=depth.title,
        wanted=len(runs.wanted),
        finished=int((runs.wanted["state"] == "finished").sum()),
        intro=f"One network for each run predicts the {depth.data.target} of every pixel of an image. It is trained with a regression "
        "loss alone (reg), with an added classification loss (reg+cls), and with balanced classes (reg+cls-bal). Errors are shown over all "
        f"{'measured test pixels' if data.tests_all else 'test pixels in the mask – equally many of each depth –'} and by how frequent "
        "their depth is in training: Many, Medium, Few. Every number comes from tracked MLflow runs and links to them"
        f"{', and the published values are shown next to ours' if depth.published else ''}.",
        extent=protocol.paper_differences(
            depth.published,
            reduced=protocol.reductions(depth.grids, published.GRIDS),
            changed=list(dict.fromkeys(changed)),
            without=[],
        ),
        networks=_networks(depth, data.deepest),
        view=View(
            tag=("dataset", sources.dataset),
            params=("method", "classes", "lambda", "balanced_data", "seed"),
            metrics=("test/rmse/all", "test/rmse/many", "test/rmse/medium", "test/rmse/few", "val/rmse/all"),
            axes=("method", "classes", "seed"),
        ),
        other_data=counts,
    )
    report.warnings += warnings_of({name: grid.wanted for name, grid in grids.items()}, duplicates=picked.duplicates, stale=picked.stale)
    report.warnings += unusable_lines(picked.wanted, "sums", SUMS)

    def extra(main: Runs) -> None:
        _add_by_depth(report, depth, subject, main, tables, figures.training_histogram(training, groups, data.deepest))
        _add_examples(report, sources, subject, main)

    shots.complete(report, subject, grids, best_lambdas=best_lambdas, extra=extra)
    return page.complete(report, runs, picked, links=sources.tracker, provenance=sources.provenance)


def _fault(table: pd.DataFrame, pixels: NDArray[np.int64]) -> str:
    """Why a table of sums cannot be used; "" if each selection has the `pixels` (T,) of each test image, with finite numbers."""
    keys = ["selection", "image", "bucket"]
    kinds = {"image": is_integer_dtype, "bucket": is_integer_dtype} | dict.fromkeys(COLUMNS, is_numeric_dtype)
    if "selection" not in table or not all(name in table and fits(table[name]) for name, fits in kinds.items()):
        return "with damaged sums"
    if not np.isfinite(table[list(COLUMNS)].to_numpy(float)).all():
        return "without a finite error"
    if not (
        table["bucket"].between(0, BUCKETS - 1) & table["image"].between(0, len(pixels) - 1) & (table[list(COLUMNS)] >= 0).all(axis=1)
    ).all():
        return "with damaged sums"
    sizes = table.groupby(["selection", "image"], observed=True)["n"].sum().unstack("image").reindex(columns=range(len(pixels))).fillna(0)
    same = set(sizes.index) == {"val", "test"} and bool((sizes.to_numpy() == pixels).all())
    return "" if same and not table.duplicated(keys).any() else "with sums of other pixels"


def _errors(table: pd.DataFrame, groups: Groups) -> dict[str, float]:
    """The test errors of a run from its sums, of the weights selected on val, and on test."""
    return {
        f"{selection}_selected/{name}": value
        for selection, part in table.groupby("selection")
        for name, value in errors_of(sums_of(part), groups)
    }


def _metric(name: str, selection: str, title: str) -> Metric:
    return Metric(name=f"{name}_{selection}", measured=f"{selection}_selected/{name}", title=title, higher_is_better=name in DELTAS)


def by_image(table: pd.DataFrame, images: NDArray[np.int64], groups: Groups) -> NDArray[np.float64]:
    """Pixels and summed squared errors (T, G, 2) by image and shot group, from a table of sums."""
    group = np.array([SHOTS.index(shot) for shot in by_bucket(groups)])[table["bucket"]]
    index = np.searchsorted(images, table["image"]) * len(SHOTS) + group
    columns = [np.bincount(index, table[name], len(images) * len(SHOTS)) for name in COLUMNS[:2]]  # n, squared
    sums = np.stack(columns, axis=1).reshape(len(images), len(SHOTS), 2).astype(np.float64)
    sums[:, 0] = sums[:, 1:].sum(axis=1)  # all
    return sums


def _constants(data: DepthSet, groups: Groups) -> dict[str, dict[str, float]]:
    """The errors on the test pixels of predicting the mean and the median of the measured training depths for every pixel."""
    levels, depths = data.levels("train")[1:], data.depths[1:]
    if not levels.sum():
        return {}
    middle = int(np.searchsorted(levels.cumsum(), levels.sum() / 2))
    constants = {"mean of training depths": float(np.average(depths, weights=levels)), "median of training depths": float(depths[middle])}
    targets = torch.from_numpy(data.test_targets(data.test_mask))[None, None]
    every = torch.ones_like(targets, dtype=torch.bool)
    limits = {"deepest": data.deepest, "nearest": 1 / data.per_unit}
    sums = {name: bucket_sums(torch.full_like(targets, constant), targets, every, **limits).numpy() for name, constant in constants.items()}
    return {
        name: {f"{selection}_selected/{error}": value for selection in SELECTED for error, value in errors_of(of_constant, groups)}
        for name, of_constant in sums.items()
    }


def _subject(
    depth: Depth,
    runs: Runs,
    tables: Mapping[str, pd.DataFrame],
    counts: Sequence[str],
    data: DepthSet,
    groups: Groups,
) -> Subject:
    selected = {run_id: table[table["selection"] == "val"] for run_id, table in tables.items()}
    images = np.unique(np.concatenate([np.empty(0, np.int64), *(table["image"] for table in selected.values())])).astype(np.int64)
    sums = {run_id: by_image(table, images, groups) for run_id, table in selected.items()}
    first = next(iter(sums.values()), np.zeros((0, len(SHOTS), 2)))[:, :, 0]
    sizes: dict[Shot, tuple[int, int]] = {shot: (int(first[:, g].sum()), int((first[:, g] > 0).sum())) for g, shot in enumerate(SHOTS)}
    listed = ", ".join(f"{SHORT[shot]} {pixels:,} ({with_pixels:,})" for shot, (pixels, with_pixels) in sizes.items())
    titles = {name: TITLES.get(name, f"{name}: RMSE by shot group") for name in depth.grids if name != SEARCH}
    unit = depth.data.unit
    in_unit = f" ({unit})" if unit else ""

    def printed(name: str) -> Published | None:
        if not depth.published or name not in PRINTED:
            return None
        grid = depth.grids[name]
        balance = [] if grid.balanced_data == published.GRIDS[name].balanced_data else ["not on the data of this table"]
        why = ", ".join([*counts, *departures(depth, grid, drawn_mask=data.has_drawn_mask), *balance])
        return Published(values=PRINTED[name](), where="NYUD2-DIR", why=why, digits=3, balanced_data=grid.balanced_data)

    selected_on = "On the test images, weights selected on validation."
    return Subject(
        runs=runs,
        grids=depth.grids,
        titles=titles,
        main=ShotTable(
            suffix="",
            metrics=[_metric("rmse", selection, title) for selection, title in SELECTED.items()],
            caption=f"Test RMSE{in_unit} by shot group, trained on {{data}}; mean ± std over seeds.",
            notes=[
                f"Both are RMSE{in_unit} on the test images, of two sets of weights from one training: those of the epoch with the lowest "
                "RMSE on validation, and those of the epoch with the lowest RMSE on the test images themselves, which in practice is "
                "unknown."
            ],
        ),
        more=[
            ShotTable(
                suffix="mae",
                metrics=[
                    _metric(name, "val", title) for name, title in (("mae", f"MAE{in_unit}"), ("abs_rel", "ABS_REL"), ("log10", "log10"))
                ],
                caption=f"MAE{in_unit}, ABS_REL and log10 by shot group, model selected on validation; mean ± std over seeds.",
                notes=[selected_on, "ABS_REL: |error| / depth. log10: |log10 prediction − log10 depth|."],
            ),
            ShotTable(
                suffix="delta",
                metrics=[_metric(name, "val", f"δ{name[-1]} (higher is better)") for name in DELTAS],
                caption="δ1, δ2 and δ3 by shot group, model selected on validation; mean ± std over seeds.",
                notes=[selected_on, "δk: share of pixels whose prediction and depth differ by less than a factor of 1.25 to the k."],
            ),
        ],
        samples={False: "all training pixels", True: "balanced data"},
        published=printed,
        sizes={shot: (f"{pixels:,} px", f"{with_pixels:,} images") for shot, (pixels, with_pixels) in sizes.items()},
        groups=f"{groups_note(depth, data.deepest)} Test pixels (images with such pixels): {listed}.",
        test_images=len(images),
        compare=of_root_mean_squares(sums, error=TESTED),
        constants=_constants(data, groups),
        negligible=depth.negligible,
        tested={TESTED: SELECTED["val"]},
        meaning=f"Δ = RMSE(reg) − RMSE(method){f' in {unit}' if unit else ''}, over the seeds that both have, weights selected on "
        "validation: above 0 the method helps.",
        independence="It takes images as independent samples, not their pixels; the images of a scene are not independent, so intervals "
        "tend to be too narrow.",
        judged=("val/rmse/all", "validation RMSE"),
        searched={"val/rmse/all": "validation RMSE", "val/mae/all": "validation MAE"},
        error="RMSE",
        unit=unit,
        few=lambda images: f"{counted(images, 'image')} with such pixels",
        nothing_in_few="No test pixel is in Few.",
        digits=lambda value: 3,
    )


def groups_note(depth: Depth, deepest: float) -> str:
    """The definition of the shot groups, as a note; `deepest`: upper end of the buckets."""
    shots, width = depth.shots, _bucket(depth, deepest)
    if shots.by == "density":
        return (
            f"Pixels are grouped by the training pixels in their bucket of {width}, relative to the mean of the {BUCKETS} buckets. Many: "
            f"more than {shots.many_above:g} times the mean; Few: less than {shots.few_below:g} times the mean; Med.: between."
        )

    def text(ranges: Sequence[tuple[int, int]]) -> str:
        return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in ranges) or "none"

    example = f"bucket 9 is {9 * deepest / BUCKETS:g} to {10 * deepest / BUCKETS:.1f} {depth.data.unit}".rstrip()
    return f"Pixels are grouped by buckets of {width} ({example}). Many: {text(shots.many)}; Med.: {text(shots.medium)}; Few: the rest."


def _bucket(depth: Depth, deepest: float) -> str:
    """The width of a bucket: `0.1 m`."""
    return f"{deepest / BUCKETS:.3g} {depth.data.unit}".rstrip()


def departures(depth: Depth, grid: SingleGrid, *, drawn_mask: bool) -> list[str]:
    """The data and training values of a grid that differ from the paper's: `epochs 10 instead of 5`.

    `drawn_mask`: whether the test pixels were drawn in preparation, without the official mask.
    """
    ours = asdict(depth.data) | asdict(depth.training) | asdict(depth.shots)
    unused = ["batch_size", "accumulate"] if grid.balanced_data else ["balanced_batch_size", "balanced_accumulate", "balanced_bins"]
    unused += [] if grid.balanced_data or any(map(is_balanced, grid.methods)) else ["rounding"]
    lam = {classes: depth.training.lam_for(classes) for classes in grid.classes}
    say = {
        "source": lambda ours, papers: ["generated stand-in images"],
        "many": lambda ours, papers: ["other shot groups"],
        "medium": lambda ours, papers: ["other shot groups"],
        "lam": lambda ours, papers: [
            f"λ {lam[classes]:g} instead of {papers[classes]:g} ({classes} classes)"
            for classes in grid.classes
            if grid.lambdas == "default" and classes in papers and lam[classes] != papers[classes]
        ],
        # Any ImageNet weights count as the paper's, which does not say which ones it uses.
        "weights": lambda ours, papers: ["random weights instead of ImageNet's"] if ours == "random" else [],
    }
    lines = protocol.departures(ours, published.VALUES, unused=unused, say=say) + protocol.other_lambdas(grid.lambdas)
    if drawn_mask and depth.data.source == "raw":
        lines.append("another draw of test pixels, without test_balanced_mask.npy")
    return lines


def _networks(depth: Depth, deepest: float) -> str:
    training = depth.training
    weights = "random weights" if training.weights == "random" else "ImageNet weights"
    steps = f", × {training.decay} after epochs {', '.join(map(str, training.milestones))}" if training.milestones else ""
    return (
        f"Networks: {training.model}, {training.width} channels in the first stage, {weights} at the start; images of "
        f"{depth.data.crop[1]} × {depth.data.crop[0]} pixels, depth at half of that; {training.optimizer}, {training.epochs} epochs, "
        f"learning rate {training.learning_rate}{steps}, batches of {training.batch_size} × {training.accumulate} "
        f"({training.balanced_batch_size} × {training.balanced_accumulate} on balanced data), weight decay {training.weight_decay}, "
        f"{training.precision}; regression loss {training.loss}. {groups_note(depth, deepest)} The weights kept are those with the lowest "
        "validation RMSE, over validation pixels drawn with the class-keeping probability, and, for comparison with earlier work, those "
        "with the lowest test RMSE."
    )


def _add_by_depth(
    report: Report, depth: Depth, subject: Subject, runs: Runs, tables: Mapping[str, pd.DataFrame], bars: pd.DataFrame
) -> None:
    chosen = best_by_validation(subject, runs)
    if chosen.empty:
        return
    deepest, in_unit = float(bars["depth_to"].iloc[-1]), f" ({depth.data.unit})" if depth.data.unit else ""
    lines, width = _lines(runs, chosen, tables, deepest), _bucket(depth, deepest)
    levels = ", which has two or three of the 255 levels of training depth" if depth.data.layout == "nyu2" else ""
    section = Section(
        name="error_by_depth",
        title="Error by depth",
        svg=error_by_target(
            lines.rename(columns={"depth_from": "start", "depth_to": "end", "rmse": "error"}),
            bars.rename(columns={"depth_from": "start", "depth_to": "end", "training_pixels": "count"}),
            target=f"{depth.data.target}{in_unit}",
            error=f"test RMSE{in_unit}",
            counted="training pixels",
            each=width,
            limits={},
        ),
        alt="Test RMSE against depth, one line per method, over a histogram of the training pixels by depth. The CSV has the numbers.",
        caption=f"Test RMSE by depth, in buckets of {width}, model selected on validation; mean over seeds, shaded: ± standard deviation "
        "over seeds. Each method is shown at its number of classes with the lowest validation RMSE. Grey, on the right axis (log): "
        f"training pixels of each bucket{levels}; darker: many, lighter: few.",
    )
    numbers = pd.concat([lines.assign(drawn="line"), bars.assign(drawn="bar")], ignore_index=True).rename(columns={"weight": "lambda"})
    report.add(section, numbers=numbers.set_index("drawn").reset_index())


def _lines(runs: Runs, chosen: pd.DataFrame, tables: Mapping[str, pd.DataFrame], deepest: float) -> pd.DataFrame:
    """Test RMSE by bucket, weights selected on validation: the cell, depth_from, depth_to, pixels, seeds, rmse (mean), std.

    Empty buckets have no row.
    """
    parts, per_unit = [], BUCKETS / deepest
    for row in records(chosen):
        by_run = [tables[run_id] for run_id in by_seed(rows_like(runs.wanted, row, runs.cell)).values()]
        sums = np.array([sums_of(table[table["selection"] == "val"]) for table in by_run])  # (S, 100, 8)
        buckets = np.flatnonzero(sums[0, :, 0])
        rmse = np.sqrt(sums[:, buckets, 1] / sums[:, buckets, 0])
        std = rmse.std(axis=0, ddof=1) if len(rmse) > 1 else np.full(len(buckets), np.nan)
        edges = {"depth_from": buckets / per_unit, "depth_to": (buckets + 1) / per_unit}
        counts = edges | {"pixels": sums[0, buckets, 0].astype(int), "seeds": len(sums)}
        parts.append(pd.DataFrame(counts | {"rmse": rmse.mean(axis=0), "std": std}).assign(**{key: row[key] for key in runs.cell}))
    return pd.concat(parts, ignore_index=True)[[*runs.cell, "depth_from", "depth_to", "pixels", "seeds", "rmse", "std"]]


def _add_examples(report: Report, sources: Sources, subject: Subject, runs: Runs) -> None:
    """Add examples of reg and of the other cell with the lowest validation error, at the first seed that both have."""
    shown = {short_name(row): by_seed(rows_like(runs.wanted, row, runs.cell)) for row in records(reg_and_best(subject, runs))}
    seeds = set.intersection(*map(set, shown.values())) if shown else set()
    if not seeds:
        return
    seed, read = min(seeds), sources.arrays(EXAMPLES)
    try:
        examples = {name: read(run_ids[seed]) for name, run_ids in shown.items()}
    except MissingError as error:
        report.warnings.append(f"no sheet of examples: {error}")
        return
    per_unit = sources.data.per_unit
    numbers = figures.errors_of_examples(examples, per_unit=per_unit).assign(seed=seed)
    numbers["run_id"] = numbers["method"].map({name: run_ids[seed] for name, run_ids in shown.items()})
    section = Section(
        name="examples",
        title="Examples",
        svg=figures.sheet(examples, per_unit=per_unit, unit=sources.section.data.unit),
        alt="A row per test image: the image, its measured depth, the depth predicted by each network, and the absolute error of each. "
        "The CSV has the errors.",
        caption=f"Test images (the same for all runs) and predictions of the networks with seed {seed}, model selected on validation. Dark "
        "violet is near, yellow is far, light grey is not measured. The RMSE under a picture is over all its measured pixels"
        f"{'' if sources.data.tests_all else ', not only the balanced ones of the tables'}.",
    )
    report.add(section, numbers=numbers)
