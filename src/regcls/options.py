"""Help texts for the options of `regcls run DATASET`."""

from regcls.methods import in_words
from regcls.tasks import task_params

PURPOSES = {  # defaults; a task may have its own
    "method": in_words(),
    "classes": "number of classes C",
    "lambda": "weight λ of the regression loss (Eq. 4)",
    "rounding": "of Eq. 12, which balances classes: ceil, round or floor",
    "epochs": "passes over the training data",
    "batch_size": "samples per batch",
    "optimizer": "adam or sgd",
    "learning_rate": "at the start",
    "weight_decay": "as L2 in the gradient",
    "precision": "of the computation",
}
PREDICTIONS = "predictions"  # folder for the files of `regcls predict`


def purpose_of(option: str, task: str) -> str:
    """The help text of an option."""
    purposes = task_params(task).purposes
    return purposes[option] if option in purposes else PURPOSES[option]
