"""Makes the figures and tables of this folder from runs.csv.gz: Figures 3 to 5 and Table 1, with all their tests.

It needs neither the tracked runs nor the data: python results/section2/collect.py [runs.csv.gz] [folder]
"""

import sys
from pathlib import Path

import classes_tables
import lambda_tables
import numpy as np
import pandas as pd

from regcls.params import load_params
from regcls.reports.measured import Runs
from regcls.reports.report import to_csv
from regcls.reports.stats import CONSTANTS
from regcls.reports.tables import markdown
from regcls.tasks.functions import compared, figures, published, shares, tables
from regcls.tasks.functions.collected import CELL, ORDER, PANEL, Collected, hole_lines
from regcls.tasks.functions.params import Functions
from regcls.tasks.functions.runs import all_specs, expand

HERE = Path(__file__).parent
PARAMS = HERE.parents[1] / "params.yaml"


def main(runs: str | Path = HERE / "runs.csv.gz", folder: str | Path = HERE) -> None:
    """Write all figures and tables to `folder`."""
    grids = read(Path(runs))
    for name, text in (made(grids) | drawn(grids)).items():
        (Path(folder) / name).write_text(text, encoding="utf-8")
    holes = [f"{name}: {line}" for name, grid in grids.items() for line in hole_lines(grid.runs)]
    print("\n".join(holes or ["no run is missing"]))


def read(path: Path) -> dict[str, Collected]:
    """The grids of the published study, with the networks that the table `path` has."""
    functions: Functions = load_params(PARAMS).datasets["functions"]
    specs = all_specs(functions, "functions")
    rows = [{name: getattr(spec, name) for name in (*CELL, "repetition", "seed")} for spec in specs]
    wanted = pd.DataFrame(rows).astype({"lam": float}).rename_axis("spec").reset_index()
    networks = pd.read_csv(path).rename(columns={"lambda": "lam"}).merge(wanted, on=[*CELL, "repetition", "seed"])
    counts = networks.groupby("spec")["function"].nunique().reindex(wanted["spec"], fill_value=0)
    complete = (counts == len(functions.data.functions)).to_numpy()
    wanted["state"], wanted["run_id"] = np.where(complete, "finished", "missing"), ""
    wanted["weight"] = wanted["lam"].map(lambda lam: "" if np.isnan(lam) else f"{lam:g}")
    networks = networks[networks["spec"].isin(wanted.loc[complete, "spec"])]
    place = {spec: position for position, spec in enumerate(specs)}
    counted = Runs(wanted=wanted.drop(columns="spec"), values=pd.DataFrame(), axes=tuple(PANEL), order=ORDER, place=place)
    whole = Collected(runs=counted, networks=networks, constants=_constants(networks))
    return {name: whole.of(expand(functions, "functions", grid)) for name, grid in functions.grids.items()}


def _constants(networks: pd.DataFrame) -> pd.DataFrame:
    """See `Collected.constants`."""
    reg = networks[networks["method"] == "reg"]
    errors = reg.merge(pd.read_csv(HERE / "constants.csv"), on=[*PANEL, "repetition", "function"])
    return pd.concat([reg, *(errors.assign(method=name, test_mse=errors[name]) for name in CONSTANTS)], ignore_index=True)


def drawn(grids: dict[str, Collected]) -> dict[str, str]:
    """The figures."""
    three, four, five = (
        compared.cells(grids[name].networks, grids[name].wanted, metric)
        for name, metric in (("figure3", "test_mse"), ("figure4", "val_mse"), ("figure5", "test_mse"))
    )
    gaps = {name: compared.gaps(grids[name].networks, "test_mse") for name in ("figure3", "figure5")}
    return {
        "figure3.svg": figures.mse_by_classes(three, gaps=gaps["figure3"], published=published.released()),
        "figure4.svg": figures.mse_by_lambda(four),
        "figure5.svg": figures.mse_by_classes(five, gaps=gaps["figure5"]),
    }


def made(grids: dict[str, Collected]) -> dict[str, str]:
    """The tables: as CSV, and those for readers as Markdown."""
    three, four, five = grids["figure3"], grids["figure4"], grids["figure5"]
    of = {"name": "", "caption": "", "with_released": False}
    both = pd.concat([three.networks, five.networks]).drop_duplicates(["spec", "function"])
    for_readers = {
        "panels": tables.panels_table(three, with_released=True),
        "settings": tables.settings_table(three),
        "balanced": classes_tables.balanced_table(three.networks, "Figure 3"),
        "noise": classes_tables.balanced_table(five.networks, "Figure 5"),
        "noise_settings": tables.settings_table(five),
        "balanced_settings": classes_tables.balanced_settings_table(both),
        "class_counts": classes_tables.class_counts_table(both),
        "table1": shares.win_table(four, caption="Table 1: share (%) of networks with MSE(method) < MSE(reg).", with_published=True),
        "table1_balanced": classes_tables.sensitivity_table(four.networks),
        "table1_lambda": lambda_tables.shares_by_lambda_table(four.networks),
        "figure4_lambda": tables.lambda_table(four, caption="Figure 4 as numbers: validation MSE, mean over functions and repetitions."),
        "lambda": lambda_tables.lambda_means_table(four.networks),
        "best_lambda": lambda_tables.best_lambda_table(four.networks),
    }
    tests = compared.against_reg(four.networks, "val_mse").rename(columns={"n": "pairs"})
    cells = compared.cells(four.networks, four.wanted, "val_mse").merge(tests, on=CELL, how="left")
    points = {
        "figure3.csv": tables.methods_table(three, **{**of, "with_released": True}).frame,
        "figure4.csv": figures.points(cells, "val_mse", repeat_reg=False).drop(columns="panel"),
        "figure5.csv": tables.methods_table(five, **of).frame,
        "best_lambda_classes.csv": lambda_tables.best_lambdas(four.networks),
    }
    texts = {f"{name}.md": markdown(table) for name, table in for_readers.items()}
    frames = {f"{name}.csv": table.frame for name, table in for_readers.items()} | points
    return texts | {name: to_csv(frame) for name, frame in frames.items()}


if __name__ == "__main__":
    main(*sys.argv[1:])
