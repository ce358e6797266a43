"""The files of a run in MLflow: checkpoints, predictions, and the logged model."""

import copy
import os
import re
import shutil
import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import requests
from numpy.typing import NDArray
from sqlalchemy.exc import SQLAlchemyError

from regcls.errors import DamagedError, MissingError, UserError
from regcls.files import explain_os_errors, link_or_copy, no_space, temporary_folder
from regcls.runs import CodeModel
from regcls.tracking.store import explanation

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # it would show a bar for each file of each run

from mlflow.entities import FileInfo, LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.store.db import utils as database_utils
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import AnyType

T = TypeVar("T")

MODEL = "model"  # name of the logged model
SLOWEST = 1_000_000  # bytes per second, of an upload that must not time out
STATE = "resume"  # artifact folder with the state from which another machine resumes a run

# Before opening an SQLite file, MLflow creates the folder in its URI without decoding it: `my%20project` beside `my project`.
database_utils._make_parent_dirs_if_sqlite = lambda db_uri: None


class RunFiles:
    """The artifacts and logged models of runs."""

    def __init__(self, client: MlflowClient, uri: str) -> None:
        self._client, self._uri = client, uri

    def log(self, run_id: str, files: Mapping[str, Path]) -> None:
        """Store files: artifact path -> local file.

        Raises:
            UserError: the disk of the store is full or not writable.
        """
        with temporary_folder() as folder:
            for path, file in files.items():
                link = folder / Path(path).name  # MLflow keeps the name of the file
                link.symlink_to(file.absolute())
                with explain_os_errors(Path(path)), _patience(file.stat().st_size):
                    self._client.log_artifact(run_id, str(link), _parent(path))

    def log_bytes(self, run_id: str, path: str, content: bytes) -> None:
        """Store a file with this content. Raises as `log` does."""
        with temporary_folder() as folder:
            (folder / "content").write_bytes(content)
            self.log(run_id, {path: folder / "content"})

    def delete(self, run_id: str, path: str) -> None:
        """Remove an artifact folder, if there is one. It stays if the store does not allow removal (only to the experiment's creator)."""
        try:
            if self._has(run_id, path):
                self._client._tracking_client._get_artifact_repo(run_id).delete_artifacts(path)
        except (NotImplementedError, FileNotFoundError):
            pass
        except (MlflowException, requests.HTTPError) as error:
            if not re.search("403|PERMISSION_DENIED|Permission denied", str(error)):
                raise

    def table(self, run_id: str, path: str) -> pd.DataFrame:
        """A table that `log_table` stored.

        Raises:
            MissingError: it is missing or, as a DamagedError, damaged.
            UserError: the store does not answer.
        """
        return self._read(run_id, path, pd.read_parquet)

    def arrays(self, run_id: str, path: str) -> dict[str, np.ndarray]:
        """The arrays of an .npz file of a run. Raises as `table` does."""

        def read(file: Path) -> dict[str, np.ndarray]:
            with np.load(file) as content:
                return dict(content)

        return self._read(run_id, path, read)

    def _read(self, run_id: str, path: str, read: Callable[[Path], T]) -> T:
        with temporary_folder() as folder:
            file = self.fetch(run_id, path, folder)
            try:
                return read(file)
            except Exception as error:  # a damaged file can raise anything
                raise DamagedError(f"{path} of run {run_id} is damaged. Delete that run in MLflow and train it again.") from error

    def fetch(self, run_id: str, path: str, folder: Path) -> Path:
        """Download a file of a run into `folder`; return its local path.

        Raises:
            MissingError: the run does not have it.
            UserError: the store does not answer.
        """
        with explain_store_errors(self._uri):
            if (file := self._entry(run_id, path)) is None:
                raise MissingError(f"run {run_id} has no file {path}: deleted, not finished, or a run of another kind")
            folder.mkdir(parents=True, exist_ok=True)
            if (file.file_size or 0) > shutil.disk_usage(folder).free:  # MLflow would not say why it fails
                raise UserError(no_space(folder))
            return Path(self._client.download_artifacts(run_id, path, str(folder)))

    def sizes(self, run_id: str) -> dict[str, int]:
        """Artifact path -> bytes, of all files of a run.

        Raises:
            UserError: the store does not answer.
        """
        sizes, folders = dict[str, int](), list[str | None]([None])
        with explain_store_errors(self._uri):
            while folders:
                for file in self._client.list_artifacts(run_id, folders.pop()):
                    if file.is_dir:
                        folders.append(file.path)
                    else:
                        sizes[file.path] = file.file_size or 0
        return dict(sorted(sizes.items()))

    def fetch_folder(self, run_id: str, path: str, folder: Path) -> Path | None:
        """Download an artifact folder of a run into `folder`; return its local path, None if the run does not have it.

        Raises:
            UserError: the store does not answer.
        """
        with explain_store_errors(self._uri):
            if not self._has(run_id, path):
                return None
            return Path(self._client.download_artifacts(run_id, path, str(folder)))

    def log_model(self, run_id: str, files: Mapping[str, Path], *, points: Sequence[tuple[str, float, int, int]], step: int) -> None:
        """Store the files of `save_model` as a logged model of MLflow, once per run, with `points` as its metrics."""
        run = self._client.get_run(run_id)
        models = self._models(run)
        if any(model.status == LoggedModelStatus.READY for model in models):  # stored before an interruption
            return
        model = next((model for model in models if model.name == MODEL), None)  # created before an interruption, perhaps without files
        if model is None:
            params = dict(run.data.params)
            model = self._client.create_logged_model(run.info.experiment_id, name=MODEL, source_run_id=run_id, params=params)
            self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
        with temporary_folder() as folder:
            for path, file in files.items():
                link_or_copy(file, folder / path)
            mlmodel = Model.load(str(folder))
            mlmodel.model_uuid = mlmodel.model_id = model.model_id
            mlmodel.run_id, mlmodel.artifact_path = run_id, model.artifact_location
            (folder / MLMODEL_FILE_NAME).unlink()
            mlmodel.save(str(folder / MLMODEL_FILE_NAME))
            with explain_os_errors(Path(MODEL)), _patience(sum(file.stat().st_size for file in files.values())):
                self._client.log_model_artifacts(model.model_id, str(folder))
        metrics = [Metric(name, value, at, step, model_id=model.model_id, run_id=run_id) for name, value, step, at in points]
        self._client.log_batch(run_id, metrics=metrics)
        self._client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)

    def _has(self, run_id: str, path: str) -> bool:
        return self._entry(run_id, path) is not None

    def _entry(self, run_id: str, path: str) -> FileInfo | None:
        return next((file for file in self._client.list_artifacts(run_id, _parent(path)) if file.path == path), None)

    def _models(self, run: Run) -> list[LoggedModel]:
        outputs = run.outputs.model_outputs if run.outputs else []
        return [self._client.get_logged_model(output.model_id) for output in outputs]


