"""Does the imbalance of the targets, or L_extra of the untrained network, predict how much a class loss helps?

Makes advice.csv, advice_correlations.csv and .md and advice.svg. It needs neither the tracked runs nor the data, only measures.csv (see
advice_measures.py), the networks of results/section2, the differences of results/tables and, if it is there, runs_decay.csv.gz, networks
trained without weight decay:
python results/why/advice.py [runs_decay.csv.gz] [folder]
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from advice_measures import FUNCTION_CLASSES, NOISE, PARAMS
from matplotlib.axes import Axes
from scipy.stats import rankdata

from regcls.params import load_params
from regcls.reports.drawing import OTHERS, grid_of_axes, shades, style, to_svg
from regcls.reports.picking import records
from regcls.reports.report import to_csv
from regcls.reports.stats import CONSTANTS, holm, one_sample
from regcls.reports.tables import Cell, Table, interval, markdown, number, p_value, signed
from regcls.tasks.functions import figures
from regcls.tasks.functions.collected import ORDER, data_name

HERE = Path(__file__).parent
RESULTS = HERE.parent
SECTION2 = RESULTS / "section2"
DECAY = HERE / "runs_decay.csv.gz"
DRAWS = 10_000  # permutations, and resamples of units
FUNCTIONS, WITHOUT, TABLES = "functions", "functions without weight decay", "tables"
MEASURES = {
    "imbalance": "imbalance of the training targets: log C − H(p̃), nats",
    "train_extra": "L_extra of the untrained network, training samples, nats",
    "test_extra": "L_extra of the untrained network, test samples, nats",
}
DRAWN = ("imbalance", "train_extra")  # the tests that Holm's correction counts
ALGAE = ("a1", "a2", "a3", "a6", "a7")  # the same 198 rows and features with other targets


def main(decay: str | Path = DECAY, folder: str | Path = HERE) -> None:
    """Write advice.csv, advice_correlations.csv and .md, and advice.svg to `folder`."""
    found = units(Path(decay))
    tests = correlations(found)
    texts = {"advice.csv": to_csv(found), "advice_correlations.csv": to_csv(tests)}
    texts |= {"advice_correlations.md": markdown(table(tests)), "advice.svg": drawn(found, tests)}
    for name, text in texts.items():
        (Path(folder) / name).write_text(text, encoding="utf-8")


def units(decay: Path) -> pd.DataFrame:
    """A row per study and unit (panel or table): the means of its measures, and its gain in % of reg's error, with a 95 % interval."""
    means = pd.read_csv(HERE / "measures.csv").groupby(["study", "unit"], sort=False)
    measures = means[[*MEASURES, "test_seen"]].mean().reset_index()
    gains = {FUNCTIONS: function_gains(SECTION2 / "runs.csv.gz"), TABLES: table_gains()}
    if decay.exists():
        gains[WITHOUT] = function_gains(decay)
    rows = [
        measures[measures["study"] == (FUNCTIONS if study == WITHOUT else study)].merge(own, on="unit").assign(study=study)
        for study, own in sorted(gains.items())
    ]
    return pd.concat(rows, ignore_index=True)


def function_gains(path: Path) -> pd.DataFrame:
    """The gain in test MSE of the panels, with 16 classes and the usual λ: of each repetition, then the mean and its t interval.

    A repetition counts if it has the networks of all ten functions, with both methods. `constant`: the error of the better of the mean and
    the median of the training targets.
    """
    functions = load_params(PARAMS).datasets["functions"]
    networks = pd.read_csv(path)
    usual = networks["lambda"] == networks["setting"].map(functions.training.lam.__getitem__)
    chosen = (networks["method"] == "reg") | ((networks["method"] == "reg+cls") & (networks["classes"] == FUNCTION_CLASSES) & usual)
    networks = networks[chosen & networks["noise"].isin([0.0, NOISE])].copy()
    networks["unit"] = _unit(networks)
    constants = pd.read_csv(SECTION2 / "constants.csv")
    constants = constants.groupby(_unit(constants))[list(CONSTANTS)].mean().min(axis=1)
    errors = networks.groupby(["unit", "repetition", "method"], sort=False)["test_mse"].agg(["count", "mean"]).unstack("method")
    errors = errors.loc[(errors["count"] == len(functions.data.functions)).all(axis=1), "mean"]
    rows = []
    for unit, own in errors.groupby("unit", sort=False):
        gains = 100 * (own["reg"] - own["reg+cls"]) / own["reg"]
        low, high, _ = one_sample(gains.to_numpy(), against=0.0)
        means = {"constant": constants[unit], "reg": own["reg"].mean(), "other": own["reg+cls"].mean()}
        rows.append({"unit": unit, "replicates": len(gains), **means, "gain": gains.mean(), "low": low, "high": high})
    return pd.DataFrame(rows)


