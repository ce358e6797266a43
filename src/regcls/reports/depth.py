"""The report on depth maps: Tables 2 and 4, what a class loss changes, the search for λ, the error by depth, and examples."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from regcls.errors import MissingError
from regcls.params import Params
from regcls.params.single import SEARCH
from regcls.reports import depth_answers, depth_figures, depth_stats, depth_tables, page, protocol, published
from regcls.reports.depth_collect import NO_SUMS, DepthRuns, Sums, collect
from regcls.reports.images_collect import hole_lines, in_order, lost_lines, search_lines, short_name
from regcls.reports.images_stats import few_metrics, runs_by_seed, runs_of
from regcls.reports.images_tables import Published
from regcls.reports.picking import Picked, records, warnings_of
from regcls.reports.report import Links, Report, Section
from regcls.runs.grids import Found, expand
from regcls.tasks.depth.params import Depth
from regcls.tasks.depth.runs import DepthSpec, make_spec
from regcls.words import counted

# The grids that have a table, and what the paper prints there.
TITLES = {
    "table2": "Table 2: RMSE by shot group",
    "table4": "Table 4: trained on balanced data",
    SEARCH: "The search for λ",
}
PUBLISHED = {"table2": published.table2, "table4": published.table4_depth}

Examples = Callable[[str], depth_figures.Examples]  # run id -> its arrays, of the same test images for every run


def report(
    *,
    params: Params,
    dataset: str,
    runs: pd.DataFrame,
    fingerprints: Mapping[DepthSpec, str],
    found: Found,
    sums: Sums,
    examples: Examples,
    training_levels: NDArray[np.int64],
    counts: Mapping[str, int],
    links: Links,
    provenance: Mapping[str, str],
    drawn_mask: bool = False,
) -> Report:
    """All that stands in reports/<dataset>; equal runs give equal bytes.

    `runs`: a row a tracked run; `fingerprints`: of every run that params.yaml asks for, with λ as `found` by the search; `sums`: run id ->
    its sums of errors on the test images, and `examples`: run id -> its examples, both a MissingError where they are gone;
    `training_levels`: (256,) training pixels by 8-bit level; `counts`: see `protocol.other_data`; `links`: to MLflow; `provenance`: what
    made the report, as it is to be shown; `drawn_mask`: see `protocol.depth_departures`.

    Raises:
        UserError: no run counts.
    """
    depth: Depth = params.datasets[dataset]
    collected, picked = collect(runs, fingerprints, depth=depth, dataset=dataset, found=found, sums=sums)
    wanted = collected.wanted
    place = {spec: position for position, spec in enumerate(fingerprints)}
    specs = {name: expand(make_spec, depth, dataset, grid, found) for name, grid in depth.grids.items()}
    grids = {name: collected.of(wanted_here, place) for name, wanted_here in specs.items() if wanted_here}
    warning = ""
    data = protocol.other_data(depth.published, counts, source=depth.data.source)
    finished = int((wanted["state"] == "finished").sum())
    made = Report(dataset=dataset, wanted=len(wanted), finished=finished, other_data=data)
    made.warnings += _warnings(depth, grids, picked, found)

    differences = {name: depth_stats.differences(grids[name]) for name in PUBLISHED if name in grids}
    for name in PUBLISHED:
        if name in grids:
            why = protocol.depth_not_comparable(depth, name, data, drawn_mask=drawn_mask)
            _add_table(made, depth, name, grids[name], differences[name], not_comparable=why, warning=warning)
        if name == "table2" and name in grids:
            _add_by_depth(made, depth, grids[name], training_levels, warning)
            _add_examples(made, grids[name], examples, warning)
    if SEARCH in grids:
        _add_search(made, grids[SEARCH], warning)
    for main, table in differences.items():
        made.answers += depth_answers.answers(grids[main], table)
        made.line = depth_answers.line(grids[main], table)
        made.metrics |= few_metrics(depth_stats.cells(grids[main]), table, depth_stats.TESTED)
        break  # the first of the tables that is there
    used = [grid for name, grid in depth.grids.items() if name in grids and name != SEARCH]
    changed = [*data, *(line for grid in used for line in protocol.depth_departures(depth, grid, drawn_mask=drawn_mask))]
    return page.complete(
        made,
        "depth.html",
        wanted=in_order(wanted),
        counting=picked.chosen,
        params=params,
        links=links,
        provenance=provenance,
        depth=depth,
        in_paper=depth.published is not None,
        groups=depth_tables.groups_note(depth.shots),
        reduced=protocol.depth_reductions(depth),
        changed=list(dict.fromkeys(changed)),
        unshown=protocol.depth_unshown(depth),
    )


def _warnings(depth: Depth, grids: Mapping[str, DepthRuns], picked: Picked, found: Found) -> list[str]:
    lines = warnings_of({name: grid.wanted for name, grid in grids.items()}, duplicates=picked.duplicates, stale=picked.stale)
    return lines + lost_lines(picked.wanted, NO_SUMS, "sums.parquet") + search_lines(depth, found)


def _add_table(
    made: Report, depth: Depth, name: str, runs: DepthRuns, differences: pd.DataFrame, *, not_comparable: str, warning: str
) -> None:
    balanced = depth.grids[name].balanced_data
    data = "balanced data" if balanced else "all training pixels"
    digits = depth_tables.DIGITS
    beside = Published(values=PUBLISHED[name](), where="NYUD2-DIR", why=not_comparable, digits=digits, balanced_data=balanced)
    table = depth_tables.rmse_table(
        runs,
        name=name,
        caption=f"Test RMSE (m) by shot group, trained on {data}; mean ± std over seeds.",
        shots=depth.shots,
        published=beside if depth.published else None,
        warning=warning,
    )
    more = depth_tables.other_tables(runs, name=name, shots=depth.shots, warning=warning)
    made.add(Section(name=name, title=TITLES[name], caption=table.caption, table=table, more=more, holes=hole_lines(runs.wanted)))
    seeds = runs.wanted["seed"].nunique()
    changes = depth_tables.differences_table(
        runs,
        differences,
        name=f"{name}_differences",
        caption=f"Differences to reg, trained on {data}, over {counted(len(runs.images), 'test image')} and {counted(seeds, 'seed')}.",
        warning=warning,
    )
    if changes.rows:
        title = f"{TITLES[name].partition(':')[0]}: what the class loss changes"
        made.add(Section(name=changes.name, title=title, caption=changes.caption, table=changes))


def _add_by_depth(made: Report, depth: Depth, runs: DepthRuns, training_levels: NDArray[np.int64], warning: str) -> None:
    chosen = depth_stats.best_by_validation(runs)
    if chosen.empty:
        return
    lines = depth_stats.error_by_depth(runs, chosen)
    histogram = depth_figures.training_histogram(training_levels, depth.shots)
    section = Section(
        name="error_by_depth",
        title="Error by depth",
        svg=depth_figures.error_by_depth(lines, histogram),
        alt="Test RMSE against depth, a line a method, over a histogram of the training pixels by depth. The CSV has the numbers.",
        caption="Test RMSE by depth, in buckets of 0.1 m, model selected on validation; mean over seeds, shaded: ± standard deviation over "
        "seeds. Of each method, the number of classes with the lowest validation RMSE. Grey, on the right axis (log): training pixels of "
        "each bucket, which holds two or three of the 255 levels that training depth is stored in; darker: many, lighter: few.",
        warning=warning,
    )
    numbers = pd.concat([lines.assign(drawn="line"), histogram.assign(drawn="bar")], ignore_index=True).rename(columns={"lam": "lambda"})
    made.add(section, numbers=numbers.set_index("drawn").reset_index())


def _add_search(made: Report, runs: DepthRuns, warning: str) -> None:
    table = depth_tables.search_table(runs, caption="Validation error by λ; mean over seeds.", warning=warning)
    made.add(Section(name=SEARCH, title=TITLES[SEARCH], caption=table.caption, table=table, holes=hole_lines(runs.wanted)))


def _add_examples(made: Report, runs: DepthRuns, examples: Examples, warning: str) -> None:
    """Of reg, and of the class loss with the lowest validation error, at the first seed that both have."""
    shown = {short_name(row): runs_by_seed(runs_of(runs.wanted, row)) for row in records(depth_stats.reg_and_best(runs))}
    seeds = set.intersection(*map(set, shown.values())) if shown else set()
    if not seeds:
        return
    seed = min(seeds)
    try:
        found = {name: examples(run_ids[seed]) for name, run_ids in shown.items()}
    except MissingError as error:
        made.warnings.append(f"no sheet of examples: {error}")
        return
    numbers = depth_figures.errors_of_examples(found).assign(seed=seed)
    numbers["run_id"] = numbers["method"].map({name: run_ids[seed] for name, run_ids in shown.items()})
    section = Section(
        name="examples",
        title="Examples",
        svg=depth_figures.sheet(found),
        alt="A row a test image: the image, its measured depth, the depth that each network predicts, and the absolute error of each. "
        "The CSV has the errors.",
        caption=f"The same test images for all runs, and what networks of seed {seed} make of them, model selected on validation. Dark "
        "violet is near, yellow is far; light grey: nothing is measured. RMSE under a picture is over all its measured pixels, not over "
        "the balanced ones of the tables.",
        warning=warning,
    )
    made.add(section, numbers=numbers)
