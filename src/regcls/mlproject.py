"""Makes a plain `mlflow run .` use the project's .venv.

For a project with a python_env, `mlflow run` builds a virtual environment with pyenv, unless its folder exists already. The folder's name
is a hash of python_env.yaml and the requirements; a link of that name to .venv needs neither pyenv nor a second installation. MLflow does
not document this, so its version is pinned and tests/test_mlproject.py runs it.
"""

import os
from pathlib import Path

from regcls import files
from regcls.errors import UserError

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow.environment_variables import MLFLOW_ENV_ROOT
from mlflow.exceptions import MlflowException
from mlflow.utils.environment import _PythonEnv
from mlflow.utils.virtualenv import _get_virtualenv_name


def register_environment(root: Path, venv: Path) -> Path:
    """Link `$MLFLOW_ENV_ROOT` (or ~/.mlflow/envs)/<hash> to `venv` for the project in `root`, and return the link.

    Raises:
        UserError: `venv` is not a virtual environment, python_env.yaml or the requirements cannot be read, or MLflow has built an
            environment in place of the link.
    """
    venv = venv.absolute()
    if not (venv / "bin" / "activate").is_file():
        raise UserError(f"{venv} is not a virtual environment. Create it with: python3.11 -m venv {venv}")
    link = environment_link(root)
    if link.is_symlink() and link.resolve() == venv.resolve():
        return link
    if link.exists() and not link.is_symlink():
        raise UserError(f"{link} is not a link: MLflow has built an environment there. Remove it to use {venv} for `mlflow run`.")
    files.write_atomically(link, lambda aside: aside.symlink_to(venv, target_is_directory=True))
    return link


def environment_link(root: Path) -> Path:
    """Where `mlflow run` looks for the environment of the project in `root`.

    Raises:
        UserError: python_env.yaml or the requirements cannot be read.
    """
    return Path(MLFLOW_ENV_ROOT.get()).expanduser().absolute() / _environment_name(root)


def _environment_name(root: Path) -> str:
    try:
        return str(_get_virtualenv_name(_PythonEnv.from_yaml(root / "python_env.yaml"), root))
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} does not exist. Restore it with: git checkout {Path(error.filename).name}") from None
    except MlflowException as error:
        raise UserError(f"{root / 'python_env.yaml'}: {error}") from error
