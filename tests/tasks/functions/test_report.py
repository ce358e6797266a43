import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from conftest import ROOT
from regcls.params import Params
from regcls.reports.report import Report
from regcls.reports.stats import USELESS, holm, paired
from regcls.tasks.functions import figures_data
from regcls.tasks.functions.collected import Collected, collected
from regcls.tasks.functions.compared import by_setting
from regcls.tasks.functions.report import lines
from regcls.tasks.functions.runs import expand
from regcls.tasks.functions.tables import CONSTANT_NOTE, panels_table, settings_table
from reports.made_up import MadeUpLinks, csv, with_section
from tasks.functions.made_up_functions import FUNCTIONS, MadeUpSets, Store, with_grids


@pytest.fixture(scope="module")
def store(small: Params) -> Store:
    return Store(small)


@pytest.fixture(scope="module")
def report(store: Store) -> Report:
    """The report on complete grids."""
    return store.report()


class Rows(HTMLParser):
    """The body rows of every table: (text of the row's non-header cells, links in the row)."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[tuple[str, list[str]]] = []
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag if tag in ("th", "td") else self.inside
        if tag == "tr":
            self.rows.append(("", []))
        elif tag == "a" and self.inside == "td":
            self.rows[-1][1].append(dict(attrs)["href"] or "")

    def handle_endtag(self, tag: str) -> None:
        self.inside = "" if tag in ("th", "td") else self.inside

    def handle_data(self, data: str) -> None:
        if self.inside == "td":
            self.rows[-1] = (self.rows[-1][0] + data, self.rows[-1][1])


def test_every_row_links_to_its_runs_and_every_run_is_linked(report: Report, store: Store) -> None:
    rows = Rows(report.files["index.html"]).rows
    unlinked = [text for text, links in rows if re.search(r"\d", text) and not links]
    assert len(unlinked) == 4 and all("†" in text for text in unlinked)  # the averages of Table 1, of the rows above them
    linked = {link for _, links in rows for link in links}
    assert {link for link in linked if "compare" not in link} == {MadeUpLinks().run_url(run_id) for run_id in store.runs["run_id"]}


def test_the_runs_of_a_number_can_be_compared_side_by_side(report: Report) -> None:
    html = report.files["index.html"]
    groups = re.findall(r'<div class="groups">.*?</div>', html, flags=re.DOTALL)
    for group in groups:
        ids = re.findall(r'/runs/(\w+)"', group)
        compared = re.findall(r'compare-runs\?runs=([\w,]+)"', group)
        assert compared == ([",".join(ids)] if len(ids) > 1 else [])
    assert len(groups) > 10 and "compare-runs" in html


def test_published_values_are_shown_next_to_ours(report: Report) -> None:
    summary = csv(report, "summary")
    row = summary.query("setting == 'clean' and sampling == 'severe' and method == 'reg+cls' and classes == 16").iloc[0]
    assert row["published"] == 0.2655 and row["ours_minus_published"] == pytest.approx(row["test_mse"] - 0.2655, abs=1e-6)
    reg = summary.query("setting == 'clean' and sampling == 'severe' and method == 'reg'").iloc[0]
    assert reg["published"] == pytest.approx((0.3929 + 0.3921) / 2)
    panel = csv(report, "panels").query("setting == 'clean' and sampling == 'severe' and method == 'reg+cls'").iloc[0]
    assert panel["released_reg"] == pytest.approx((0.3929 + 0.3921) / 2) and panel["released_reg+cls"] == pytest.approx(
        (0.2618 + 0.2655) / 2
    )
    assert "55.42†" in report.files["table1.md"] and "<!-- reg+cls, released -->" in report.files["figure3.svg"]


def test_without_published_values_the_report_does_not_mention_them(small: Params) -> None:
    report = Store(with_section(small, "functions", published=None)).report()
    assert {name: list(csv(report, name).filter(regex="publ|released|uncertain")) for name in ("summary", "panels", "table1")} == {
        "summary": [],
        "panels": [],
        "table1": [],
    }
    assert "<!-- reg+cls -->" in report.files["figure3.svg"] and "released" not in report.files["figure3.svg"]
    assert "| p (Holm) | n |\n" in report.files["table1.md"] and "| average | **37.5** |  |  |  |  |\n" in report.files["table1.md"]
    assert report.extent == ["Each trains 10 networks for 80 epochs."]


@pytest.mark.usefixtures("undrawn")
def test_missing_runs_are_listed_and_not_averaged(store: Store) -> None:
    gone = store.runs.query("setting == 'noisy' and noise == 0.1 and sampling == 'severe' and method == 'reg' and seed == 421")
    report = store.report(runs=store.runs.drop(index=gone.index))
    assert report.warnings[0].startswith("figure3: 1 of 60 runs are holes (1 missing)")
    assert "noisy σ 0.1, severe · reg: 1 of 2 repetitions (missing: seed 421)" in report.files["index.html"]
    assert "(n = 1 of 2)" in report.files["summary.md"]
    assert csv(report, "holes")["seed"].tolist() == [421]
    panel = csv(report, "panels").query("setting == 'noisy' and sampling == 'severe' and method == 'reg+cls'")
    assert panel["n"].tolist() == [1] and panel["answer"].tolist() == ["n = 1: not tested"]


@pytest.mark.usefixtures("undrawn")
def test_a_panel_without_runs_is_shown_empty(store: Store) -> None:
    report = store.report(runs=store.runs.query("not (setting == 'ood' and sampling == 'severe')"))
    panel = csv(report, "panels").query("setting == 'ood' and sampling == 'severe'")
    assert panel["n"].tolist() == [0, 0] and panel["gap"].isna().all()
    assert report.metrics["gap"]["ood"]["severe"] is None
    wanted = len(store.runs)
    assert report.metrics["runs"] == {"wanted": wanted, "finished": wanted - 10, "missing": 10}


@pytest.mark.usefixtures("undrawn")
def test_one_run_is_enough_for_a_report(store: Store) -> None:
    assert store.report(runs=store.runs.iloc[[0]]).metrics["runs"]["finished"] == 1


@pytest.mark.usefixtures("undrawn")
def test_a_grid_of_one_repetition_has_gaps_and_no_tests(small: Params) -> None:
    grid = replace(small.datasets["functions"].grids["figure3"], repetitions=1, classes=(4,))
    report = Store(with_grids(small, figure3=grid)).report()
    panels = csv(report, "panels")
    assert panels["p"].isna().all() and panels["gap"].notna().all()
    assert "With fewer than 3 repetitions nothing can be said about differences" in report.files["index.html"]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("methods", "expected"),
    [
        (("reg",), []),
        (("reg+cls",), ["reg+cls"]),
        (("focal-r",), ["focal-r"]),
        (("reg", "focal-r"), ["focal-r"]),
        (("focal-r+cls",), ["focal-r+cls"]),
        (("reg+cls", "reg+cls-bal"), ["reg+cls", "reg+cls-bal"]),
        (("reg", "reg+cls-bal"), ["reg+cls-bal"]),
    ],
)
def test_a_grid_may_lack_methods(methods: tuple[str, ...], expected: list[str], small: Params) -> None:
    grids = {name: replace(grid, methods=methods, settings=grid.settings[:1]) for name, grid in small.datasets["functions"].grids.items()}
    report = Store(with_grids(small, **grids)).report()
    assert [re.split("[ :]", line)[0] for line in report.answers if line.startswith(("reg", "focal-r"))] == expected
    assert (bool(report.lines)) == (methods == ("reg", "reg+cls-bal"))


def test_another_loss_appears_in_tables_figures_and_answers_by_name(small: Params) -> None:
    methods = ("focal-r(beta=1)+cls", "focal-r", "reg+cls", "reg")
    grids = {name: replace(grid, methods=methods, classes=(16,)) for name, grid in small.datasets["functions"].grids.items()}
    report = Store(with_grids(small, **grids)).report()
    cells = [("reg", 0), ("reg+cls", 16), ("focal-r", 0), ("focal-r(beta=1)+cls", 16)]
    for name in ("summary", "figure5"):
        shown = csv(report, name).fillna({"classes": 0})[["method", "classes"]].drop_duplicates()
        assert [*shown.itertuples(index=False, name=None)] == cells
        assert (
            "| severe | focal-r |  | " in report.files[f"{name}.md"]
            and "| severe | focal-r(beta=1)+cls | 16 | " in report.files[f"{name}.md"]
        )
    others = [method for method, _ in cells[1:]]
    assert [*dict.fromkeys(csv(report, "panels")["method"])] == others and [line.split()[0] for line in report.answers[:3]] == others
    for figure in ("figure3", "figure5"):
        assert all(f"<!-- {name} -->" in report.files[f"{figure}.svg"] for name in ("reg", *others))
    assert "<!-- focal-r(beta=1)+cls -->" in report.files["figure4.svg"]  # a row of panels
    assert report.lines and report.lines[0].method == "reg+cls · 16"


@pytest.mark.usefixtures("undrawn")
def test_table_1_counts_only_methods_with_classes(small: Params) -> None:
    methods = ("reg", "reg+cls", "focal-r", "focal-r+cls", "focal-r+cls-bal")
    grids = {name: replace(grid, methods=methods) for name, grid in small.datasets["functions"].grids.items()}
    report = Store(with_grids(small, **grids)).report()
    table1, counted = csv(report, "table1"), ["reg+cls", "focal-r+cls", "focal-r+cls-bal"]
    assert [*dict.fromkeys(table1["method"])] == counted and (table1["networks"] == 2 * FUNCTIONS).all()  # of two λ
    assert report.metrics["table1"].keys() == {"uniform", "focal-r+cls", "focal-r+cls-bal"}
    assert "MSE(method) < MSE(reg) on validation sets, over 1 class count and 2 values of λ" in report.files["table1.md"]
    assert csv(report, "figure4_lambda")["method"].drop_duplicates().tolist() == counted


def test_classes_without_lambda_have_one_row_in_tables_by_lambda_and_horizontal_lines(small: Params) -> None:
    methods = ("reg", "reg+cls", "hl-gauss")
    grids = {name: replace(grid, methods=methods, classes=(4, 16)) for name, grid in small.datasets["functions"].grids.items()}
    grids = {name: replace(grid, settings=("clean",)) for name, grid in grids.items() if name != "figure5"}
    grids["figure3"] = replace(grids["figure3"], lambdas=(1.0, 100.0))
    report = Store(with_grids(small, **grids)).report()
    rows = csv(report, "figure4_lambda").query("sampling == 'severe'")
    assert rows[["method", "lambda"]].fillna(0).to_numpy().tolist() == [["reg+cls", 1.0], ["reg+cls", 100.0], ["hl-gauss", 0.0]]
    assert (rows["runs"] == rows["runs_wanted"]).all() and rows["gap"].notna().all()
    summary = csv(report, "summary").query("sampling == 'severe' and method == 'hl-gauss'")
    assert summary["classes"].tolist() == [4, 16] and summary["lambda"].isna().all() and summary["gap"].notna().all()
    assert "<!-- hl-gauss -->" in report.files["figure4.svg"] and "<!-- hl-gauss -->" in report.files["figure3.svg"]
    assert "<!-- reg+cls, λ 100 -->" in report.files["figure3.svg"] and "λ nan" not in "".join(report.files.values())
    assert any(line.startswith("hl-gauss has the lower mean test MSE") for line in report.answers)


@pytest.mark.usefixtures("undrawn")
def test_other_noise_levels_and_several_lambdas_have_no_published_values(small: Params) -> None:
    grid = replace(small.datasets["functions"].grids["figure3"], settings=("noisy",), noise=(0.05, 0.5), lambdas=(1.0, 10.0), classes=(4,))
    report = Store(with_grids(small, figure3=grid, figure4=grid, mine=grid)).report()
    assert "Trained, but not shown here: the grid mine." in report.files["index.html"]
    assert csv(report, "summary")["published"].isna().all()
    table1 = report.metrics["table1"]
    assert set(report.metrics["gap"]) == {"noisy-0.05", "noisy-0.5"} == set(table1["balanced"]) == set(table1["uniform"])


def test_a_removed_grid_is_left_out(small: Params) -> None:
    report = Store(with_grids(small, figure5=small.datasets["functions"].grids["figure5"])).report()
    assert {name for name in report.files if name.endswith(".svg")} == {"figure1.svg", "figure2.svg", "figure5.svg"}


def test_figure_3_has_one_row_per_network(report: Report) -> None:
    networks = csv(report, "figure3_networks")
    assert len(networks) == 6 * 2 * 5 * FUNCTIONS and networks["test_mse"].notna().all()


def test_the_data_of_figure_1_are_the_points_it_draws(report: Report) -> None:
    points = csv(report, "figure1")
    assert list(points) == ["data", "split", "x", "y"] and set(points.query("data == 'ood'")["split"]) == {"train", "val", "test"}
    x, y = MadeUpSets().get("clean", "uniform", 0, 0, "train")
    drawn = points.query("data == 'clean'")
    assert len(drawn) == figures_data.POINTS < len(x)
    assert {f"{a:.8g} {b:.8g}" for a, b in zip(drawn["x"], drawn["y"], strict=True)} <= {
        f"{a:.8g} {b:.8g}" for a, b in zip(x, y, strict=True)
    }
    assert (drawn["y"].min(), drawn["y"].max()) == pytest.approx((y.min(), y.max()))


def test_figure_2_counts_every_sample_once(report: Report) -> None:
    counts = csv(report, "figure2")
    assert list(counts) == ["sampling", "bin_low", "bin_high", "count"] and len(counts) == 4 * figures_data.BINS
    for sampling, found in counts.groupby("sampling"):
        assert found["count"].sum() == len(MadeUpSets().get("clean", str(sampling), 0, 0, "train")[1])
    assert "the samples are in data/functions/prepared." in report.files["index.html"]


def test_figure_4_says_that_one_repetition_is_no_test(report: Report) -> None:
    for name, n in (("figure4_lambda", "n"), ("figure4", "pairs")):
        table = csv(report, name).query("method != 'reg'")
        assert table["p"].isna().all() and table["p_holm"].isna().all() and (table[n] == 1).all()
    assert "| n = 1 | – | 1 |" in report.files["figure4_lambda.md"]


@pytest.mark.usefixtures("undrawn")
def test_figure_4_is_tested_over_repetitions(small: Params) -> None:
    grid = replace(small.datasets["functions"].grids["figure4"], repetitions=3, settings=("clean",), classes=(4, 16))
    report = Store(with_grids(small, figure4=grid)).report()
    lambdas = csv(report, "figure4_lambda")
    assert lambdas["p_holm"].tolist() == pytest.approx(holm(lambdas["p"].tolist())) and (lambdas["n"] == 3).all()
    points = csv(report, "figure4").query("method == 'reg+cls' and sampling == 'severe' and `lambda` == 100")
    row = lambdas.query("method == 'reg+cls' and sampling == 'severe' and `lambda` == 100").iloc[0]
    assert row["gap"] == pytest.approx(points["gap"].mean()) and row["low"] < row["gap"] < row["high"]


def test_other_training_values_are_noted_next_to_released_values(small: Params) -> None:
    report = Store(with_section(small, "functions", training=replace(small.datasets["functions"].training, epochs=2))).report()
    for name in ("panels", "summary", "table1"):
        for ending in ("md", "tex"):
            assert "ot comparable with the " in report.files[f"{name}.{ending}"]
    html = report.files["index.html"]
    assert html.count("Not comparable with the released values: epochs 2 instead of 80.") == 3  # the panels, Figure 3 and its table
    assert "released, not comparable" in report.files["figure3.svg"]


@pytest.mark.usefixtures("undrawn")
def test_the_page_says_where_the_runs_were_trained(store: Store, report: Report) -> None:
    assert "The tags of each run in MLflow show where it was trained" in report.files["index.html"]
    runs = store.runs.assign(cpus="2", gpu=["none"] * 12 + ["H100"] * (len(store.runs) - 12), host="secret")
    html = store.report(runs=runs).files["index.html"]
    assert "Trained on – 80 runs: cpus 2, gpu H100; 12 runs: cpus 2, gpu none." in html and "secret" not in html


@pytest.fixture
def figure3(small: Params) -> Collected:
    """The runs of Figure 3, in three repetitions."""
    store = Store(with_grids(small, figure3=replace(small.datasets["functions"].grids["figure3"], repetitions=3)))
    found, _ = collected(store.runs, store.fingerprints, dataset="functions", sets=MadeUpSets())
    functions = store.params.datasets["functions"]
    return found.of(expand(functions, "functions", functions.grids["figure3"]))


def without(figure3: Collected, query: str) -> Collected:
    return replace(figure3, networks=figure3.networks.query(f"not ({query})"))


def test_the_summary_has_a_line_per_setting_from_its_imbalanced_samplings(figure3: Collected) -> None:
    table = settings_table(figure3)
    clean, noisy, ood = lines(table)
    assert [line.part for line in (clean, noisy, ood)] == ["clean, imbalanced", "noisy σ 0.1, imbalanced", "ood, imbalanced"]
    severe = figure3.networks.query("sampling == 'severe' and setting == 'noisy'").groupby(["method", "repetition"])["test_mse"].mean()
    test = paired(severe["reg"].tolist(), severe["reg+cls"].tolist())
    assert (noisy.overall.gap, noisy.overall.low, noisy.overall.high) == pytest.approx((test.gap, test.low, test.high))
    assert (noisy.method, noisy.n) == ("reg+cls · 4, 16", "3 repetitions, 1 imbalanced sampling; 12 tests")
    frame = table.frame  # 3 settings, uniform and imbalanced, two methods
    assert len(frame) == 12 and frame["p_holm"].tolist() == pytest.approx(holm(frame["p"].tolist()))
    assert noisy.overall.answer == frame.query("setting == 'noisy' and kind == 'imbalanced' and method == 'reg+cls'")["answer"].item()


def test_the_released_study_gives_the_answer_of_its_panels() -> None:
    """At paper scale: it clearly helps on imbalanced clean and noisy data, which a mean over settings would hide."""
    networks = pd.read_csv(ROOT / "results/figure3/runs.csv").rename(columns={"lambda": "lam"})
    table = by_setting(networks.assign(noise=networks["noise"].fillna(0.0)), "test_mse").query("kind == 'imbalanced'").set_index("setting")
    assert table["gap"].round(3).to_dict() == {"clean": 0.053, "noisy": 0.11, "ood": -0.203}
    assert (table["p_holm"] < 0.05).to_dict() == {"clean": True, "noisy": True, "ood": False}


def test_the_summary_covers_complete_repetitions_and_the_methods_there_are(figure3: Collected) -> None:
    table = settings_table(without(figure3, "method == 'reg' and repetition == 1 and setting == 'clean'"))
    assert lines(table)[0].n.startswith("2 repetitions, ") and lines(table)[0].overall.answer == "n = 2: not tested"
    assert lines(settings_table(without(figure3, "method == 'reg'"))) == []
    (uniform, *_) = lines(settings_table(without(figure3, "sampling != 'uniform' or method == 'reg+cls'")))
    assert "1 uniform sampling" in uniform.n and uniform.method.startswith("reg+cls-bal")


def test_constants_are_measured_on_the_data_of_each_panel(figure3: Collected) -> None:
    sets, noisy = MadeUpSets(), ("noisy-0.1", "severe", 0, 0, "train")
    training, tested = sets.get(*noisy)[1].astype(float), sets.get("noisy-0.1", "uniform", 0, 0, "test")[1].astype(float)
    expected = min(np.mean((tested - constant) ** 2) for constant in (training.mean(), np.median(training)))
    panels = panels_table(figure3, with_released=False)
    found = panels.frame.query("setting == 'noisy' and sampling == 'severe'")["constant"]
    assert found.tolist() == pytest.approx([expected] * 2) and CONSTANT_NOTE in panels.notes
    setting = settings_table(figure3).frame.query("setting == 'noisy' and kind == 'imbalanced'")
    assert setting["constant"].tolist() == pytest.approx([expected] * 2)


def test_no_verdict_is_given_where_reg_is_no_better_than_a_constant(small: Params) -> None:
    grid = replace(small.datasets["functions"].grids["figure3"], settings=("clean", "ood"), repetitions=3)
    report = Store(with_grids(small, figure3=grid, figure4=grid, figure5=grid)).report()  # made-up errors in ood exceed a constant's
    panels = csv(report, "panels").query("method == 'reg+cls'").set_index(["setting", "sampling"])["answer"]
    assert set(panels["ood"]) == {USELESS} and USELESS not in set(panels["clean"])
    clean, ood = report.lines
    assert ood.overall.answer == USELESS != clean.overall.answer
    assert f" In 2, {USELESS}, so there is no verdict. Δ = " in report.answers[0]
    (warning,) = (line for line in report.warnings if USELESS in line)
    assert warning.startswith(f"figure3: {USELESS} in ood, uniform (test MSE 1.0") and warning.endswith("): so there is no verdict")


def test_the_best_class_count_is_marked_at_the_edge_of_its_grid(figure3: Collected) -> None:
    panels = panels_table(figure3, with_released=False)
    assert all("‡: " in row[-3].text for row in panels.rows) and any(note.startswith("‡ The smallest or largest") for note in panels.notes)
