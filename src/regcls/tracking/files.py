"""The files of a run in MLflow: checkpoints, predictions, and the model that others can open."""

import json
import os
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy.exc import SQLAlchemyError

from regcls.errors import MissingError, UserError
from regcls.files import explain_os_errors
from regcls.tracking.store import explanation

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for each file of each run

import mlflow
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import Schema, TensorSpec

MODEL = "model"  # name of the logged model


class RunFiles:
    """What lies beside a run's numbers."""

    def __init__(self, client: MlflowClient, uri: str) -> None:
        self._client, self._uri = client, uri

    def log(self, run_id: str, files: Mapping[str, Path]) -> None:
        """Store files: path in the run -> file here.

        Raises:
            UserError: the disk is full, or the store does not answer.
        """
        with tempfile.TemporaryDirectory() as folder, said_plainly(self._uri):
            for path, file in files.items():
                named = Path(folder) / Path(path).name  # MLflow keeps a file's own name
                named.symlink_to(file.absolute())
                with explain_os_errors(Path(path)):
                    self._client.log_artifact(run_id, str(named), str(Path(path).parent) if Path(path).parent.name else None)

    def log_json(self, run_id: str, path: str, content: Any) -> None:
        """Store a value as JSON. Raises as `log` does."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "content"
            file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            self.log(run_id, {path: file})

    def log_table(self, run_id: str, path: str, table: pd.DataFrame) -> None:
        """Store a table as parquet. Raises as `log` does."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "content"
            table.to_parquet(file, index=False)
            self.log(run_id, {path: file})

    def table(self, run_id: str, path: str) -> pd.DataFrame:
        """A table that `log_table` stored.

        Raises:
            MissingError: it is not there, or damaged.
            UserError: the store does not answer.
        """
        with tempfile.TemporaryDirectory() as folder:
            file = self.fetch(run_id, path, Path(folder))
            try:
                return pd.read_parquet(file)
            except Exception as error:  # a damaged file is read in every wrong way
                raise MissingError(f"{path} of run {run_id} is damaged. Delete that run in MLflow and train it again.") from error

    def fetch(self, run_id: str, path: str, folder: Path) -> Path:
        """Bring a file of a run into `folder`, and return where it lies.

        Raises:
            MissingError: the run does not have it.
            UserError: the store does not answer.
        """
        with said_plainly(self._uri):
            there = {file.path for file in self._client.list_artifacts(run_id, str(Path(path).parent) if Path(path).parent.name else None)}
            if path not in there:
                raise MissingError(f"run {run_id} has no file {path}: deleted, not finished, or a run of another kind")
            return Path(self._client.download_artifacts(run_id, path, str(folder)))

    def log_model(self, run_id: str, module: Any, *, example: NDArray[np.uint8], step: int) -> None:
        """Store a torch module (B, …) -> (B,) as an MLflow model with signature and input example, once a run.

        It is an exported program: to be loaded by `mlflow.pyfunc.load_model` or `mlflow models serve`, without this project.
        """
        with said_plainly(self._uri), warnings.catch_warnings(), explain_os_errors(Path(MODEL)):
            warnings.simplefilter("ignore")  # of PyTorch's export, about itself
            if self._has_model(run_id):  # stored before this process's run was interrupted
                return
            before = os.environ.get("MLFLOW_TRACKING_URI")
            mlflow.set_tracking_uri(self._uri)  # Model.log knows no client; this sets the environment variable as well
            try:
                Model.log(
                    artifact_path=None,
                    name=MODEL,
                    flavor=mlflow.pytorch,
                    run_id=run_id,
                    step=step,
                    pytorch_model=module,
                    input_example=example,
                    signature=ModelSignature(
                        inputs=Schema([TensorSpec(np.dtype(example.dtype), (-1, *example.shape[1:]))]),
                        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1,))]),
                    ),
                    pip_requirements=[f"{name}=={metadata.version(name)}" for name in ("torch", "numpy")],
                    serialization_format="pt2",
                )
            finally:
                mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None: neither is set, or the next Tracker would go there

    def _has_model(self, run_id: str) -> bool:
        """Whether a whole one is stored: MLflow lists it before its files are there."""
        outputs = self._client.get_run(run_id).outputs
        ids = [output.model_id for output in outputs.model_outputs] if outputs else []
        return any(self._client.get_logged_model(model_id).status == LoggedModelStatus.READY for model_id in ids)


@contextmanager
def said_plainly(uri: str) -> Iterator[None]:
    """Turn what goes wrong with the store, not with our use of it, into a UserError."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, ModuleNotFoundError) as error:
        if said := explanation(uri, error):
            raise UserError(said) from error
        raise