def _unit(rows: pd.DataFrame) -> list[str]:
    return [f"{data_name(row['setting'], row['noise'])}, {row['sampling']}" for row in records(rows)]


def table_gains() -> pd.DataFrame:
    """The gain in RMSE over all rows of the tables, whose class count and λ validation rows chose; its interval is over folds."""
    frame = pd.read_csv(RESULTS / "tables" / "summary.csv")
    frame = frame[(frame["error"] == "rmse") & (frame["group"] == "all") & (frame["method"] == "reg+cls")]
    main = {name: pd.read_csv(RESULTS / "tables" / name / "main.csv").set_index("method") for name in frame["table"]}
    constant = frame["table"].map({name: errors.loc[list(CONSTANTS), "rmse_all"].min() for name, errors in main.items()})
    gains = {"gain": frame["relative"], **{side: 100 * frame[side] / frame["reg"] for side in ("low", "high")}}
    kept = frame[["table", "folds", "reg", "other"]].rename(columns={"table": "unit", "folds": "replicates"})
    return kept.assign(constant=constant, **gains)


def correlations(found: pd.DataFrame) -> pd.DataFrame:
    """Spearman's ρ of each measure and the gain: over all units of a study, and over those that are left without the likely reasons for it.

    p_holm counts the tests that the figure shows: DRAWN over all units.
    """
    rows = []
    for study, own in found.groupby("study", sort=False):
        for over, part in parts(own).items():
            rows += [{"study": study, "units": over, "measure": name, **spearman(part[name], part["gain"])} for name in MEASURES]
    frame = pd.DataFrame(rows)
    shown = frame["units"].str.startswith("all") & frame["measure"].isin(DRAWN)
    frame.loc[shown, "p_holm"] = holm(frame.loc[shown, "p"].tolist())
    return frame


def parts(own: pd.DataFrame) -> Mapping[str, pd.DataFrame]:
    """All units of a study, and fewer of them: where reg has learnt something; no ood panels, no uniform ones either; the five algae tables
    as one, their mean."""
    better = {"reg better than a constant": own[own["reg"] < own["constant"]]}
    if (own["study"] == TABLES).all():
        merged = own["unit"].where(~own["unit"].isin(ALGAE), "algae")
        return {"all tables": own, **better, "algae as one": own.groupby(merged, sort=False)[[*MEASURES, "gain"]].mean()}
    plain = own[~own["unit"].str.startswith("ood")]
    return {
        "all panels": own,
        **better,
        "clean and noisy": plain,
        "clean and noisy, imbalanced": plain[~plain["unit"].str.endswith("uniform")],
    }


def spearman(x: "pd.Series[float]", y: "pd.Series[float]") -> dict[str, float]:
    """ρ, its 95 % interval from resampled units, and the two-sided p from permuted ones, as if units were independent."""
    rng, n = np.random.default_rng(0), len(x)
    a, b = x.to_numpy(), y.to_numpy()
    rho = float(_rho(a[None], b[None])[0])
    resampled = rng.integers(n, size=(DRAWS, n))
    resampled = resampled[(resampled != resampled[:, :1]).any(axis=1)]  # one unit alone has no ρ
    low, high = np.quantile(_rho(a[resampled], b[resampled]), [0.025, 0.975])
    permuted = _rho(np.broadcast_to(a, (DRAWS, n)), rng.permuted(np.broadcast_to(b, (DRAWS, n)), axis=1))
    p = (1 + (np.abs(permuted) >= abs(rho) - 1e-9).sum()) / (1 + DRAWS)
    return {"n": n, "rho": rho, "low": float(low), "high": float(high), "p": float(p)}


