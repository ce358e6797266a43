"""The report on a data set of faces: Tables 3 and 4, what a class loss changes, the search for λ, and the error by age."""

from collections.abc import Mapping

import pandas as pd

from regcls.params import Params
from regcls.params.single import SEARCH
from regcls.reports import faces_figures, faces_stats, faces_tables, page, protocol, published
from regcls.reports.faces_answers import answers, line
from regcls.reports.faces_collect import NO_PREDICTIONS, ImageRuns, Predictions, collect
from regcls.reports.images_collect import hole_lines, in_order, lost_lines, search_lines
from regcls.reports.images_stats import few_metrics
from regcls.reports.picking import Picked, warnings_of
from regcls.reports.report import Links, Report, Section
from regcls.runs.grids import Found, expand
from regcls.tasks.images.params import Images
from regcls.tasks.images.runs import ImageSpec, make_spec
from regcls.words import counted

# The grids that have a table, and what the paper prints there.
TITLES = {
    "table3": "Table 3: errors by shot group",
    "table4": "Table 4: trained on balanced data",
    SEARCH: "The search for λ",
}
PUBLISHED = {"table3": published.table3, "table4": published.table4}


def report(
    *,
    params: Params,
    dataset: str,
    runs: pd.DataFrame,
    fingerprints: Mapping[ImageSpec, str],
    found: Found,
    predictions: Predictions,
    training_counts: Mapping[int, int],
    counts: Mapping[str, int],
    links: Links,
    provenance: Mapping[str, str],
) -> Report:
    """All that stands in reports/<dataset>; equal runs give equal bytes.

    `runs`: a row a tracked run; `fingerprints`: of every run that params.yaml asks for, with λ as `found` by the search; `predictions`:
    run id -> those of the test set, a UserError where they are gone; `training_counts`: training images by integer age; `counts`: see
    `protocol.other_data`; `links`: to MLflow; `provenance`: what made the report, as it is to be shown.

    Raises:
        UserError: no run counts.
    """
    faces: Images = params.datasets[dataset]
    collected, picked = collect(runs, fingerprints, faces=faces, dataset=dataset, found=found, predictions=predictions)
    wanted = collected.wanted
    place = {spec: position for position, spec in enumerate(fingerprints)}
    specs = {name: expand(make_spec, faces, dataset, grid, found) for name, grid in faces.grids.items()}
    grids = {name: collected.of(wanted_here, place) for name, wanted_here in specs.items() if wanted_here}
    warning = ""
    data = protocol.other_data(faces.published, counts, source=faces.data.source)
    finished = int((wanted["state"] == "finished").sum())
    made = Report(dataset=dataset, wanted=len(wanted), finished=finished, other_data=data)
    made.warnings += _warnings(faces, grids, picked, found)

    for name in ("table3", "table4"):
        if name in grids:
            _add_table(made, faces, name, grids[name], warning)
        if name == "table3" and name in grids:
            _add_by_age(made, faces, grids[name], training_counts, warning)
    if SEARCH in grids:
        _add_search(made, grids[SEARCH], warning)
    main = next((grids[name] for name in PUBLISHED if name in grids), None)
    if main is not None:
        made.answers += answers(main)
        made.line = line(main)
        made.metrics |= few_metrics(faces_stats.cells(main, "test"), faces_stats.differences(main), "mae")
    used = [grid for name, grid in faces.grids.items() if name in grids and name != SEARCH]
    return page.complete(
        made,
        "faces.html",
        wanted=in_order(wanted),
        counting=picked.chosen,
        params=params,
        links=links,
        provenance=provenance,
        faces=faces,
        in_paper=faces.published is not None,
        reduced=protocol.face_reductions(faces),
        changed=list(dict.fromkeys([*data, *(line for grid in used for line in protocol.face_departures(faces, grid))])),
        unshown=protocol.faces_unshown(faces),
    )


def _warnings(faces: Images, grids: Mapping[str, ImageRuns], picked: Picked, found: Found) -> list[str]:
    lines = warnings_of({name: grid.wanted for name, grid in grids.items()}, duplicates=picked.duplicates, stale=picked.stale)
    return lines + lost_lines(picked.wanted, NO_PREDICTIONS, "predictions.parquet") + search_lines(faces, found)


def _extent(runs: ImageRuns) -> str:
    seeds = runs.wanted["seed"].nunique()
    return f"{counted(len(runs.images), 'test image')} and {counted(seeds, 'seed')}"


def _add_table(made: Report, faces: Images, name: str, runs: ImageRuns, warning: str) -> None:
    balanced = faces.grids[name].balanced_data
    data = "balanced data" if balanced else "all training images"
    theirs, why = None, ""
    if faces.published:
        theirs, why = PUBLISHED[name](), protocol.faces_not_comparable(faces, name, made.other_data)
    table = faces_tables.shots_table(
        runs,
        name=name,
        caption=f"MAE (years) and MSE (years²) by shot group, trained on {data}; mean ± std over seeds.",
        errors=("mae", "mse"),
        limits=faces.shots,
        published=theirs,
        not_comparable=why,
        balanced_data=balanced,
        warning=warning,
    )
    more = faces_tables.shots_table(
        runs,
        name=f"{name}_rmse_gm",
        caption="RMSE and geometric mean of the absolute error (years) by shot group; mean ± std over seeds.",
        errors=("rmse", "gm"),
        limits=faces.shots,
        warning=warning,
    )
    made.add(
        Section(name=name, title=TITLES[name], caption=table.caption, table=table, more=[more], holes=hole_lines(runs.wanted)),
    )
    differences = faces_tables.differences_table(
        runs, name=f"{name}_differences", caption=f"Differences to reg, trained on {data}, over {_extent(runs)}.", warning=warning
    )
    if differences.rows:
        title = f"{TITLES[name].partition(':')[0]}: what the class loss changes"
        made.add(Section(name=differences.name, title=title, caption=differences.caption, table=differences))


def _add_by_age(made: Report, faces: Images, runs: ImageRuns, training_counts: Mapping[int, int], warning: str) -> None:
    chosen = faces_stats.best_by_validation(runs)
    if chosen.empty:
        return
    width = faces_stats.bin_width(runs.images["age"].to_numpy())
    lines = faces_stats.error_by_age(runs, chosen, width)
    histogram = faces_figures.training_histogram(training_counts, faces.shots)
    caption = (
        f"Test MAE by age, {counted(width, 'year')} together; mean over seeds, shaded: ± standard deviation over seeds. Of "
        "each method, the number of classes with the lowest validation MSE. Grey, on the right axis (log): training images of each age; "
        "darker: many, lighter: few."
    )
    section = Section(
        name="error_by_age",
        title="Error by age",
        svg=faces_figures.error_by_age(lines, histogram, faces.shots),
        alt="Test MAE against age, a line a method, over a histogram of the training images by age. The CSV has the numbers.",
        caption=caption,
        warning=warning,
    )
    bars = histogram.rename(columns={"age": "age_from"}).assign(drawn="bar", age_to=histogram["age"] + 1)
    numbers = pd.concat([lines.assign(drawn="line"), bars], ignore_index=True).rename(columns={"lam": "lambda"})
    made.add(section, numbers=numbers.set_index("drawn").reset_index())


def _add_search(made: Report, runs: ImageRuns, warning: str) -> None:
    table = faces_tables.search_table(runs, caption="Validation error by λ; mean over seeds.", warning=warning)
    made.add(Section(name=SEARCH, title=TITLES[SEARCH], caption=table.caption, table=table, holes=hole_lines(runs.wanted)))
