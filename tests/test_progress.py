"""Progress of a long operation in a log: pytest's stderr is no terminal."""

import pytest

from regcls import progress as module
from regcls.progress import progress, tracked


@pytest.fixture
def wait(monkeypatch):
    """Let seconds pass for the progress bar only."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)

    def pass_by(seconds):
        clock.now += seconds

    return pass_by


def test_occasional_lines_report_progress_and_remaining_time(wait, capsys):
    with progress(200, "training") as advance:
        for index in range(4):
            wait(8)
            advance(25, f"run {index}")
    assert capsys.readouterr().err.splitlines() == [
        "training: 25 % run 1 (16 s, about 48 s left)",
        "training: 50 % run 3 (32 s, about 32 s left)",
        "training: 50 % run 3 (32 s)",
    ]


@pytest.mark.parametrize("done", [0, 1, 3])
def test_no_remaining_time_is_estimated_at_the_start(wait, capsys, done):
    with progress(200, "training") as advance:
        wait(20)
        advance(done)
        assert capsys.readouterr().err == f"training: {done / 2:.0f} %  (20 s)\n"


def test_an_empty_task_is_complete(wait, capsys):
    with progress(0, "reading"):
        pass
    assert capsys.readouterr().err == "reading: 100 %  (0 s)\n"


def test_tracked_items_are_complete_and_counted(wait, capsys):
    assert list(tracked("abc", 3, "drawing")) == ["a", "b", "c"]
    assert capsys.readouterr().err == "drawing: 100 %  (0 s)\n"
