"""Collects the reports on the ten public tables into this folder: a row per table and method, with Holm's correction.

Run in the project's root after `regcls compare`: python results/tables/collect.py
"""

import shutil
from pathlib import Path

import pandas as pd

from regcls.reports.stats import LEVEL, holm
from regcls.reports.tables import digits_of, interval, number, p_value, signed

HERE = Path(__file__).parent
TABLES = ("a1", "a2", "a3", "a6", "a7", "Abalone", "Accel", "availPwr", "bank8FM", "boston")
FILES = ("main", "main_groups", "main_cells", "main_differences")


def main() -> None:
    """Write summary.csv, summary.md and methods.md, and a folder with the numbers of each table."""
    rows = []
    for name in TABLES:
        report = Path("reports") / name.lower()
        (HERE / name).mkdir(exist_ok=True)
        for file in FILES:
            shutil.copy(report / f"{file}.csv", HERE / name)
        rows.append(pd.read_csv(report / "main_differences.csv").assign(table=name))
    frame = pd.concat(rows)
    frame = frame[(frame["error"] == "rmse") & frame["group"].isin(["all", "few", "rare"])].drop(columns=["p_holm", "answer"])
    frame["p_tables"] = frame.groupby(["group", "method"])["p"].transform(lambda p: holm(p.tolist()))
    frame["p_holm"] = frame.groupby("group")["p"].transform(lambda p: holm(p.tolist()))
    frame.to_csv(HERE / "summary.csv", index=False, float_format="%.6g")
    (HERE / "summary.md").write_text("\n".join(_lines(frame)) + "\n", encoding="utf-8")
    (HERE / "methods.md").write_text("\n".join(_method_lines(frame)) + "\n", encoding="utf-8")


def _method_lines(frame: pd.DataFrame) -> list[str]:
    """A row per method: over the tables, the median difference in percent, how often it is above 0, and where it is clear."""
    head = "| method | Δ %, all rows: median (range) | tables above 0 | clear help | clear harm | Δ %, Few: median | Rare: median |"
    found = []
    for method, own in frame.groupby("method", sort=False):
        groups = dict(list(own.groupby("group")))
        whole = groups["all"]
        clear = whole[whole["p_holm"] < LEVEL]
        helped, harmed = (", ".join(clear.loc[sign * clear["gap"] > 0, "table"]) or "–" for sign in (1, -1))
        spread = f"{signed(whole['relative'].min(), 1)} to {signed(whole['relative'].max(), 1)}"
        rare = (signed(groups[group]["relative"].median(), 1) for group in ("few", "rare"))
        median = whole["relative"].median()
        cells = (method, f"{signed(median, 1)} ({spread})", f"{(whole['gap'] > 0).sum()} of {len(whole)}", helped, harmed, *rare)
        found.append((median, f"| {' | '.join(cells)} |"))
    return [head, "|---|---:|---:|---|---|---:|---:|", *(line for _, line in sorted(found, key=lambda pair: -pair[0]))]


def _lines(frame: pd.DataFrame) -> list[str]:
    lines = ["| table | group | method | reg | method's | Δ (95 % interval) | Δ (%) | p | p (Holm, tables) | p (Holm, all) |"]
    lines.append("|---|---|---|" + "---:|" * 7)
    for row in frame.sort_values(["group", "method", "table"], kind="stable").to_dict("records"):
        digits = digits_of(max(row["reg"], row["other"]))
        gap = f"{signed(row['gap'], digits)} ({interval(row['low'], row['high'], digits)})"
        cells = [row["table"], row["group"], row["method"], number(row["reg"], digits), number(row["other"], digits), gap]
        lines.append(f"| {' | '.join([*cells, signed(row['relative'], 1), *(p_value(row[p]) for p in ('p', 'p_tables', 'p_holm'))])} |")
    return lines


if __name__ == "__main__":
    main()
