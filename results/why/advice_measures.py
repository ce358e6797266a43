"""Writes measures.csv, on the 1D study and ten tables: the imbalance of training targets, and L_extra (Eq. 9) of untrained networks.

Run in the project's root after `regcls prepare functions` and `regcls prepare` of the tables:
python results/why/advice_measures.py [folder of the prepared functions] [folder]
"""

import itertools
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch

from regcls.data.store import prepared_folder
from regcls.models.mlp import MLP, initial_weights
from regcls.params import load_params
from regcls.reports.report import to_csv
from regcls.tasks.functions.collected import data_name
from regcls.tasks.functions.data import FunctionSets
from regcls.tasks.functions.networks import FunctionNetworks
from regcls.tasks.functions.params import Functions, Sampling, Setting
from regcls.tasks.functions.runs import make_spec as function_spec
from regcls.tasks.table.data import TableSet
from regcls.tasks.table.networks import TableNetworks
from regcls.tasks.table.runs import make_spec as table_spec
from regcls.training.ensemble import Recipe
from regcls.training.ensemble_data import Network
from regcls.training.ensemble_networks import Member
from regcls.training.likelihoods import class_losses, shares

HERE = Path(__file__).parent
PARAMS = HERE.parents[1] / "params.yaml"
TABLES = ("a1", "a2", "a3", "a6", "a7", "Abalone", "Accel", "availPwr", "bank8FM", "boston")
FUNCTION_CLASSES, TABLE_CLASSES = 16, 10  # class counts that results/section2 and results/tables have
NOISE = 0.1  # σ of the noisy setting


def main(functions: str | Path = "", folder: str | Path = HERE) -> None:
    """Write measures.csv to `folder`: a row per unit (panel or table) and replicate (repetition or fold), means over functions or seeds."""
    sets = FunctionSets(Path(functions) if functions else prepared_folder(Path.cwd(), "functions"))
    rows = pd.DataFrame(itertools.chain(function_rows(sets), *(table_rows(name, Path.cwd()) for name in TABLES)))
    means = rows.groupby(["study", "unit", "replicate"], sort=False).mean()
    (Path(folder) / "measures.csv").write_text(to_csv(means.reset_index()), encoding="utf-8")


def function_rows(sets: FunctionSets) -> Iterator[dict[str, Any]]:
    """A row per network of the 12 panels with σ 0.1."""
    functions: Functions = load_params(PARAMS).datasets["functions"]
    networks = FunctionNetworks(sets, "functions")
    panels = itertools.product(get_args(Setting), get_args(Sampling), range(functions.data.repetitions))
    for setting, sampling, repetition in panels:
        of = {"setting": setting, "sampling": sampling, "noise": NOISE, "repetition": repetition}
        spec = function_spec(functions, "functions", method="reg+cls", classes=FUNCTION_CLASSES, lam=None, **of)
        unit = f"{data_name(setting, NOISE)}, {sampling}"
        for network in networks.networks([Member(spec=spec, part=part) for part in networks.parts]):
            yield {"study": "functions", "unit": unit, "replicate": repetition} | measured(network, networks.recipe(spec))


def table_rows(name: str, root: Path) -> Iterator[dict[str, Any]]:
    """A row per network of a table: each fold and seed."""
    dataset = name.lower()
    section = load_params(PARAMS).datasets[dataset]
    networks = TableNetworks(TableSet(prepared_folder(root, dataset)), dataset)
    for seed in section.training.seeds[: section.grids["main"].seeds]:
        spec = table_spec(section, dataset, method="reg+cls", classes=TABLE_CLASSES, lam=None, seed=seed)
        for fold, network in enumerate(networks.networks([Member(spec=spec, part=part) for part in networks.parts])):
            yield {"study": "tables", "unit": name, "replicate": fold} | measured(network, networks.recipe(spec))


def measured(network: Network, recipe: Recipe) -> dict[str, float]:
    """imbalance: log C − H(p̃), the KL divergence of the training classes from uniform ones; train_extra and test_extra: mean L_extra of the
    untrained network, in nats as well; test_seen: share of the test samples whose class training has, the only ones that count."""
    assert network.classes is not None
    model = MLP(len(network.x), recipe.hidden, network.outputs, activation=recipe.activation).double()
    model.load_state_dict(initial_weights(len(network.x), recipe.hidden, network.outputs, network.seed, recipe.initialisation))
    class_shares = shares(network.classes, network.y)
    row = {"imbalance": imbalance(class_shares)}
    for split, (x, y) in {"train": (network.x, network.y), "test": network.evaluate["test"]}.items():
        assert model.classifier is not None
        with torch.no_grad():
            logits = model.classifier(model.features(torch.from_numpy(x.T.astype(np.float64)))).T[None]
            labels = torch.from_numpy(network.classes.labels(y))[None, None]
            extra = class_losses(logits.contiguous(), labels, torch.from_numpy(class_shares)[None, None])[1]
        seen = torch.isfinite(extra)
        row[f"{split}_extra"] = float(extra[seen].mean())
    return row | {"test_seen": float(seen.double().mean())}


def imbalance(class_shares: np.ndarray) -> float:
    """log C − H(p̃) of shares (C,): 0 if all classes are equally frequent, log C if there is one alone."""
    present = class_shares[class_shares > 0]
    return math.log(len(class_shares)) + float((present * np.log(present)).sum())


if __name__ == "__main__":
    main(*sys.argv[1:])
