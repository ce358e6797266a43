"""Collects the reports on the ten public tables into this folder: a row per table, with Holm's correction over the tables.

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
    """Write summary.csv and summary.md, and a folder with the numbers of each table."""
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
    frame.to_csv(HERE / "summary.csv", index=False, float_format="%.6g")
    (HERE / "summary.md").write_text("\n".join(_lines(frame)) + "\n", encoding="utf-8")
    for (group, method), part in frame.groupby(["group", "method"], sort=False):
        clear = part[part["p_tables"] < LEVEL]
        print(
            f"{group}, {method}: mean {signed(part['relative'].mean(), 1)} %, above 0 on {(part['gap'] > 0).sum()} of "
            f"{part['gap'].notna().sum()}, clear after Holm over the tables: {', '.join(clear['table']) or 'none'}"
        )


def _lines(frame: pd.DataFrame) -> list[str]:
    lines = ["| table | group | method | reg | method's | Δ (95 % interval) | Δ (%) | p | p (Holm) |", "|---|---|---|" + "---:|" * 6]
    for row in frame.sort_values(["group", "method", "table"], kind="stable").to_dict("records"):
        digits = digits_of(max(row["reg"], row["other"]))
        gap = f"{signed(row['gap'], digits)} ({interval(row['low'], row['high'], digits)})"
        cells = [row["table"], row["group"], row["method"], number(row["reg"], digits), number(row["other"], digits), gap]
        lines.append(f"| {' | '.join([*cells, signed(row['relative'], 1), p_value(row['p']), p_value(row['p_tables'])])} |")
    return lines


if __name__ == "__main__":
    main()
