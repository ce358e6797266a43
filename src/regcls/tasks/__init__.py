"""The tasks: kinds of problem, each with its own way from raw files to a trained network and a report. A folder and an entry of TASKS."""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regcls.params.types import TaskParams
    from regcls.tasks.task import Task

TASKS = ("functions", "images", "depth", "sequences", "table")


def task_params(task: str) -> "TaskParams":
    """The task's parameters and command-line options; imports in no time, for `--help`."""
    params: TaskParams = import_module(f"regcls.tasks.{task}.params").PARAMS
    return params


@cache
def task_named(task: str) -> "Task[Any, Any, Any]":
    """A task of TASKS. Imports its dependencies (PyTorch, albumentations) too, which takes seconds."""
    instance: Task[Any, Any, Any] = import_module(f"regcls.tasks.{task}.task").TASK
    return instance
