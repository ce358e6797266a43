import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from regcls.params import Params
from regcls.reports import figures_data, overview, stats, synthetic
from regcls.reports.collect import collect
from regcls.reports.synthetic import first_line
from regcls.tasks.functions.params import FunctionGrid
from regcls.tasks.functions.runs import FunctionSpec, expand
from reports.made_up import MadeUpLinks, MadeUpSets, prints, tracked, with_section

PROVENANCE = {"git commit": "abc<1>"}
Make = Callable[..., list[str]]


def compare(out: Path, *, params: Params, **given: Any) -> list[str]:
    """Write the report on the 1D study into `out`/functions, and return what to warn of."""
    alone = replace(params, chosen=("functions",))
    made = synthetic.report(params=alone, dataset="functions", links=MadeUpLinks(), provenance=PROVENANCE, **given)
    return overview.write(out, params=alone, reports={"functions": made}, absent={}, provenance=PROVENANCE)


@pytest.fixture
def make(small: Params, fingerprints: dict[FunctionSpec, str], runs: pd.DataFrame, tmp_path: Path) -> Make:
    def make(**changed: Any) -> list[str]:
        usual: dict[str, Any] = {"params": small, "runs": runs, "fingerprints": fingerprints, "sets": None}
        return compare(tmp_path / "reports", **(usual | changed))

    return make


def with_grids(params: Params, **grids: FunctionGrid) -> Params:
    return with_section(params, "functions", grids=grids)


