"""Compares Figure 3 with its control: reg and reg+cls without weight decay, and from the same initial weights.

It needs only the networks of results/section2 and runs_decay.csv.gz: python results/why/control.py
"""

from pathlib import Path

import pandas as pd

from regcls.params import load_params
from regcls.reports.drawing import grid_of_axes, look_of, style, to_svg
from regcls.reports.report import to_csv
from regcls.reports.stats import holm, paired
from regcls.reports.tables import interval, number, p_value, signed
from regcls.tasks.functions import figures
from regcls.tasks.functions.collected import PANEL, data_name, in_order

HERE = Path(__file__).parent
CLASSES = (4, 16, 64, 256)
NO_CLASS_LOSS = 1e8  # λ so large that the class loss no longer counts; all reg+cls of a seed have the same trunk, whatever their classes
KINDS = ("as published", "no weight decay", "no weight decay, same initial weights")


def main(folder: Path = HERE) -> None:
    """Write control, change and chosen (each as .csv and .md), control_classes.csv, lambda.csv and lambda.svg to `folder`."""
    usual = load_params(HERE.parents[1] / "params.yaml").datasets["functions"].training.lam
    published, control = (means(HERE / path) for path in ("../section2/runs.csv.gz", "runs_decay.csv.gz"))
    was_usual, is_usual = (
        runs[(runs["method"] == "reg+cls") & (runs["lambda"] == runs["setting"].map(lambda setting: usual[setting]))]
        for runs in (published, control)
    )
    same = control[(control["method"] == "reg+cls") & (control["lambda"] == NO_CLASS_LOSS)]
    sides = dict(zip(KINDS, ((reg(published), was_usual), (reg(control), is_usual), (same, is_usual)), strict=True))
    pairs = pd.concat([paired_runs(*runs).assign(what=what) for what, runs in sides.items()])

    frames = {"control": tests(by_repetition(pairs, [*PANEL, "what"]), PANEL), "change": change(pairs)}
    frames["chosen"] = tests(chosen(control, same), PANEL)
    texts = {f"{name}.csv": to_csv(frame) for name, frame in frames.items()}
    texts["control.md"] = side_by_side(frames["control"])
    texts["change.md"] = rows(frames["change"], ["setting", "what"])
    texts["chosen.md"] = rows(frames["chosen"], ["setting", "sampling"])
    texts["control_classes.csv"] = to_csv(tests(by_repetition(pairs, [*PANEL, "what", "classes"]), PANEL))
    others = control[(control["method"] == "reg+cls") & (control["classes"] == 16) & (control["lambda"] < NO_CLASS_LOSS)]
    by_lambda = paired_runs(same, others).assign(what=lambda frame: frame["lambda"])
    found = tests(by_repetition(by_lambda, [*PANEL, "what"]), PANEL, together=True).rename(columns={"what": "lambda"})
    texts |= {"lambda.csv": to_csv(found), "lambda.svg": figure(found)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def means(path: Path) -> pd.DataFrame:
    """Validation and test MSE of each run with CLASSES or none and σ 0.1 or none, the means over its functions."""
    runs = pd.read_csv(path)
    runs = runs[runs["classes"].isin((0, *CLASSES)) & runs["noise"].isin((0.0, 0.1))]
    keys = [*PANEL, "method", "classes", "lambda", "repetition"]
    return runs.groupby(keys, dropna=False, sort=False)[["val_mse", "test_mse"]].mean().reset_index()


def reg(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the regression loss alone."""
    return runs[runs["method"] == "reg"]


def paired_runs(base: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """`runs` with the test MSE of the base of the same panel and repetition as `base`."""
    errors = base[[*PANEL, "repetition", "test_mse"]].rename(columns={"test_mse": "base"})
    return runs.merge(errors, on=[*PANEL, "repetition"]).rename(columns={"test_mse": "reg_cls"})


def by_repetition(pairs: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Means of base and reg_cls by `keys` and repetition."""
    return pairs.groupby([*keys, "repetition"], sort=False)[["base", "reg_cls"]].mean().reset_index()


def tests(pairs: pd.DataFrame, within: list[str], *, together: bool = False) -> pd.DataFrame:
    """MSE(base) − MSE(reg+cls) paired by repetition, a row for each of the other columns' values; p_holm over the rows that differ only in
    the columns `within`, or over all if `together`."""
    keys = [name for name in pairs if name not in ("repetition", "base", "reg_cls")]
    found = []
    for key, part in pairs.groupby(keys, sort=False):
        test = paired(part["base"].tolist(), part["reg_cls"].tolist())
        found.append(dict(zip(keys, key, strict=True)) | part[["base", "reg_cls"]].mean().to_dict() | vars(test))
    frame = in_order(pd.DataFrame(found))
    others = [] if together else [name for name in keys if name not in within]
    adjusted = [
        part.assign(p_holm=holm(part["p"].tolist())) for _, part in (frame.groupby(others, sort=False) if others else [("", frame)])
    ]
    return in_order(pd.concat(adjusted))


def change(pairs: pd.DataFrame) -> pd.DataFrame:
    """Over the imbalanced samplings and all class counts: Δ of each kind, and how much Δ has changed from the published one."""
    means = by_repetition(pairs[pairs["sampling"] != "uniform"], ["setting", "what"])
    first = means[means["what"] == KINDS[0]].set_index(["setting", "repetition"])
    gaps = (means["base"] - means["reg_cls"]).set_axis(pd.MultiIndex.from_frame(means[["setting", "repetition"]]))
    # As if the control's Δ were reg_cls and the published one the base: their difference is the change, with its sign turned.
    turned = means.assign(what="change: " + means["what"], base=gaps.to_numpy())
    turned["reg_cls"] = (first["base"] - first["reg_cls"]).loc[gaps.index].to_numpy()
    return tests(pd.concat([means, turned[means["what"] != KINDS[0]]]), ["setting"])


def chosen(control: pd.DataFrame, same: pd.DataFrame) -> pd.DataFrame:
    """reg+cls with 16 classes and the λ with the lowest validation error on the other repetitions, and its base."""
    runs = control[(control["method"] == "reg+cls") & (control["classes"] == 16) & (control["lambda"] < NO_CLASS_LOSS)]
    best = []
    for _, panel in runs.groupby(PANEL, sort=False):
        for repetition, own in panel.groupby("repetition"):
            score = panel[panel["repetition"] != repetition].groupby("lambda")["val_mse"].mean()
            best.append(own[own["lambda"] == score.idxmin()])
    return by_repetition(paired_runs(same, pd.concat(best)), PANEL)


def side_by_side(frame: pd.DataFrame) -> str:
    """A row per panel, the kinds in columns."""
    count = len(frame) // len(KINDS)
    lines = [f"| data | sampling | {' | '.join(f'{kind}: base, reg+cls | Δ (95 %), p (Holm, {count})' for kind in KINDS)} |"]
    lines.append(f"|---|---|{'---:|---:|' * len(KINDS)}")
    for _, part in frame.groupby(PANEL, sort=False):
        first = part.iloc[0]
        cells = [data_name(first["setting"], first["noise"]), first["sampling"]]
        for kind in KINDS:
            row = part[part["what"] == kind].iloc[0]
            cells += [f"{number(row['base'], 3)}, {number(row['reg_cls'], 3)}", f"{gap(row)}, {p_value(row['p_holm'])}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def rows(frame: pd.DataFrame, keys: list[str]) -> str:
    """A row per test."""
    lines = [f"| {' | '.join(keys)} | base | reg+cls | Δ (95 %) | p | p (Holm) |", f"|{'---|' * len(keys)}---:|---:|---:|---:|---:|"]
    for row in frame.to_dict("records"):
        sides = ["", ""] if str(row.get("what")).startswith("change") else [number(row[name], 3) for name in ("base", "reg_cls")]
        cells = [*(str(row[key]) for key in keys), *sides, gap(row), p_value(row["p"]), p_value(row["p_holm"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def gap(row) -> str:
    """Δ and its interval."""
    return f"{signed(row['gap'], 3)} ({interval(row['low'], row['high'], 3)})"


def figure(frame: pd.DataFrame) -> str:
    """What the class loss itself changes, by λ; rows: settings, columns: samplings."""
    with style():
        panels, lines, columns = figures.layout(frame)
        drawing, axes = grid_of_axes(len(lines), len(columns), width=2.5, height=1.45, head=0.3)
        for (setting, noise, sampling), panel in panels:
            ax, look = axes[lines.index((setting, noise)), columns.index(sampling)], look_of("reg+cls")
            share, low, high = (100 * panel[name] / panel["base"] for name in ("gap", "low", "high"))
            ax.plot(panel["lambda"], share, **look)
            ax.fill_between(panel["lambda"], low, high, color=look["color"], alpha=0.14, linewidth=0)
            ax.axhline(0, color="#8a949e", linewidth=0.8)
            ax.set_xscale("log")
            ax.set_ylim(-75, 50)
            ax.set_title(f"{data_name(setting, noise)}, {sampling}", loc="left")
        figures.outer_labels(axes, "λ", "gain in test MSE (%)")
        return to_svg(drawing)


if __name__ == "__main__":
    main()
