"""Writes runs.csv.gz, a row per network, and constants.csv from the tracked runs of the published 1D study.

Run in the project's root after `dvc exp run -S 'datasets=[functions]'`: python results/section2/gather.py [data set] [folder]
"""

import gzip
import sys
from pathlib import Path

import pandas as pd

from regcls.params import load_params
from regcls.reports.report import to_csv
from regcls.tasks.functions.collected import PANEL, Collected, collected, in_order
from regcls.tasks.functions.report import NETWORK_COLUMNS
from regcls.tasks.functions.runs import all_specs
from regcls.tasks.functions.task import TASK
from regcls.tasks.task import open_data
from regcls.tracking.tracker import Tracker
from regcls.training import ensemble_study

HERE = Path(__file__).parent
COLUMNS = [name for name in NETWORK_COLUMNS if name != "run_id"]


def main(dataset: str = "functions", folder: str | Path = HERE) -> None:
    """Write the networks of all finished runs that the grids of `dataset` ask for."""
    root = Path.cwd()
    params = load_params(root / "params.yaml")
    sets = open_data(params, root, dataset, verify=False)
    runs = Tracker(root, experiment=params.tracking.experiment).collect(dataset, TASK.spec_type)
    wanted = ensemble_study.fingerprints(TASK.networks(sets, dataset), all_specs(params.datasets[dataset], dataset))
    write(collected(runs, wanted, dataset=dataset, sets=sets)[0], Path(folder))


def write(found: Collected, folder: Path) -> None:
    """Write the networks, and the errors of constants in their place, to `folder`; equal runs give equal bytes."""
    networks = in_order(found.networks).rename(columns={"lam": "lambda"})
    (folder / "runs.csv.gz").write_bytes(gzip.compress(to_csv(networks[COLUMNS]).encode(), mtime=0))
    constants = found.constants[found.constants["method"] != "reg"]
    table = constants.pivot_table(index=[*PANEL, "repetition", "function"], columns="method", values="test_mse").reset_index()
    (folder / "constants.csv").write_text(to_csv(in_order(pd.DataFrame(table))), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
