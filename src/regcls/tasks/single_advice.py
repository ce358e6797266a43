"""What to train for an answer within a budget, where each run trains one network."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from regcls.errors import UserError
from regcls.methods import has_class_loss, has_classes, searched_as
from regcls.params.single import SEARCH, SingleGrid, SingleSection
from regcls.reports.stats import FEWEST
from regcls.runs.grids import MakeSpec, SingleSpec, all_specs
from regcls.tasks.planning import affordable, fewer
from regcls.tasks.task import Plan
from regcls.training.loop import DivergedError
from regcls.training.single_study import Study, seconds_per_sample
from regcls.words import counted

GRID = "advice"
SECONDS_PER_RUN = 3.0  # to start, test and track it, with its model
FEWEST_EPOCHS = 3
OVERHEAD = 0.2  # share of the time of an image that does not shrink with its pixels
MEANING = "The answer is for networks trained like this: with more epochs or larger images it may be another."


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much to train."""

    size: int  # position in the list of sizes
    classes: tuple[int, ...]
    lambdas: tuple[float, ...]  # empty: those of params.yaml, one for each class count
    divisor: int = 1  # of the epochs


def plan(
    study: Study,
    sizes: Sequence[tuple[SingleSection, int]],
    make: MakeSpec[SingleSpec],
    *,
    methods: Sequence[str],
    budget: float,
    level: int | None,
) -> Plan:
    """The plan with the most training that fits `budget` seconds, or the one of `level`; see `Task.plan`.

    `sizes`: sections with images from large to small, and the side length of these images in pixels.
    """
    section, largest = sizes[0]
    grid = next(grid for name, grid in section.grids.items() if name != SEARCH and grid.seeds)
    extents = list(dict.fromkeys(_extents(section, grid, methods, sizes=len(sizes))))
    seconds = 0.0
    plans = list[Plan]()
    for extent in extents:
        reduced, side = sizes[extent.size]
        own = _section(reduced, methods, extent, seeds=max(FEWEST, grid.seeds))
        any_lambda = dict.fromkeys(itertools.product(map(searched_as, methods), extent.classes), next(iter(extent.lambdas), 1.0))
        specs = all_specs(make, own, study.dataset, any_lambda)
        if level is None and not plans:
            seconds = _timed(specs[0], study)
        pace = seconds * (OVERHEAD + (1 - OVERHEAD) * (side / largest) ** 2)
        each = own.training.epochs * study.samples * pace + SECONDS_PER_RUN
        words = _words(extent, extents[0], side=side, largest=largest, epochs=own.training.epochs, usual=section.training.epochs)
        plans.append(Plan(section=own, networks=len(specs), seconds=len(specs) * each / len(study.places), words=words, level=len(plans)))
    table = "write embeddings of the images to a table: advice on tables takes seconds (docs/own-data.md)"
    return affordable(plans, budget, or_else=table) if level is None else plans[level]


def _timed(spec: SingleSpec, study: Study) -> float:
    try:
        return seconds_per_sample(spec, study)
    except DivergedError as error:
        raise UserError(f"{spec.name} {error}. Set a lower learning_rate in params.yaml, or targets: standardised") from None


def _extents(section: SingleSection, grid: SingleGrid, methods: Sequence[str], *, sizes: int) -> Iterator[Extent]:
    """From large to small: fewer λ, then fewer class counts, then fewer epochs and smaller images in turn."""
    search = section.grids.get(SEARCH)
    listed = (search if search and grid.lambdas == "searched" else grid).lambdas
    lambdas = () if isinstance(listed, str) or not any(map(has_class_loss, methods)) else listed
    classes = grid.classes if any(map(has_classes, methods)) else grid.classes[:1]
    middle, one = lambdas[(len(lambdas) - 1) // 2 :][:2], classes[:1]
    for counts, weights in ((classes, lambdas), (classes, middle), (one, middle)):
        yield Extent(size=0, classes=counts, lambdas=weights)
    for size in range(sizes):
        for divisor in (1, 2, 4) if size == sizes - 1 else (1, 2):
            yield Extent(size=size, classes=one, lambdas=middle[:1], divisor=divisor)


def _section(section: SingleSection, methods: Sequence[str], extent: Extent, *, seeds: int) -> SingleSection:
    """The section with the grids and epochs of an extent: λ is searched with one seed."""
    training = section.training
    with_classes = tuple(dict.fromkeys(searched_as(method) for method in methods if has_class_loss(method)))
    searched = len(extent.lambdas) > 1
    grid = SingleGrid(
        methods=("reg", *methods),
        classes=extent.classes,
        balanced_data=False,
        lambdas="searched" if searched else extent.lambdas or "default",
        seeds=seeds,
    )
    search = {SEARCH: replace(grid, methods=with_classes, lambdas=extent.lambdas, seeds=1)} if searched else {}
    own_seeds = (*training.seeds, *(seed for seed in range(seeds) if seed not in training.seeds))  # a test needs several
    epochs = max(min(FEWEST_EPOCHS, training.epochs), training.epochs // extent.divisor)
    milestones = tuple(sorted({step for milestone in training.milestones if 0 < (step := milestone // extent.divisor) < epochs}))
    own_training = replace(training, seeds=own_seeds, epochs=epochs, milestones=milestones)
    return replace(section, training=own_training, grids={GRID: grid, **search})


def _words(extent: Extent, whole: Extent, *, side: int, largest: int, epochs: int, usual: int) -> list[str]:
    """What an extent leaves out of the whole one, and what that means."""
    classes = f"{counted(len(extent.classes), 'class count')} ({', '.join(map(str, extent.classes))})"
    lambdas = f"{len(extent.lambdas)} λ ({', '.join(f'{lam:g}' for lam in extent.lambdas)})"
    sizes = fewer((f"{side} pixels", largest), (counted(epochs, "epoch"), usual))
    choices = fewer((classes, len(whole.classes)), (lambdas, len(whole.lambdas)))
    return [*choices, *sizes, *([MEANING] if sizes else [])]
