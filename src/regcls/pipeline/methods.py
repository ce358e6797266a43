"""The parts that methods are made of."""

from rich import box
from rich.console import Console
from rich.table import Table

from regcls.methods import KINDS, ROLES, Role
from regcls.tasks import TASKS, task_params

HEADINGS: dict[Role, str] = {
    "loss": "regression losses: one of them, reg if none is named",
    "distribution": "classes only: without a regression loss, and with no other part",
    "weights": "weights of samples: at most one",
    "features": "methods on features: any of them",
    "classes": "class losses beside the regression loss: at most one",
}


def show_methods() -> None:
    """Print the parts, what they do, their options, and the tasks that have what they need."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("part", "what it does", "options", *TASKS):
        table.add_column(heading, no_wrap=heading in ("part", *TASKS), justify="center" if heading in TASKS else "left")
    for role in ROLES:
        kinds = {name: kind for name, kind in KINDS.items() if kind.role == role}
        if kinds:
            table.add_row()
            table.add_row(role.upper() if role != "distribution" else "ALONE", HEADINGS[role])
        for name, kind in kinds.items():
            options = ", ".join(f"{key}={value:g}" for key, value in kind.options.items())
            does = kind.meaning + (f" ({kind.source})" if kind.source else "")
            marks = ["✓" if kind.needs in (None, *task_params(task).provides) else "–" for task in TASKS]
            table.add_row(name, does, options, *marks)
    console = Console(width=None if Console().is_terminal else 140, highlight=False)
    console.print(table)
    console.print(
        "Join parts by +, and give options in parentheses: reg+cls, lds+cls-bal, focal-r(beta=0.5)+cls. docs/methods.md says more."
    )
