"""The MLflow model of a run on a table. MLflow stores this file with model.py above it, so that the model opens without this project."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel  # type: ignore[attr-defined]
from safetensors.numpy import load_file

from regcls.tasks.table.model import predictions_of


class TableModel(PythonModel):
    """The MLflow model of a run: a raw table in, a prediction for each row out."""

    def load_context(self, context: Any) -> None:
        """Read the run's numbers."""
        self.weights = load_file(context.artifacts["weights.safetensors"])
        self.description = json.loads(Path(context.artifacts["columns.json"]).read_text(encoding="utf-8"))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> np.ndarray:
        """Predictions (N,), in the target's unit."""
        return predictions_of(model_input, self.description["columns"], self.weights, self.description["activation"])


set_model(TableModel())
