"""What to train on a table for an answer within a budget."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from regcls.tasks.planning import affordable, fewer
from regcls.tasks.table.networks import TableNetworks
from regcls.tasks.table.params import HGB, TableGrid, Tables
from regcls.tasks.table.runs import TableSpec, all_specs, make_spec
from regcls.tasks.task import Plan
from regcls.training.device import Device, Place
from regcls.training.ensemble import train
from regcls.training.ensemble_networks import Member
from regcls.training.ensemble_study import cost
from regcls.training.places import call_at
from regcls.words import counted

TOGETHER = 10  # networks that are timed
SECONDS_PER_RUN = 0.2  # to track it, with its model


def plan(
    section: Tables, networks: TableNetworks, *, methods: Sequence[str], budget: float, places: Sequence[Place], level: int | None
) -> Plan:
    """The plan with the most networks that fits `budget` seconds at all places, or the one of `level`; see `Task.plan`."""
    grid = next(grid for grid in section.grids.values() if grid.seeds)
    levels = _levels(section, grid, ("reg", *methods, HGB), several=len(networks.parts) > 1)
    step = _seconds_per_step(section, networks, places[0]) / len(places) if level is None else 0.0
    plans = []
    for index, (reduced, words) in enumerate(levels):
        own = replace(section, grids={"main": reduced})
        specs = [spec for spec in all_specs(own, networks.dataset, most=networks.table.most_classes) if spec.method != HGB]
        members = [Member(spec=spec, part=part) for spec in specs for part in networks.parts]
        seconds = cost(members, networks) * step + SECONDS_PER_RUN * len(specs)
        plans.append(Plan(section=own, networks=len(members), seconds=seconds, words=words, level=index))
    or_else = f"set fewer epochs or data.folds: 1 for {networks.dataset} in params.yaml"
    return affordable(plans, budget, or_else=or_else) if level is None else plans[level]


def _levels(section: Tables, grid: TableGrid, methods: tuple[str, ...], *, several: bool) -> list[tuple[TableGrid, list[str]]]:
    """Grids from large to small, each with what it leaves out, in words; `several`: whether there are folds, which replace seeds."""
    lambdas = (section.training.lam,) if grid.lambdas == "default" else grid.lambdas
    middle = lambdas[(len(lambdas) - 1) // 2 :][:2]
    seeds = [grid.seeds, *([1] if several and grid.seeds > 1 else [])]
    choices = [(count, grid.classes, lambdas) for count in seeds]
    choices += [(seeds[-1], grid.classes, middle), (seeds[-1], grid.classes[:1], middle), (seeds[-1], grid.classes[:1], middle[:1])]
    levels: dict[TableGrid, list[str]] = {}
    for count, classes, weights in choices:
        words = fewer(
            (counted(count, "seed"), grid.seeds),
            (f"{counted(len(classes), 'class count')} ({', '.join(map(str, classes))})", len(grid.classes)),
            (f"{len(weights)} λ ({', '.join(f'{weight:g}' for weight in weights)})", len(lambdas)),
        )
        levels.setdefault(replace(grid, methods=methods, classes=classes, lambdas=weights, seeds=count), words)
    return list(levels.items())


def _seconds_per_step(section: Tables, networks: TableNetworks, place: Place) -> float:
    """The time of a step of one network without classes, of several that train together on one thread."""
    spec = replace(make_spec(section, networks.dataset, method="reg", classes=0, lam=None, seed=0), epochs=1, milestones=(), decay=1.0)
    return call_at(replace(place, threads=1), _timed, networks.reopened(), spec, place.device)


def _timed(reopened: Callable[[], TableNetworks], spec: TableSpec, device: Device) -> float:
    networks = reopened()
    members = [Member(spec=replace(spec, seed=seed), part=networks.parts[0]) for seed in range(TOGETHER)]
    loaded, recipe = networks.networks(members), networks.recipe(spec)
    train(loaded[:1], recipe, device=device)  # the first call is slower
    started = time.perf_counter()
    train(loaded, recipe, device=device)
    return (time.perf_counter() - started) / (TOGETHER * recipe.steps(networks.samples(members[0])))
