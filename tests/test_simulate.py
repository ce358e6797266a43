"""The simulation of many runs against what can be computed by hand, and docs/scale.md against what it prints."""

from dataclasses import replace
from pathlib import Path

import pytest

from scripts import script

ROOT = Path(__file__).parents[1]
simulate = script(ROOT / "benchmarks", "simulate")
Kind, Load = simulate.Kind, simulate.Load

FREE = Kind(name="free", train=10.0, node=0.0, result=Load())


def costing(**load: float):
    """A run of ten seconds whose result costs this."""
    return replace(FREE, result=Load(**load))


@pytest.mark.parametrize(("runs", "gpus", "expected"), [(7, 1, 70.0), (12, 4, 30.0), (13, 4, 40.0), (3, 8, 10.0)])
def test_without_costs_gpus_alone_decide(runs: int, gpus: int, expected: float) -> None:
    out = simulate.simulate(FREE, runs, gpus)

    assert (out.trained, out.delivered) == (expected, expected)
    assert out.busy["GPUs"] == pytest.approx(runs * 10 / (gpus * expected))


def test_a_courier_that_keeps_up_delivers_each_run_at_once() -> None:
    out = simulate.simulate(costing(courier=9.0, journal=2.0), 100, 1)

    assert (out.trained, out.delivered, out.backlog, out.journal) == (1000.0, 1009.0, 1, 2.0)
    assert out.busy["courier"] == pytest.approx(900 / 1009)


@pytest.mark.parametrize("gpus", [1, 2, 5])
def test_a_courier_slower_than_the_gpus_falls_behind_linearly(gpus: int) -> None:
    slow = costing(courier=20.0, journal=3.0)  # a GPU finishes a run every 10 s
    half, whole = (simulate.simulate(slow, runs * gpus, gpus) for runs in (100, 200))

    assert whole.delivered == pytest.approx(10 + 200 * gpus * 20)
    for out, trained in ((half, 1000.0), (whole, 2000.0)):
        assert out.trained == trained
        assert out.backlog == pytest.approx(gpus * trained / 10 - (trained - 10) / 20, abs=1)
    assert whole.journal == pytest.approx(2 * half.journal, rel=0.02)
    assert whole.busy["courier"] > 0.99


def test_several_drivers_share_the_gpus_and_each_has_a_courier() -> None:
    slow = costing(courier=20.0)

    assert simulate.simulate(slow, 400, 4, drivers=4).delivered == pytest.approx(10 + 100 * 20)
    assert simulate.simulate(slow, 400, 4, drivers=1).delivered == pytest.approx(10 + 400 * 20)


def test_workers_limit_many_drivers() -> None:
    out = simulate.simulate(costing(courier=20.0, server=20.0), 400, 8, drivers=8, workers=2)

    assert out.delivered == pytest.approx(10 + 400 * 20 / 2)
    assert out.busy["server"] > 0.99


def test_a_busy_main_thread_stops_gpus() -> None:
    out = simulate.simulate(costing(main=5.0), 100, 4)

    assert out.trained == pytest.approx(10 + 100 * 5)
    assert out.busy["main thread"] > 0.97


def test_the_object_store_passes_so_many_megabytes() -> None:
    size = 30 * simulate.COST.objects

    assert simulate.simulate(costing(size=size), 50, 1).delivered == pytest.approx(10 + 50 * 30)


def test_a_state_that_still_waits_is_replaced_by_the_next_but_one_and_dropped_at_the_end() -> None:
    kind = replace(FREE, state=Load(courier=100.0, size=10.0, journal=10.0), states=9)  # every second
    out = simulate.simulate(kind, 1, 1)

    assert out.sent == 10  # the first is under way
    assert out.delivered == pytest.approx(1 + 100)
    assert out.journal == 30.0


def test_capacities_are_rates_at_which_the_simulation_saturates() -> None:
    image = simulate.kinds(simulate.parsed(["--hours", "1"]))[1]
    seconds = image.seconds(1, 4, image.states)["courier"]
    gpus = int(image.train / seconds)  # the courier takes so many at most

    below, above = (simulate.simulate(image, 30 * count, count) for count in (gpus // 2, 3 * gpus))
    assert below.backlog <= gpus < above.backlog
    assert below.busy["courier"] == pytest.approx(0.5, abs=0.1)
    assert above.busy["courier"] > 0.95


@pytest.mark.slow
def test_the_page_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["simulate.py"])
    simulate.main()

    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    tables = capsys.readouterr().out.strip().split("\n\n")
    assert len(tables) == 3
    for table in tables:
        assert table in page
