"""What a log sees of a long operation: pytest's stderr is no terminal."""

import pytest

from regcls import progress as module
from regcls.progress import progress, tracked


@pytest.fixture
def wait(monkeypatch):
    """Let seconds pass for the bar, and for nobody else."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)

    def pass_by(seconds):
        clock.now += seconds

    return pass_by


def test_a_line_now_and_then_says_how_far_and_how_long(wait, capsys):
    with progress(200, "training") as advance:
        for place in range(4):
            wait(8)
            advance(25, f"run {place}")
    assert capsys.readouterr().err.splitlines() == [
        "training: 25 % run 1 (16 s, about 48 s left)",
        "training: 50 % run 3 (32 s, about 32 s left)",
        "training: 50 % run 3 (32 s)",
    ]


@pytest.mark.parametrize("done", [0, 1, 3])
def test_what_has_hardly_begun_foretells_nothing(wait, capsys, done):
    with progress(200, "training") as advance:
        wait(20)
        advance(done)
        assert capsys.readouterr().err == f"training: {done / 2:.0f} %  (20 s)\n"


def test_nothing_to_do_is_all_done(wait, capsys):
    with progress(0, "reading"):
        pass
    assert capsys.readouterr().err == "reading: 100 %  (0 s)\n"


def test_tracked_items_are_all_there_and_counted(wait, capsys):
    assert list(tracked("abc", 3, "drawing")) == ["a", "b", "c"]
    assert capsys.readouterr().err == "drawing: 100 %  (0 s)\n"