def _rho(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Spearman's ρ of each row."""
    a, b = (rankdata(values, axis=1) - (values.shape[1] + 1) / 2 for values in (x, y))
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def table(tests: pd.DataFrame) -> Table:
    """The correlations, for readers."""
    words = {"imbalance": "imbalance", "train_extra": "L_extra, training", "test_extra": "L_extra, test"}
    rows = []
    for row in records(tests):
        rho = f"{signed(row['rho'], 2)} ({interval(row['low'], row['high'], 2)})"
        rows.append((row["study"], row["units"], words[row["measure"]], str(row["n"]), rho, p_value(row["p"]), p_value(row["p_holm"])))
    return Table(
        name="advice_correlations",
        caption="Spearman's ρ of the gain of reg+cls and what is known before training.",
        columns=("study", "over", "measure", "n", "ρ (95 % interval)", "p", f"p (Holm, {tests['p_holm'].notna().sum()})"),
        rows=tuple(tuple(Cell(text=text) for text in row) for row in rows),
        frame=tests,
        notes=(
            "Intervals from resampled units, p from permuted ones; both take units for independent, which they are not: panels share "
            "functions, seeds and peaks, and the algae tables their rows. So intervals are too narrow and p too small.",
        ),
    )


def drawn(found: pd.DataFrame, tests: pd.DataFrame) -> str:
    """The figure: gain by imbalance (left) and L_extra of the untrained network (right); functions above, tables below."""
    with style():
        figure, axes = grid_of_axes(2, len(DRAWN), width=4.9, height=2.7, head=0.9)
        for column, measure in enumerate(DRAWN):
            for row, studies in enumerate(((FUNCTIONS, WITHOUT), (TABLES,))):
                ax = axes[row, column]
                titles = []
                for study in studies:
                    own = found[found["study"] == study]
                    if len(own):
                        (_tables if study == TABLES else _panels)(ax, own, measure, hollow=study == WITHOUT)
                        titles.append(_title(study, tests, measure))
                ax.axhline(0, color="#8a949e", linewidth=0.8)
                ax.set_title("\n".join(titles), loc="left")
            axes[-1, column].set_xlabel(MEASURES[measure])
        for ax, error in zip(axes[:, 0], ("MSE", "RMSE"), strict=True):
            ax.set_ylabel(f"gain in test {error} (%)", labelpad=0)
        note: dict[str, Any] = {"transform": axes[1, 0].transAxes, "fontsize": 8, "color": OTHERS[1]}
        axes[1, 0].text(0.02, 0.04, "a1 to a7: the same rows;\nreg is better than a constant on a1 only", **note)
        _key(axes[0, 0])
        figures.legend(figure, axes)
        return to_svg(figure)


def _title(study: str, tests: pd.DataFrame, measure: str) -> str:
    row = records(tests[(tests["study"] == study) & (tests["measure"] == measure)])[0]  # over all units
    rho = f"ρ {signed(row['rho'], 2)} ({interval(row['low'], row['high'], 2)}), p {number(row['p_holm'], 2)}"
    name = {FUNCTIONS: "1D functions", WITHOUT: "hollow: no weight decay", TABLES: "public tables"}[study]
    return f"{name}, n = {row['n']} {'tables' if study == TABLES else 'panels'}: {rho} (Holm, {tests['p_holm'].notna().sum()})"


COLOURS = shades(ORDER["sampling"])
MARKERS = dict(zip(ORDER["setting"], "osD", strict=True))


ASIDE = 0.03  # nats by which points without weight decay are moved, to show both intervals
AWAY = {"Abalone": (4, -10), "Accel": (-26, 3), "a1": (4, -10)}  # points from a point to its name, where names would overlap


def _panels(axes: Axes, own: pd.DataFrame, measure: str, *, hollow: bool) -> None:
    for row in records(own):
        data, sampling = row["unit"].split(", ")
        look: dict[str, Any] = {"color": COLOURS[sampling], "marker": MARKERS[data.split()[0]], "markersize": 4.5}
        if hollow:
            look |= {"markerfacecolor": "white", "linestyle": (0, (2, 2))}
        _point(axes, row[measure] + ASIDE * hollow, row, look)


def _tables(axes: Axes, own: pd.DataFrame, measure: str, *, hollow: bool) -> None:
    for row in records(own):
        _point(axes, row[measure], row, {"color": OTHERS[1] if row["unit"] in ALGAE else OTHERS[0], "marker": "o", "markersize": 4.5})
        axes.annotate(
            row["unit"],
            (row[measure], row["gain"]),
            AWAY.get(row["unit"], (4, 3)),
            textcoords="offset points",
            fontsize=7.5,
            color="#59636e",
        )


def _point(axes: Axes, x: float, row: Mapping[str, Any], look: Mapping[str, Any]) -> None:
    """A unit, with the interval of its gain as a thin line; without one if there was no test."""
    line = {"color": look["color"], "linewidth": 0.9, "linestyle": look.get("linestyle", "-"), "alpha": 0.7}
    axes.plot([x, x], [row["low"], row["high"]], **line)
    axes.plot([x], [row["gain"]], **{**look, "linestyle": "none"})


def _key(axes: Axes) -> None:
    """Entries of the legend."""
    for sampling, colour in COLOURS.items():
        axes.plot([], [], color=colour, linewidth=5, label=sampling)
    for setting, marker in MARKERS.items():
        axes.plot([], [], color="#59636e", marker=marker, linestyle="none", markersize=4.5, label=data_name(setting, NOISE))


if __name__ == "__main__":
    main(*sys.argv[1:])
