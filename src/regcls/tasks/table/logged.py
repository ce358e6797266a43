"""A run on a table as an MLflow model that takes the raw table and opens without this project."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from regcls.runs import CodeModel
from regcls.tasks.table.model import Column

IMPORT = "from regcls.tasks.table.model import predictions_of\n"  # of served.py, whose text follows that of model.py in the logged code


def code_model(columns: Sequence[Column], weights: Mapping[str, np.ndarray], activation: str) -> CodeModel:
    """The model of a run. `weights`: by part, as in `model.predictions_of`."""
    here = Path(__file__).parent
    return CodeModel(
        code=(here / "model.py").read_text(encoding="utf-8") + (here / "served.py").read_text(encoding="utf-8").replace(IMPORT, ""),
        files={
            "weights.safetensors": save({name: np.ascontiguousarray(value) for name, value in weights.items()}),
            "columns.json": json.dumps({"columns": list(columns), "activation": activation}, default=list).encode(),
        },
        columns=[str(column["name"]) for column in columns],
        packages=("mlflow", "numpy", "pandas", "safetensors"),
    )
