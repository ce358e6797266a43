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
CLASSES, NO_CLASS_LOSS = 16, 1e8  # λ so large that the class loss no longer counts
NOISE = (0.0, 0.1)


def main(folder: Path = HERE) -> None:
    """Write control.csv, control.md, lambda.csv and lambda.svg to `folder`."""
    usual = load_params(HERE.parents[1] / "params.yaml").datasets["functions"].training.lam
    published, control = (means(HERE / path) for path in ("../section2/runs.csv.gz", "runs_decay.csv.gz"))
    is_usual = control["lambda"] == control["setting"].map(lambda setting: usual[setting])
    was_usual = published["lambda"] == published["setting"].map(lambda setting: usual[setting])
    frame = pd.concat(
        [
            differences("as published", reg(published), published[was_usual]),
            differences("without weight decay", reg(control), control[is_usual]),
            differences("and from the same initial weights", without_class_loss(control), control[is_usual]),
        ]
    )
    (folder / "control.csv").write_text(to_csv(frame), encoding="utf-8")
    (folder / "control.md").write_text("\n".join(lines(frame)) + "\n", encoding="utf-8")
    others = control[(control["method"] == "reg+cls") & (control["lambda"] < NO_CLASS_LOSS)]
    by_lambda = pd.concat([differences(lam, without_class_loss(control), part) for lam, part in others.groupby("lambda")])
    by_lambda = by_lambda.rename(columns={"what": "lambda"}).assign(p_holm=holm(by_lambda["p"].tolist()))
    (folder / "lambda.csv").write_text(to_csv(by_lambda), encoding="utf-8")
    (folder / "lambda.svg").write_text(figure(by_lambda), encoding="utf-8")


def means(path: Path) -> pd.DataFrame:
    """Test MSE of each run with CLASSES classes or none, the mean over its functions."""
    runs = pd.read_csv(path).query("classes in (0, @CLASSES) and noise in @NOISE")
    return runs.groupby([*PANEL, "method", "classes", "lambda", "repetition"], dropna=False)["test_mse"].mean().reset_index()


def reg(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with the regression loss alone."""
    return runs[runs["method"] == "reg"]


def without_class_loss(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of reg+cls whose class loss does not count."""
    return runs[(runs["method"] == "reg+cls") & (runs["lambda"] == NO_CLASS_LOSS)]


def differences(what: object, base: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """MSE(base) − MSE(reg+cls) by panel, paired by repetition; p_holm over the panels."""
    pairs = base.merge(runs[runs["method"] == "reg+cls"], on=[*PANEL, "repetition"], suffixes=("", "_cls"))
    rows = []
    for key, part in pairs.groupby(PANEL, sort=False):
        test = paired(part["test_mse"].tolist(), part["test_mse_cls"].tolist())
        sides = {"base": part["test_mse"].mean(), "reg_cls": part["test_mse_cls"].mean()}
        rows.append({"what": what} | dict(zip(PANEL, key, strict=True)) | sides | vars(test))
    frame = in_order(pd.DataFrame(rows))
    return frame.assign(p_holm=holm(frame["p"].tolist()))


def lines(frame: pd.DataFrame) -> list[str]:
    """A row per panel, the comparisons side by side."""
    kinds = list(frame["what"].unique())
    found = [f"| data | sampling | {' | '.join(f'{kind}: base, reg+cls | Δ (95 %), p (Holm, 12)' for kind in kinds)} |"]
    found.append(f"|---|---|{'---:|---:|' * len(kinds)}")
    for _, part in frame.groupby(PANEL, sort=False):
        first = part.iloc[0]
        cells = [data_name(first["setting"], first["noise"]), first["sampling"]]
        for row in part.to_dict("records"):
            cells += [f"{number(row['base'], 3)}, {number(row['reg_cls'], 3)}"]
            cells += [f"{signed(row['gap'], 3)} ({interval(row['low'], row['high'], 3)}), {p_value(row['p_holm'])}"]
        found.append(f"| {' | '.join(cells)} |")
    return found


def figure(frame: pd.DataFrame) -> str:
    """What the class loss itself changes, by λ; rows: settings, columns: samplings."""
    with style():
        panels, rows, columns = figures.layout(frame)
        drawing, axes = grid_of_axes(len(rows), len(columns), width=2.5, height=1.45, head=0.3)
        for (setting, noise, sampling), panel in panels:
            ax, look = axes[rows.index((setting, noise)), columns.index(sampling)], look_of("reg+cls")
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
