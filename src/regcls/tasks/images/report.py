"""The report on images: Tables 3 and 4 (the same tables for any data set), the effect of a class loss, and the error by target."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from regcls.methods import is_balanced
from regcls.metrics import METRICS, SHOTS, ShotGroups, evaluate
from regcls.params.single import SEARCH, SingleGrid
from regcls.reports import page, protocol, shots
from regcls.reports.drawing import bin_count, bins_of, error_by_target, histogram
from regcls.reports.measured import Runs, by_seed, checked_tables, collect, finite, rows_like, unusable_lines
from regcls.reports.picking import records, warnings_of
from regcls.reports.report import Report, Section
from regcls.reports.shot_differences import of_means
from regcls.reports.shot_subject import SHORT, Metric, Published, ShotTable, Subject, best_by_validation
from regcls.reports.stats import CONSTANTS
from regcls.reports.tables import digits_of
from regcls.runs.grids import BestLambdas, expand
from regcls.tasks.images import published
from regcls.tasks.images.data import ImageSet
from regcls.tasks.images.params import Images
from regcls.tasks.images.runs import ImageSpec, make_spec
from regcls.tasks.task import Sources
from regcls.tracking.views import View
from regcls.words import counted

TITLES = {"table3": "Table 3: errors by shot group", "table4": "Table 4: trained on balanced data"}  # other grids go by their names
PRINTED = {"table3": published.table3, "table4": published.table4}
NAMES = {"mae": "MAE", "mse": "MSE", "rmse": "RMSE", "gm": "GM"}  # headings of metrics.METRICS; others go by their names
MAIN = ("mae", "mse")  # metrics of the first table; the others are in a folded table below it
TESTED: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {"mae": np.abs, "mse": np.square}  # metrics that are a mean over images
PREDICTIONS = "predictions.parquet"  # artifact of a run: row, path, target, prediction of each test image
CHECKED = ("test/mae/all", "test/mse/all")  # tracked metrics that the predictions must give


def report(sources: Sources, *, fingerprints: Mapping[ImageSpec, str], best_lambdas: BestLambdas) -> Report:
    """See `Task.report`; `fingerprints`: of every requested run; `best_lambdas`: chosen by the search."""
    images: Images = sources.section
    data: ImageSet = sources.data
    groups = images.shots.groups(data.targets("train"))
    specs = {name: expand(make_spec, images, sources.dataset, grid, best_lambdas) for name, grid in images.grids.items()}
    # The search uses validation errors only: its runs need no test predictions.
    predicted = {fingerprints[spec] for name, wanted in specs.items() if name != SEARCH for spec in wanted}
    tables: dict[str, pd.DataFrame] = {}

    def measure(chosen: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
        reasons = finite(chosen, ["val/mae/all", "val/mse/all"])
        needed = chosen.loc[chosen["fingerprint"].isin(predicted) & ~chosen["run_id"].isin(set(reasons)), "run_id"].tolist()
        usable, errors, unusable = checked_tables(
            chosen,
            needed,
            lambda run_id: _in_order(sources.table(PREDICTIONS)(run_id)),
            what="predictions",
            fault=lambda table: _fault(table, data),
            errors=lambda table: _errors(table, groups),
            checked=dict(zip(CHECKED, CHECKED, strict=True)),
        )
        tables.update(usable)
        values = chosen.set_index("run_id")
        return values.drop(columns=[name for name in values if str(name).startswith("test/")]).join(errors), reasons | unusable

    runs, picked = collect(sources.runs, fingerprints, measure, dataset=sources.dataset)
    grids = {name: runs.of(wanted) for name, wanted in specs.items() if wanted}
    counts = protocol.other_counts({"images": len(data.prepared.table)}, published.COUNTS if images.published else {})
    constants = _constants(data.targets("train").astype(float), data.targets("test").astype(float), groups)
    subject = _subject(images, runs, tables, groups, counts, constants)
    used = [grid for name, grid in images.grids.items() if name in grids and name != SEARCH]
    changed = list(dict.fromkeys([*counts, *(line for grid in used for line in departures(images, grid))]))
    report = Report(
        dataset=sources.dataset,
        title=images.title,
        wanted=len(runs.wanted),
        finished=int((runs.wanted["state"] == "finished").sum()),
        intro=f"One network for each run predicts a number ({images.data.target}) from an image. It is trained with a regression loss "
        "alone (reg), with an added classification loss (reg+cls), and with balanced classes (reg+cls-bal). Errors are shown over all "
        "test images and by how many training images have a similar target: Many, Medium, Few. Every number comes from tracked MLflow "
        f"runs and links to them{', and the published values are shown next to ours' if images.published else ''}.",
        extent=protocol.paper_differences(
            images.published,
            reduced=protocol.reductions(images.grids, published.GRIDS),
            changed=changed,
            without=[],
        ),
        networks=_networks(images),
        view=View(
            tag=("dataset", sources.dataset),
            params=("method", "classes", "lambda", "balanced_data", "seed"),
            metrics=("test/mae/all", "test/mae/many", "test/mae/medium", "test/mae/few", "test/mse/all", "val/mse/all"),
            axes=("method", "classes", "seed"),
        ),
        other_data=counts,
    )
    report.warnings += warnings_of({name: grid.wanted for name, grid in grids.items()}, duplicates=picked.duplicates, stale=picked.stale)
    report.warnings += unusable_lines(picked.wanted, "predictions", PREDICTIONS)
    shots.complete(
        report, subject, grids, best_lambdas=best_lambdas, extra=lambda main: _add_by_target(report, images, subject, main, tables, groups)
    )
    return page.complete(report, runs, picked, links=sources.tracker, provenance=sources.provenance)


def _in_order(table: pd.DataFrame) -> pd.DataFrame:
    """A table of predictions in the order of its images, if it names them."""
    return table.sort_values("row", ignore_index=True) if "row" in table else table


def _fault(table: pd.DataFrame, data: ImageSet) -> str:
    """Why a table of predictions, in order, cannot be used; "" if it has every test image once, with its target and a finite prediction."""
    if not all(name in table and is_numeric_dtype(table[name]) for name in ("row", "target", "prediction")):
        return "with damaged predictions"
    images = _in_order(pd.DataFrame({"row": data.rows("test"), "target": data.targets("test")}))
    if len(table) != len(images) or not all(np.array_equal(table[name], images[name]) for name in images):
        return "with predictions of other images"
    return "" if np.isfinite(table["prediction"].to_numpy(dtype=float)).all() else "without a finite error"


def _errors(table: pd.DataFrame, groups: ShotGroups) -> dict[str, float]:
    """The test metrics of a run, from its predictions."""
    shot = groups.shot_of(table["target"])
    return {f"test/{name}": value for name, value in evaluate(table["prediction"], table["target"], shot)}


def _constants(training: np.ndarray, tested: np.ndarray, groups: ShotGroups) -> dict[str, dict[str, float]]:
    """The test errors (targets T) of predicting the mean and the median of the training targets (N,) for every image."""
    if not len(tested):
        return {}
    shot = groups.shot_of(tested)
    return {
        name: {f"test/{metric}": value for metric, value in evaluate(np.full(len(tested), constant(training)), tested, shot)}
        for name, constant in CONSTANTS.items()
    }


def _title(name: str) -> str:
    return NAMES.get(name, name)


def _metric(name: str) -> Metric:
    return Metric(name=name, measured=f"test/{name}", title=_title(name))


def _subject(
    images: Images,
    runs: Runs,
    tables: Mapping[str, pd.DataFrame],
    groups: ShotGroups,
    counts: Sequence[str],
    constants: Mapping[str, Mapping[str, float]],
) -> Subject:
    first = next(iter(tables.values()), pd.DataFrame({"target": []}))
    shot, bins = groups.shot_of(first["target"]), groups.bin_of(first["target"])
    chosen = {name: np.ones(len(shot), bool) if name == "all" else shot == name for name in SHOTS}
    each = f"{images.data.target}s" if images.shots.by == "integer" else "bins"
    sizes = {name: (int(rows.sum()), len(np.unique(bins[rows]))) for name, rows in chosen.items()}
    listed = ", ".join(f"{SHORT[name]} {test_images:,} ({bins_hit:,})" for name, (test_images, bins_hit) in sizes.items())
    unit = images.data.unit
    if images.shots.by == "density":
        bins_text = f"bins of {images.data.target} ({images.shots.bins} over the range of the training images)"
    else:
        bins_text = each
    limits = f"Many: {bins_text} with more than {groups.many_above:g} training images; Few: fewer than {groups.few_below:g}; Med.: between."

    def losses(run_ids: Sequence[str]) -> dict[str, np.ndarray]:
        by_run = [tables[run_id]["prediction"].astype(float) - tables[run_id]["target"].astype(float) for run_id in run_ids]
        errors = np.stack(by_run) if by_run else np.empty((0, len(shot)))
        return {name: TESTED[name](errors) for name in TESTED}

    def printed(name: str) -> Published | None:
        if not images.published or name not in PRINTED:
            return None
        grid = images.grids[name]
        balance = [] if grid.balanced_data == published.GRIDS[name].balanced_data else ["not on the data of this table"]
        why = ", ".join([*counts, *departures(images, grid), *balance])
        return Published(values=PRINTED[name](), where="IMDB-WIKI-DIR", why=why, digits=2, balanced_data=grid.balanced_data)

    def in_unit(name: str) -> str:
        return _title(name) + (f" ({unit}{'²' if name == 'mse' else ''})" if unit else "")

    others = [name for name in METRICS if name not in MAIN]
    units = f" ({unit})" if unit else ""
    return Subject(
        runs=runs,
        grids=images.grids,
        titles={name: TITLES.get(name, f"{name}: errors by shot group") for name in images.grids if name != SEARCH},
        main=ShotTable(
            suffix="",
            metrics=[_metric(name) for name in MAIN],
            caption=f"{' and '.join(map(in_unit, MAIN))} by shot group, trained on {{data}}; mean ± std over seeds.",
        ),
        more=[
            ShotTable(
                suffix="more",
                metrics=[_metric(name) for name in others],
                caption=f"{', '.join(map(_title, others))}{units} by shot group; mean ± std over seeds.",
                notes=["GM: geometric mean of the absolute error."],
            )
        ],
        samples={False: "all training images", True: "balanced data"},
        published=printed,
        sizes={name: (f"{test_images:,} images", f"{bins_hit:,} {each}") for name, (test_images, bins_hit) in sizes.items()},
        groups=f"{limits} Test images ({each} among them): {listed}.",
        test_images=len(shot),
        compare=of_means(losses, shot),
        constants=constants,
        negligible=images.negligible,
        tested={name: _title(name) for name in TESTED},
        meaning="Δ = error(reg) − error(method), over the seeds that both have: above 0 the method helps.",
        independence="It takes images as independent: if several show one person or object, its intervals are too narrow.",
        judged=("val/mse/all", "validation MSE"),
        searched={"val/mse/all": "validation MSE", "val/mae/all": "validation MAE"},
        error="MAE",
        unit=unit,
        few=lambda images: counted(images, "image"),
        nothing_in_few="No test image is in Few.",
        digits=digits_of,
    )


def departures(images: Images, grid: SingleGrid) -> list[str]:
    """The data and training values of a grid that differ from the paper's: `epochs 10 instead of 90`."""
    ours = asdict(images.data) | asdict(images.training) | asdict(images.shots)
    unused = ["learning_rate"] if grid.balanced_data else ["balanced_learning_rate", "balanced_bins"]
    unused += [] if grid.balanced_data or any(map(is_balanced, grid.methods)) else ["rounding"]
    lam = {classes: images.training.lam_for(classes) for classes in grid.classes}
    used = [classes for classes in grid.classes if grid.lambdas == "default"]
    say = {
        "source": lambda ours, papers: ["generated stand-in images"],
        "lam": lambda ours, papers: [
            f"λ {lam[classes]:g} instead of {papers[classes]:g} ({classes} classes)"
            for classes in used
            if classes in papers and lam[classes] != papers[classes]
        ],
    }
    return protocol.departures(ours, published.VALUES, unused=unused, say=say) + protocol.other_lambdas(grid.lambdas)


