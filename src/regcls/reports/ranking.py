"""All methods of a data set against reg, for the start page."""

from collections.abc import Sequence
from dataclasses import replace

from regcls.reports.report import Line
from regcls.reports.stats import USELESS, holm, verdict


def ranked(lines: Sequence[Line], *, p: Sequence[float], n: Sequence[int]) -> list[Line]:
    """Lines of the methods on one data set, or one part of it, by error, the lowest first.

    Verdicts are made after Holm's correction over these methods, from `p` and the numbers of trained replicates, `n`.
    """
    answers = [verdict(line.overall.gap, own, count) for line, own, count in zip(lines, holm(p).tolist(), n, strict=True)]
    judged = [
        line if line.overall.answer == USELESS else replace(line, overall=replace(line.overall, answer=answer))
        for line, answer in zip(lines, answers, strict=True)
    ]
    return sorted(judged, key=lambda line: line.overall.other)
