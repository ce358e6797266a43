"""Writes a run on a table as an MLflow model that takes the raw table and opens without this project."""

import json
import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from regcls.tasks.table.model import Column

IMPORT = "from regcls.tasks.table.model import predictions_of\n"  # of served.py, whose text follows that of model.py in the logged code
PACKAGES = ("mlflow", "numpy", "pandas", "safetensors")


def save(folder: Path, *, columns: Sequence[Column], weights: Mapping[str, np.ndarray], activation: str) -> None:
    """Write the MLflow model to the new folder `folder`. `weights`: by part, as in `model.predictions_of`."""
    import mlflow  # here: it takes seconds, and worker processes need none of this
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType
    from safetensors.numpy import save_file

    here = Path(__file__).parent
    with TemporaryDirectory() as aside:
        code, numbers, described = (Path(aside) / name for name in ("model.py", "weights.safetensors", "columns.json"))
        code.write_text((here / "model.py").read_text() + (here / "served.py").read_text().replace(IMPORT, ""), encoding="utf-8")
        save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, numbers)
        described.write_text(json.dumps({"columns": list(columns), "activation": activation}, default=list), encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow asks for an example of the input, which has people's data
            mlflow.pyfunc.save_model(
                str(folder),
                python_model=str(code),
                artifacts={"weights": str(numbers), "columns": str(described)},
                signature=ModelSignature(
                    inputs=Schema([ColSpec(AnyType(), column["name"]) for column in columns]), outputs=Schema([ColSpec("double")])
                ),
                pip_requirements=[f"{name}=={metadata.version(name)}" for name in PACKAGES],
            )