def _networks(images: Images) -> str:
    training = images.training
    steps = f", × {training.decay} after epochs {', '.join(map(str, training.milestones))}" if training.milestones else ""
    batches = f"{training.batch_size} × {training.accumulate}" if training.accumulate > 1 else str(training.batch_size)
    return (
        f"Networks: {training.model}, {training.width} channels in the first stage, images of {images.data.size} pixels, "
        f"{training.optimizer}, {training.epochs} epochs, learning rate {training.learning_rate} ({training.balanced_learning_rate} on "
        f"balanced data){steps}, batches of {batches}, weight decay {training.weight_decay}, {training.precision}; regression loss "
        f"{training.loss}{', on standardised targets' if training.targets == 'standardised' else ''}. The weights kept are those with the "
        "lowest validation MSE."
    )


def _add_by_target(
    report: Report, images: Images, subject: Subject, runs: Runs, tables: Mapping[str, pd.DataFrame], groups: ShotGroups
) -> None:
    chosen = best_by_validation(subject, runs)
    if chosen.empty or not tables:
        return
    target, unit = images.data.target, images.data.unit
    first = next(iter(tables.values()))
    edges = bins_of(first["target"].to_numpy(), whole=images.shots.by == "integer")
    lines, bars = _lines(runs, chosen, tables, edges, target), histogram(groups)
    width, units = edges[1] - edges[0], f" ({unit})" if unit else ""
    together = f"{width:g} {unit} together" if unit else f"bins of {width:g}"
    section = Section(
        name="error_by_target",
        title=f"Error by {target}",
        svg=error_by_target(
            lines.rename(columns={f"{target}_from": "start", f"{target}_to": "end", "mae": "error"}),
            bars,
            target=f"{target}{units}",
            error=f"test MAE{units}",
            counted="training images",
            each=f"each {target}" if bars["end"].iloc[0] - bars["start"].iloc[0] == 1 else "each bin",
            limits={"many: above": groups.many_above, "few: below": groups.few_below} if len(bars) == bin_count(groups) else {},
        ),
        alt=f"Test MAE against {target}, one line per method, over a histogram of the training images. The CSV has the numbers.",
        caption=f"Test MAE by {target}, {together}; mean over seeds, shaded: ± standard deviation over seeds. Each method is shown at its "
        "number of classes with the lowest validation MSE. Grey, on the right axis (log): training images by target; darker: many, "
        "lighter: few.",
    )
    columns = {"start": f"{target}_from", "end": f"{target}_to", "count": "training_images"}
    numbers = pd.concat([lines.assign(drawn="line"), bars.rename(columns=columns).assign(drawn="bar")], ignore_index=True)
    report.add(section, numbers=numbers.rename(columns={"weight": "lambda"}).set_index("drawn").reset_index())


def _lines(runs: Runs, chosen: pd.DataFrame, tables: Mapping[str, pd.DataFrame], edges: np.ndarray, target: str) -> pd.DataFrame:
    """Test MAE by bin: the cell, the bin's edges, images, seeds, mae (mean over seeds), std. Empty bins have no row."""
    rows = []
    for row in records(chosen):
        by_run = [tables[run_id] for run_id in by_seed(rows_like(runs.wanted, row, runs.cell)).values()]
        bin_index = np.searchsorted(edges, by_run[0]["target"], side="right") - 1
        errors = pd.DataFrame(
            {seed: (table["prediction"].astype(float) - table["target"].astype(float)).abs() for seed, table in enumerate(by_run)}
        )
        for index in np.unique(bin_index).tolist():
            means = errors[bin_index == index].mean()
            edges_and_counts = {
                f"{target}_from": edges[index],
                f"{target}_to": edges[index + 1],
                "images": int((bin_index == index).sum()),
                "seeds": len(by_run),
            }
            rows.append({key: row[key] for key in runs.cell} | edges_and_counts | {"mae": means.mean(), "std": means.std()})
    return pd.DataFrame(rows, columns=[*runs.cell, f"{target}_from", f"{target}_to", "images", "seeds", "mae", "std"])