@pytest.fixture(scope="module")
def report(small: Params, fingerprints: dict[FunctionSpec, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on a complete grid."""
    out = tmp_path_factory.mktemp("whole") / "reports"
    compare(out, params=small, runs=tracked(fingerprints), fingerprints=fingerprints, sets=MadeUpSets())
    return out / "functions"


class Rows(HTMLParser):
    """The body rows of every table: (text of the row's cells that are no header, links in the row)."""

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


def test_every_row_with_numbers_leads_to_its_runs_and_every_run_is_linked(report: Path, runs: pd.DataFrame) -> None:
    rows = Rows((report / "index.html").read_text()).rows
    unlinked = [text for text, links in rows if re.search(r"\d", text) and not links]
    assert len(unlinked) == 4 and all("†" in text for text in unlinked)  # the averages of Table 1, of the rows above them
    linked = {link for _, links in rows for link in links}
    assert {link for link in linked if "compare" not in link} == {MadeUpLinks().run_url(run_id) for run_id in runs["run_id"]}


def test_the_runs_of_a_number_can_be_compared_side_by_side(report: Path) -> None:
    html = (report / "index.html").read_text()
    groups = re.findall(r'<div class="groups">.*?</div>', html, flags=re.DOTALL)
    for group in groups:
        ids = re.findall(r'/runs/(\w+)"', group)
        compared = re.findall(r'compare-runs\?runs=([\w,]+)"', group)
        assert compared == ([",".join(ids)] if len(ids) > 1 else [])
    assert len(groups) > 10 and "compare-runs" in html


def test_the_same_runs_give_the_same_bytes_in_any_order(report: Path, make: Make, runs: pd.DataFrame, tmp_path: Path) -> None:
    make(sets=MadeUpSets(), runs=runs.sample(frac=1, random_state=1))
    one, two = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in (report, tmp_path / "reports/functions"))
    assert one == two and {"figure1.svg", "figure2.svg", "figure3.svg", "figure4.svg", "figure5.svg", "table1.tex"} <= set(one)


def test_the_page_asks_nothing_of_the_network(report: Path) -> None:
    html = (report / "index.html").read_text()
    assert "<script" not in html and not re.search(r"""(src|@import|url\()\s*=?\s*["']?(https?:)?//""", html)
    assert "abc&lt;1&gt;" in html


def test_every_file_that_the_page_links_to_is_there(report: Path) -> None:
    links = re.findall(r'href="([^"#:]+)"', (report / "index.html").read_text())
    assert len(links) > 10 and "../index.html" in links
    assert {link for link in links if not (report / link).is_file()} == set()


def test_published_values_stand_beside_ours(report: Path) -> None:
    summary = pd.read_csv(report / "summary.csv")
    row = summary.query("setting == 'clean' and sampling == 'severe' and method == 'reg+cls' and classes == 16").iloc[0]
    assert row["published"] == 0.2655 and row["ours_minus_published"] == pytest.approx(row["test_mse"] - 0.2655, abs=1e-6)
    reg = summary.query("setting == 'clean' and sampling == 'severe' and method == 'reg'").iloc[0]
    assert reg["published"] == pytest.approx((0.3929 + 0.3921) / 2)
    assert "55.42†" in (report / "table1.md").read_text()


def test_holes_are_named_and_not_averaged_over(make: Make, runs: pd.DataFrame, tmp_path: Path) -> None:
    gone = runs.query("setting == 'noisy' and noise == 0.1 and sampling == 'severe' and method == 'reg' and seed == 421")
    warnings = make(runs=runs.drop(index=gone.index))
    assert warnings[0].startswith("figure3: 1 of 60 runs are holes (1 missing)")
    assert "noisy σ 0.1, severe · reg: 1 of 2 repetitions (missing: seed 421)" in (tmp_path / "reports/functions/index.html").read_text()
    assert "(n = 1 of 2)" in (tmp_path / "reports/functions/summary.md").read_text()
    assert pd.read_csv(tmp_path / "reports/functions/holes.csv")["seed"].tolist() == [421]
    panel = pd.read_csv(tmp_path / "reports/functions/panels.csv").query(
        "setting == 'noisy' and sampling == 'severe' and method == 'reg+cls'"
    )
    assert panel["n"].tolist() == [1] and panel["answer"].tolist() == ["not tested (n = 1)"]


def test_an_empty_panel_is_shown_empty(make: Make, runs: pd.DataFrame, tmp_path: Path) -> None:
    make(runs=runs.query("not (setting == 'ood' and sampling == 'severe')"))
    panel = pd.read_csv(tmp_path / "reports/functions/panels.csv").query("setting == 'ood' and sampling == 'severe'")
    assert panel["n"].tolist() == [0, 0] and panel["gap"].isna().all()
    metrics = json.loads((tmp_path / "reports/metrics.json").read_text())["functions"]
    assert metrics["gap"]["ood"]["severe"] is None
    assert metrics["runs"] == {"wanted": len(runs), "finished": len(runs) - 10, "missing": 10}


def test_duplicates_and_stale_runs_are_warned_of(make: Make, runs: pd.DataFrame) -> None:
    again = runs.iloc[:2].assign(run_id=["later-1", "later-2"], started=2e9, fingerprint=[runs["fingerprint"][0], "another"])
    warnings = make(runs=pd.concat([runs, again]))
    assert warnings[0].startswith("duplicates: 1 finished run ") and "later-1" in warnings[0]
    assert warnings[1].startswith("stale: 1 finished run ")


def test_one_run_is_enough_for_a_report(make: Make, runs: pd.DataFrame, tmp_path: Path) -> None:
    make(runs=runs.iloc[[0]])
    assert json.loads((tmp_path / "reports/metrics.json").read_text())["functions"]["runs"]["finished"] == 1


def test_a_grid_of_one_repetition_has_gaps_and_no_tests(make: Make, small: Params, tmp_path: Path) -> None:
    one = with_grids(small, figure3=replace(small.datasets["functions"].grids["figure3"], repetitions=1, classes=(4,)))
    make(params=one, fingerprints=prints(one), runs=tracked(prints(one)))
    panels = pd.read_csv(tmp_path / "reports/functions/panels.csv")
    assert panels["p"].isna().all() and panels["gap"].notna().all()
    assert "one repetition allows no test" in (tmp_path / "reports/functions/index.html").read_text()


@pytest.mark.parametrize("methods", [("reg",), ("reg+cls",), ("reg+cls", "reg+cls-bal"), ("reg", "reg+cls-bal")])
def test_a_grid_may_lack_methods(methods: tuple[str, ...], make: Make, small: Params, tmp_path: Path) -> None:
    grids = {name: replace(grid, methods=methods, settings=grid.settings[:1]) for name, grid in small.datasets["functions"].grids.items()}
    few = with_grids(small, **grids)
    make(params=few, fingerprints=prints(few), runs=tracked(prints(few)))
    assert (tmp_path / "reports/functions/index.html").exists()


def test_other_noise_levels_and_several_lambdas_have_no_published_values(make: Make, small: Params, tmp_path: Path) -> None:
    grid = replace(small.datasets["functions"].grids["figure3"], settings=("noisy",), noise=(0.05, 0.5), lambdas=(1.0, 10.0), classes=(4,))
    other = with_grids(small, figure3=grid, figure4=grid, mine=grid)
    make(params=other, fingerprints=prints(other), runs=tracked(prints(other)))
    assert "Trained, but without a figure here: the grid mine." in (tmp_path / "reports/functions/index.html").read_text()
    assert pd.read_csv(tmp_path / "reports/functions/summary.csv")["published"].isna().all()
    metrics = json.loads((tmp_path / "reports/metrics.json").read_text())["functions"]
    assert set(metrics["gap"]) == {"noisy-0.05", "noisy-0.5"} == set(metrics["table1"]["balanced"]) == set(metrics["table1"]["uniform"])


def test_a_removed_grid_is_left_out(make: Make, small: Params, tmp_path: Path) -> None:
    only = with_grids(small, figure5=small.datasets["functions"].grids["figure5"])
    make(params=only, fingerprints=prints(only), runs=tracked(prints(only)))
    assert {path.name for path in (tmp_path / "reports/functions").glob("*.svg")} == {"figure5.svg"}


def test_without_prepared_data_figures_1_and_2_are_left_out_with_a_warning(make: Make, tmp_path: Path) -> None:
    assert make(sets=None)[0].startswith("figure1, figure2: left out")
    assert not (tmp_path / "reports/functions/figure1.svg").exists()


def test_figure_3_has_one_row_a_network(report: Path) -> None:
    networks = pd.read_csv(report / "figure3_networks.csv")
    assert len(networks) == 6 * 2 * 5 * 10 and networks["test_mse"].notna().all()


def test_figure_1_has_the_points_that_it_draws(report: Path) -> None:
    points = pd.read_csv(report / "figure1.csv")
    assert list(points) == ["data", "split", "x", "y"] and set(points.query("data == 'ood'")["split"]) == {"train", "val", "test"}
    x, y = MadeUpSets().get("clean", "uniform", 0, 0, "train")
    drawn = points.query("data == 'clean'")
    assert len(drawn) == figures_data.POINTS < len(x)
    assert {f"{a:.8g} {b:.8g}" for a, b in zip(drawn["x"], drawn["y"], strict=True)} <= {
        f"{a:.8g} {b:.8g}" for a, b in zip(x, y, strict=True)
    }
    assert (drawn["y"].min(), drawn["y"].max()) == pytest.approx((y.min(), y.max()))


def test_figure_2_counts_every_sample_once(report: Path) -> None:
    counts = pd.read_csv(report / "figure2.csv")
    assert list(counts) == ["sampling", "bin_low", "bin_high", "count"] and len(counts) == 4 * figures_data.BINS
    for sampling, found in counts.groupby("sampling"):
        assert found["count"].sum() == len(MadeUpSets().get("clean", str(sampling), 0, 0, "train")[1])
    assert "the samples themselves are those of data/functions/prepared." in (report / "index.html").read_text()


def test_the_tables_of_figure_4_and_table_1_say_that_one_repetition_is_no_test(report: Path) -> None:
    for name, n in (("figure4_lambda", "n"), ("table1", "repetitions"), ("figure4", "pairs")):
        table = pd.read_csv(report / f"{name}.csv").query("method != 'reg'")
        assert table["p"].isna().all() and table["p_holm"].isna().all() and (table[n] == 1).all()
    assert "| – | n = 1 | – | 1 (20) |" in (report / "table1.md").read_text()
    assert "| n = 1 | – | 1 |" in (report / "figure4_lambda.md").read_text()


def test_the_tables_of_figure_4_and_table_1_are_tested_by_repetition(make: Make, small: Params, tmp_path: Path) -> None:
    three = with_grids(
        small, figure4=replace(small.datasets["functions"].grids["figure4"], repetitions=3, settings=("clean",), classes=(4, 16))
    )
    make(params=three, fingerprints=prints(three), runs=tracked(prints(three)))
    lambdas = pd.read_csv(tmp_path / "reports/functions/figure4_lambda.csv")
    assert lambdas["p_holm"].tolist() == pytest.approx(stats.holm(lambdas["p"].tolist())) and (lambdas["n"] == 3).all()
    points = pd.read_csv(tmp_path / "reports/functions/figure4.csv").query(
        "method == 'reg+cls' and sampling == 'severe' and `lambda` == 100"
    )
    row = lambdas.query("method == 'reg+cls' and sampling == 'severe' and `lambda` == 100").iloc[0]
    assert row["gap"] == pytest.approx(points["gap"].mean()) and row["low"] < row["gap"] < row["high"]
    wins = pd.read_csv(tmp_path / "reports/functions/table1.csv")
    assert (wins["low"] < wins["share"])[wins["p"].notna()].all() and (wins["repetitions"] == 3).all()
    assert wins["p_holm"].tolist() == pytest.approx(stats.holm(wins["p"].tolist()), nan_ok=True)


def test_other_training_values_are_said_beside_every_released_value(make: Make, small: Params, tmp_path: Path) -> None:
    other = with_section(small, "functions", training=replace(small.datasets["functions"].training, epochs=2))
    make(params=other, runs=tracked(prints(other)), fingerprints=prints(other))
    for name in ("panels", "summary", "table1"):
        for ending in ("md", "tex"):
            assert "ot comparable with the " in (tmp_path / f"reports/functions/{name}.{ending}").read_text()
    html = (tmp_path / "reports/functions/index.html").read_text()
    assert html.count("Not comparable with the released values: epochs 2 instead of 80.") == 3  # the panels, Figure 3 and its table
    assert "released, not comparable" in (tmp_path / "reports/functions/figure3.svg").read_text()


def test_the_page_says_where_the_runs_were_trained(report: Path, make: Make, runs: pd.DataFrame, tmp_path: Path) -> None:
    assert "Where each run was trained stands in its tags" in (report / "index.html").read_text()
    make(runs=runs.assign(cpus="2", gpu=["none"] * 12 + ["H100"] * (len(runs) - 12), host="secret"))
    html = (tmp_path / "reports/functions/index.html").read_text()
    assert "Trained on – 80 runs: cpus 2, gpu H100; 12 runs: cpus 2, gpu none." in html and "secret" not in html


def networks_of(runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str], small: Params) -> pd.DataFrame:
    collected = collect(runs, fingerprints, dataset="functions", functions=10)
    place = {spec: position for position, spec in enumerate(fingerprints)}
    return collected.of(expand(small.datasets["functions"], "functions", small.datasets["functions"].grids["figure3"]), place).networks


def test_the_line_of_the_first_screen_is_the_mean_over_imbalanced_panels_by_repetition(
    small: Params, runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]
) -> None:
    networks = networks_of(runs, fingerprints, small)
    line = first_line(networks)
    severe = networks.query("sampling == 'severe'").groupby(["method", "repetition", "setting"])["test_mse"].mean()
    gaps = severe["reg"].groupby("repetition").mean() - severe["reg+cls"].groupby("repetition").mean()
    assert line is not None and line.overall.gap == pytest.approx(gaps.mean()) and line.method == "reg+cls, 2 class counts"
    assert line.overall.low < line.overall.gap < line.overall.high and line.n.startswith("2 repetitions, over 3 imbalanced panels")


def test_the_line_is_over_panels_that_both_have_and_over_whole_repetitions(
    small: Params, runs: pd.DataFrame, fingerprints: dict[FunctionSpec, str]
) -> None:
    networks = networks_of(runs, fingerprints, small)
    without = networks.query(
        "not (method == 'reg+cls' and setting == 'ood') and not (method == 'reg' and repetition == 1 and setting == 'clean')"
    )
    line = first_line(without)
    assert line is not None and line.n.startswith("1 repetition, over 2 imbalanced panels") and line.overall.answer == "not tested (n = 1)"
    assert first_line(networks.query("method != 'reg'")) is None
    uniform = first_line(networks.query("sampling == 'uniform' and method != 'reg+cls'"))
    assert uniform is not None and "3 uniform panels" in uniform.n and uniform.method.startswith("reg+cls-bal")