def _parent(path: str) -> str | None:
    """The folder of an artifact path; None for the root."""
    return str(Path(path).parent) if Path(path).parent.name else None


@contextmanager
def _patience(size: int) -> Iterator[None]:
    """Extend the request timeout for a file of `size` bytes: the server answers only after passing it on to its own store."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    usual = os.environ.get(name, "15")
    os.environ[name] = str(int(usual) + size // SLOWEST)
    try:
        yield
    finally:
        os.environ[name] = usual


def save_model(module: Any, folder: Path, *, example: NDArray[np.uint8]) -> None:
    """Write a torch module (B, …) -> (B, …) into a new folder as an MLflow model with signature and input example.

    Saved as an exported program: `mlflow.pyfunc.load_model` and `mlflow models serve` load it without this project.
    """
    import mlflow.pytorch  # here: reading runs must not wait for it, nor for torch
    import torch

    with torch.inference_mode():
        shape = module(torch.from_numpy(example)).shape
    with warnings.catch_warnings(), _traced_once(f"{module} {example.shape}"):
        warnings.simplefilter("ignore")  # PyTorch's export warns about itself
        mlflow.pytorch.save_model(
            module,
            str(folder),
            input_example=example,
            signature=ModelSignature(
                inputs=Schema([TensorSpec(np.dtype(example.dtype), (-1, *example.shape[1:]))]),
                outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *shape[1:]))]),
            ),
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in ("torch", "numpy")],
            serialization_format="pt2",
        )
    for cache in folder.rglob("__pycache__"):
        shutil.rmtree(cache, ignore_errors=True)


def save_code_model(model: CodeModel, folder: Path) -> None:
    """Write a CodeModel into a new folder as an MLflow model."""
    with temporary_folder() as aside, warnings.catch_warnings(), explain_os_errors(folder):
        warnings.simplefilter("ignore")  # MLflow asks for an example of the input, which would be a user's data
        import mlflow.pyfunc  # here: it takes a second, and warns of itself

        code, paths = aside / "model.py", {name: aside / name for name in model.files}
        code.write_text(model.code, encoding="utf-8")
        for name, path in paths.items():
            path.write_bytes(model.files[name])
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(code),
            artifacts={name: str(path) for name, path in paths.items()},
            signature=ModelSignature(
                inputs=Schema([ColSpec(AnyType(), name) for name in model.columns]), outputs=Schema([ColSpec(DataType.double)])
            ),
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in model.packages],
        )


_programs: dict[str, Any] = {}  # the last traced architecture -> its exported program


@contextmanager
def _traced_once(architecture: str) -> Iterator[None]:
    """Trace each architecture only once: PyTorch takes seconds for it, and the program is the same for all weights."""
    import torch

    export = torch.export.export

    def export_once(module: Any, *arguments: Any, **options: Any) -> Any:
        if architecture not in _programs:
            _programs.clear()
            _programs[architecture] = export(copy.deepcopy(module), *arguments, **options)
        program, weights = _programs[architecture], module.state_dict()
        with torch.no_grad():
            for name, value in program.state_dict.items():
                value.copy_(weights[name])
        return program

    torch.export.export = export_once  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.export.export = export


@contextmanager
def explain_store_errors(uri: str) -> Iterator[None]:
    """Turn errors of the store, not of our use of it, into UserErrors."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, ModuleNotFoundError) as error:
        if message := explanation(uri, error):
            raise UserError(message) from error
        raise
