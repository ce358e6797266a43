"""What a process that trains tells the main process, and whether that has asked it to stop. Each kind of process sets it up."""

from collections.abc import Callable

report: Callable[..., None]  # an event
asked_to_stop: Callable[[], bool]
say: Callable[[str], None]


def set_up(*, reports: Callable[..., None], asks: Callable[[], bool], says: Callable[[str], None]) -> None:
    """Set `report`, `asked_to_stop` and `say` of this process."""
    global report, asked_to_stop, say
    report, asked_to_stop, say = reports, asks, says
