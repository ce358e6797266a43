"""Methods by error, with verdicts after Holm's correction over them."""

import math
from dataclasses import replace

from regcls.reports.ranking import ranked
from regcls.reports.report import Compared, Line
from regcls.reports.stats import USELESS

COMPARED = Compared(reg=7.0, other=6.0, gap=1.0, low=0.1, high=1.9, answer="to be made")


def line(method: str, other: float, answer: str = "to be made") -> Line:
    overall = replace(COMPARED, other=other, gap=7.0 - other, answer=answer)
    return Line(measured="MSE", method=method, overall=overall, n="", digits=2)


def test_lines_are_sorted_by_error_and_judged_after_correction() -> None:
    lines = [line("a", 6.5), line("b", 8.0), line("c", 6.0), line("d", 6.9)]
    found = ranked(lines, p=[0.02, 0.001, 0.03, math.nan], n=[5, 5, 5, 1])
    assert [each.method for each in found] == ["c", "a", "d", "b"]
    # 0.001 · 3, 0.02 · 2, max(0.03, 0.04)
    assert {each.method: each.overall.answer for each in found} == {"a": "helps", "b": "hurts", "c": "helps", "d": "n = 1: not tested"}


def test_a_method_is_not_clear_if_only_its_own_p_is_small() -> None:
    found = ranked([line("a", 6.5), line("b", 6.4)], p=[0.03, 0.04], n=[5, 5])
    assert {each.overall.answer for each in found} == {"not clear"}


def test_without_a_useful_reg_there_is_no_verdict() -> None:
    found = ranked([line("a", 6.5, USELESS), line("b", 6.4, USELESS)], p=[0.001, 0.001], n=[5, 5])
    assert {each.overall.answer for each in found} == {USELESS}
