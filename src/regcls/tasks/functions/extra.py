"""What the class loss stands for (paper, section 2.2): does it track L_extra, and does it matter whether its classifier converges?

Correlations and means are those of likelihoods.MEASURES, averaged over functions; the unit of replication is the repetition.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from regcls.reports.drawing import grid_of_axes, shades, style, to_svg
from regcls.reports.measured import read_tables
from regcls.reports.picking import Row, records
from regcls.reports.report import Report, Section, to_csv
from regcls.reports.stats import holm, holm_note, paired, verdict
from regcls.reports.tables import DASH, Cell, Table, answer_cell, number, p_value, signed
from regcls.tasks.functions import compared, figures, tables
from regcls.tasks.functions.collected import PANEL, Collected, data_name, in_order
from regcls.training.likelihoods import BINS, MEASURES, SAMPLES
from regcls.words import counted

TRACKS = 0.9  # correlation of the class loss and L_extra over samples, from which on the one tracks the other
CELL = [*PANEL, "method", "classes"]


def add(report: Report, name: str, collected: Collected, read: Callable[[str], pd.DataFrame]) -> None:
    """Add the sections of a grid with `extra_loss`, their warnings and answers; `read`: run id -> its table LIKELIHOODS."""
    measured, reasons = measurements(collected, read)
    report.warnings += [f"{name}: {counted(len(reasons), 'run')} left out, {reason}" for reason in sorted(set(reasons.values()))]
    if measured.empty:
        return
    by_epoch = measured.groupby([*CELL, "split", "epoch"], sort=False)[list(MEASURES)].mean().reset_index()
    ends = at_end(by_epoch).merge(_gaps(collected), on=CELL, how="left")
    tracking, closeness = _tracking_table(name, ends, collected), _likelihood_table(name, measured, collected)
    caption = (
        f"Correlation of the class loss L_cls = −log p_c with L_extra (Eq. 9) over {SAMPLES} samples, by epoch; mean over functions and "
        "repetitions. Solid: uniform test samples; dotted: training samples. By the paper's argument (Eq. 10 and 11) it approaches 1."
    )
    alt = "Correlation against the epoch, a line for each number of classes. Each row of panels is a setting, each column a sampling."
    title = "Does the class loss track L_extra?"
    report.add(Section(name=name, title=title, svg=correlation_figure(by_epoch), alt=alt, caption=caption, table=tracking))
    caption = (
        "Each point is a panel and a class count: the gain of reg+cls in test MSE (relative to reg) by Σ p_k over all classes but the true "
        "one, on training samples; 0 for a classifier that is sure and right. A colour for each sampling, a marker for each setting."
    )
    title, alt = "Does reg+cls lose where the classifier does not converge?", "The gain of reg+cls against how unsure the classifier is."
    report.add(Section(name=f"{name}_gain", title=title, svg=gain_figure(ends), alt=alt, caption=caption), numbers=ends)
    title = "Does the class loss bring the likelihoods together?"
    report.add(Section(name=f"{name}_likelihoods", title=title, caption=closeness.caption, table=closeness))
    report.files[f"{name}_epochs.csv"] = to_csv(by_epoch)
    report.answers += answers(ends, closeness.frame)


def measurements(collected: Collected, read: Callable[[str], pd.DataFrame]) -> tuple[pd.DataFrame, Mapping[str, str]]:
    """MEASURES of the runs by CELL, repetition, split and epoch, means over functions; and the reasons why runs lack them, by run id."""
    wanted = collected.wanted[collected.wanted["state"] == "finished"]
    found, reasons = read_tables(wanted["run_id"].tolist(), read, what="likelihoods")
    means = [
        found[row["run_id"]]
        .groupby(["split", "epoch"])[list(MEASURES)]
        .mean()
        .reset_index()
        .assign(**{k: row[k] for k in [*CELL, "repetition"]})
        for row in records(wanted)
        if row["run_id"] in found
    ]
    return pd.concat(means, ignore_index=True) if means else pd.DataFrame(), reasons


def at_end(by_epoch: pd.DataFrame) -> pd.DataFrame:
    """A row per CELL with a class loss: MEASURES of the last epoch as train_… and test_…, and the epochs train_from and test_from, from
    which on the class loss tracks L_extra (NaN: not at the end)."""
    rows = []
    for key, cell in by_epoch[by_epoch["classes"] > 0].groupby(CELL, sort=False):
        row: dict[str, Any] = dict(zip(CELL, key, strict=True))
        for split, part in cell.groupby("split", sort=False):
            history = part.sort_values("epoch")
            row |= {f"{split}_{name}": history[name].iloc[-1] for name in MEASURES}
            apart = history.loc[~(history["correlation"] >= TRACKS), "epoch"]
            last, first = int(history["epoch"].max()), 1 + int(apart.max() if len(apart) else 0)
            row[f"{split}_from"] = first if first <= last else np.nan
        rows.append(row)
    return in_order(pd.DataFrame(rows))


def _gaps(collected: Collected) -> pd.DataFrame:
    """The gain of each CELL in test MSE over reg: gap, low, high, p_holm, answer, reg, relative (gap in % of reg)."""
    tests = compared.against_reg(collected.networks, "test_mse")
    reg = (
        collected.networks[collected.networks["method"] == "reg"].groupby(PANEL, sort=False)["test_mse"].mean().rename("reg").reset_index()
    )
    found = tests.merge(reg, on=PANEL, how="left")
    found["answer"] = [verdict(row["gap"], row["p_holm"], row["n"]) for row in records(found)]
    return found.assign(relative=100 * found["gap"] / found["reg"])


def _heads(row: Row) -> tuple[Cell, ...]:
    return tuple(Cell(text=text, header=True) for text in (data_name(row["setting"], row["noise"]), row["sampling"]))


def _tracking_table(name: str, ends: pd.DataFrame, collected: Collected) -> Table:
    rows = []
    for row in records(ends):
        texts = [str(row["classes"])]
        for split in ("train", "test"):
            texts += [number(row[f"{split}_class_loss"], 2), number(row[f"{split}_extra_loss"], 2), signed(row[f"{split}_correlation"], 2)]
            start = row[f"{split}_from"]
            texts += [DASH if np.isnan(start) else f"{start:.0f}", number(row[f"{split}_other_classes"], 2)]
        runs = tables.panel_runs(collected.wanted[collected.wanted["classes"].isin([0, row["classes"]])], row)
        rows.append(
            (
                *_heads(row),
                *(Cell(text=text) for text in (*texts, tables.gap_text(row))),
                answer_cell(row["answer"]),
                Cell(text="", runs=runs),
            )
        )
    side = ("L_cls", "L_extra", "r", "from epoch", "p of others")
    return Table(
        name=name,
        caption="The class loss and L_extra after the last epoch, and the gain of reg+cls over reg in test MSE.",
        columns=("data", "sampling", "C", *side, *side, "Δ (95 % interval)", "does it help?", "runs"),
        rows=tuple(rows),
        frame=ends,
        notes=(
            "Means over samples, functions and repetitions, in nats. L_cls = −log p_c; L_extra = log p̃(c) − log Σ p_k p̃(k) (Eq. 9), with p̃ "
            "the shares of the classes in training. Samples of a class that training lacks do not count.",
            f"r: correlation of both over samples. From epoch: the first one from which r stays at {TRACKS} or above. p of others: the "
            "probability of all classes but the true one, which the paper's argument takes for 0.",
            tables.CI_NOTE,
            holm_note(int(ends["p"].notna().sum()), of="repetitions"),
        ),
        run_column=True,
        spans=(("", 3), ("training", 5), ("test", 5), ("", 3)),
    )


def likelihood_gaps(measured: pd.DataFrame) -> pd.DataFrame:
    """−log p̃(y|x) − (−log p(y|x)) on test samples, of reg and of reg+cls (mean over class counts): a row per panel and method but reg.

    Columns: PANEL, method; reg_balanced, reg_imbalanced, other_balanced and other_imbalanced, the likelihoods; the fields of `Paired`,
    of |reg's difference| − |the method's|, a mean over functions for each repetition; p_holm.
    """
    last = measured[(measured["split"] == "test") & (measured["epoch"] == measured["epoch"].max())]
    values = last.groupby([*PANEL, "method", "repetition"], sort=False)[["balanced_nll", "imbalanced_nll"]].mean().reset_index()
    reg = values[values["method"] == "reg"].drop(columns="method")
    pairs = values[values["method"] != "reg"].merge(reg, on=[*PANEL, "repetition"], suffixes=("", "_reg"))
    rows = []
    for key, part in pairs.groupby([*PANEL, "method"], sort=False):
        sides = [(part[f"imbalanced_nll{side}"] - part[f"balanced_nll{side}"]).abs().tolist() for side in ("_reg", "")]
        means = {
            f"{new}_{kind}": part[f"{kind}_nll{side}"].mean()
            for new, side in (("reg", "_reg"), ("other", ""))
            for kind in ("balanced", "imbalanced")
        }
        rows.append(dict(zip([*PANEL, "method"], key, strict=True)) | means | asdict(paired(*sides)))
    frame = in_order(pd.DataFrame(rows))
    return frame.assign(p_holm=holm(frame["p"].tolist()))


def _likelihood_table(name: str, measured: pd.DataFrame, collected: Collected) -> Table:
    frame = likelihood_gaps(measured)
    frame["answer"] = [verdict(row["gap"], row["p_holm"], row["n"]) for row in records(frame)]
    rows = []
    for row in records(frame):
        texts = [row["method"], *(number(row[f"{side}_{kind}"], 2) for side in ("reg", "other") for kind in ("balanced", "imbalanced"))]
        end = (answer_cell(row["answer"]), Cell(text="", runs=tables.panel_runs(collected.wanted, row)))
        rows.append((*_heads(row), *(Cell(text=text) for text in (*texts, tables.gap_text(row, 2), p_value(row["p_holm"]))), *end))
    side = ("balanced", "imbalanced")
    return Table(
        name=f"{name}_likelihoods",
        caption="Negative log-likelihoods of Gaussian errors on uniform test samples (Eq. 6), after the last epoch.",
        columns=("data", "sampling", "method", *side, *side, "Δ of their distance (95 % interval)", "p (Holm)", "does it help?", "runs"),
        rows=tuple(rows),
        frame=frame,
        notes=(
            "−log p(y|x): balanced, with the mean squared training error as σ²; −log p̃(y|x): imbalanced, with p̃ a histogram of the "
            f"training targets in {BINS} bins. In nats, means over samples, functions, repetitions and class counts.",
            "Δ: the distance between both of reg, less that of the method; above 0 the class loss brings them together, as section 2.2 of "
            "the paper says. Interval (95 %) and p: paired t-test over repetitions.",
            holm_note(int(frame["p"].notna().sum()), of="repetitions"),
        ),
        run_column=True,
        spans=(("", 3), ("reg", 2), ("method", 2), ("", 4)),
    )


def answers(ends: pd.DataFrame, likelihoods: pd.DataFrame) -> list[str]:
    """What the measurements say, in sentences."""
    lines = []
    for split, words in (("train", "training"), ("test", "test")):
        r, tracked = ends[f"{split}_correlation"].dropna(), int(ends[f"{split}_from"].notna().sum())
        lines.append(
            f"Over {words} samples the class loss tracks L_extra (correlation of {TRACKS} or more) in {tracked} of {len(ends)} cases, "
            f"panels and class counts; the correlation is {_range(r, 2)}, {signed(r.median(), 2)} in the median."
        )
    others = ends["train_other_classes"]
    unsure = ends[others > others.median()]
    lines.append(
        f"The classes other than the true one, whose probability the argument takes for 0, have {_percent(others.min())} to "
        f"{_percent(others.max())} of it on training samples. In the half of the cases with most, where the classifier is least sure, "
        f"reg+cls has the lower mean test MSE in {_times(unsure)}, and clearly hurts in {(unsure['answer'] == 'hurts').sum()}."
    )
    closer, apart = ((likelihoods["answer"] == answer).sum() for answer in ("helps", "hurts"))
    lines.append(
        f"The class loss brings the likelihoods of imbalanced and balanced data closer together in {_times(likelihoods)} panels, "
        f"clearly in {closer}; it clearly drives them apart in {apart}."
    )
    return lines


def _range(values: "pd.Series[float]", digits: int) -> str:
    return f"{signed(values.min(), digits)} to {signed(values.max(), digits)}"


def _percent(share: float) -> str:
    return f"{number(100 * share, 0)} %"


def _times(rows: pd.DataFrame) -> str:
    return f"{(rows['gap'] > 0).sum()} of {len(rows)}"


def correlation_figure(by_epoch: pd.DataFrame) -> str:
    """Correlation by epoch, a line per class count; solid: test, dotted: training; rows: settings, columns: samplings."""
    shown = by_epoch[by_epoch["classes"] > 0]
    counts = sorted(shown["classes"].unique())
    colours = shades(counts)
    with style():
        panels, rows, columns = figures.layout(shown)
        figure, axes = grid_of_axes(len(rows), len(columns), width=2.5, height=1.45, head=0.62)
        for (setting, noise, sampling), panel in panels:
            ax = axes[rows.index((setting, noise)), columns.index(sampling)]
            for (classes, split), line in panel.groupby(["classes", "split"], sort=True):
                look = {"linestyle": ":", "linewidth": 1.3} if split == "train" else {"label": f"{classes} classes"}
                ax.plot(line["epoch"], line["correlation"], color=colours[classes], **look)
            ax.axhline(0, color="#8a949e", linewidth=0.8)
            ax.set_ylim(-1.05, 1.05)
            ax.set_title(f"{data_name(setting, noise)}, {sampling}", loc="left")
        figures.outer_labels(axes, "epoch", "correlation")
        figures.legend(figure, axes)
        return to_svg(figure)


def gain_figure(ends: pd.DataFrame) -> str:
    """The relative gain of reg+cls by Σ p_k of the other classes on training samples, a point per panel and class count."""
    with style():
        settings = list(ends[["setting", "noise"]].drop_duplicates().itertuples(index=False, name=None))
        samplings = in_order(ends[["sampling"]].drop_duplicates())["sampling"].tolist()
        colours = shades(samplings)
        markers = dict(zip(settings, "osD^v<>pP*", strict=False))
        figure, axes = grid_of_axes(1, 1, width=6.2, height=3.0, head=0.62)
        ax = axes[0, 0]
        key: Any  # pandas-stubs know it as a tuple of Hashable
        for key, part in ends.groupby(PANEL, sort=False):
            setting, noise, sampling = key
            label = f"{data_name(setting, noise)}, {sampling}"
            look = {"marker": markers[setting, noise], "color": colours[sampling], "linestyle": "none", "markersize": 4.5}
            ax.plot(part["train_other_classes"], part["relative"], label=label, **look)
        ax.axhline(0, color="#8a949e", linewidth=0.8)
        figures.outer_labels(axes, "Σ p_k over the classes other than the true one, training samples", "gain of reg+cls in test MSE (%)")
        figures.legend(figure, axes)
        return to_svg(figure)
