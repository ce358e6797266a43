import matplotlib
import numpy as np
import pandas as pd
import pytest

from regcls.metrics import SHOTS
from regcls.reports import drawing
from regcls.reports.measured import METHODS


def test_a_method_not_in_the_paper_has_its_own_consistent_style() -> None:
    look = drawing.look_of("ordinal")
    assert look == drawing.look_of("ordinal") and look.keys() == drawing.LINES["reg"].keys()
    for known in drawing.LINES.values():
        assert all(look[name] != known[name] for name in ("color", "marker", "linestyle"))
    looks = [drawing.look_of(method) for method in (*METHODS, "ordinal")]
    assert len({(each["color"], each["marker"]) for each in looks}) == len(looks)


def test_methods_of_the_paper_look_as_in_its_figures() -> None:
    assert {method: drawing.look_of(method) for method in drawing.LINES} == drawing.LINES


def test_figures_are_reproducible_whatever_the_users_matplotlibrc(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn() -> str:
        with drawing.style():
            figure, axes = drawing.grid_of_axes(1, 2, width=2.0, height=1.0, head=0.5)
            axes[0, 0].plot([1, 2], [3, 4], label="a line")
            return drawing.to_svg(figure)

    before = drawn()
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 7.0)
    assert drawn() == before and "<dc:date>" not in before
    assert matplotlib.rcParams["lines.linewidth"] == 7.0  # our settings end with the figure


def test_panels_have_the_requested_size() -> None:
    with drawing.style():
        figure, axes = drawing.grid_of_axes(2, 3, width=2.0, height=1.0, head=0.5)
    inches = [tuple(box.get_position().size * figure.get_size_inches()) for box in axes.flat]
    assert axes.shape == (2, 3) and all(abs(width - 2) < 1e-9 and abs(height - 1) < 1e-9 for width, height in inches)


def test_errors_by_target_are_drawn_for_a_method_not_in_the_paper() -> None:
    bins = pd.DataFrame({"start": [0.0, 1.0], "end": [1.0, 2.0]})
    lines = bins.assign(method="ordinal", classes=5, weight="2", lam=2.0, error=[3.0, 4.0], std=[0.5, float("nan")])
    histogram = bins.assign(count=[30, 2], shot=["many", "few"])
    svg = drawing.error_by_target(
        lines, histogram, target="age (years)", error="MAE (years)", counted="images", each="a year", limits={"more than": 20}
    )
    assert drawing.look_of("ordinal")["color"] in svg
    named = ("ordinal with 5 classes", "many images", "few images", "more than 20", "age (years)", "MAE (years)", "images of a year")
    assert all(f"<!-- {text} -->" in svg for text in named) and "medium images" not in svg


def by_target(counts: list[int], shots: list[str], *, limits: dict[str, float] | None = None) -> str:
    """The figure of reg and reg+cls · 100 over bins of width one, with these numbers of training images."""
    start = np.arange(len(counts), dtype=float)
    bars = pd.DataFrame({"start": start, "end": start + 1, "count": counts, "shot": shots})
    lines = [
        pd.DataFrame({"start": start, "end": start + 1, "method": method, "classes": classes, "weight": "", "lam": float("nan")})
        for method, classes in (("reg", 0), ("reg+cls", 100))
    ]
    errors = pd.concat(lines).assign(error=3.0, std=0.5)
    named = {"target": "depth (m)", "error": "test RMSE (m)", "counted": "training pixels", "each": "0.1 m"}
    return drawing.error_by_target(errors, bars, **named, limits=limits or {})


def test_the_error_figure_labels_lines_and_groups_and_is_reproducible() -> None:
    counts, shots = [150, 0, 40, 3], ["many", "few", "medium", "few"]
    svg = by_target(counts, shots)
    assert svg == by_target(counts, shots)
    for text in ("reg", "reg+cls with 100 classes", *(f"{shot} training pixels" for shot in SHOTS[1:]), "training pixels of 0.1 m"):
        assert f"<!-- {text} -->" in svg


def test_group_limits_are_labelled_only_where_bars_reach_them() -> None:
    svg = by_target(
        [150, 20], ["many", "few"], limits={"many: above": 252.52000000000004, "few: below": 25, "rare: below": 0.5, "all: above": 301}
    )
    assert "<!-- many: above 252.52 -->" in svg and "<!-- few: below 25 -->" in svg
    assert "rare: below" not in svg and "all: above" not in svg


def test_empty_groups_are_not_in_the_legend() -> None:
    svg = by_target([3, 2], ["few", "few"], limits={"many: above": 100})
    assert "many training" not in svg and "medium training" not in svg and "many: above" not in svg and "few training" in svg


def test_an_empty_histogram_is_still_a_figure() -> None:
    assert "<!-- reg -->" in by_target([0, 0], ["few", "few"])
