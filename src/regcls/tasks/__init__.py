"""The tasks: kinds of problem, each with its own way from raw files to a trained network and a report. A folder each, and a line here."""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regcls.params.types import TaskParams
    from regcls.tasks.task import Task

TASKS = ("functions", "images", "depth", "sequences")


def task_params(task: str) -> "TaskParams":
    """What params.yaml and the command line may say to a task: quick to import, for `--help`."""
    params: TaskParams = import_module(f"regcls.tasks.{task}.params").PARAMS
    return params


@cache
def task_named(task: str) -> "Task[Any, Any, Any]":
    """A task of TASKS. What it needs (PyTorch, albumentations) is imported with it: seconds, which others do without."""
    found: Task[Any, Any, Any] = import_module(f"regcls.tasks.{task}.task").TASK
    return found
