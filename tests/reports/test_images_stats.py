import math

import pytest

from regcls.reports import images_stats


@pytest.mark.parametrize(
    ("gap", "p", "p_seeds", "said"),
    [
        (1.0, 0.01, 0.01, "helps"),
        (-1.0, 0.01, 0.01, "hurts"),
        (1.0, 0.01, 0.2, "helps as trained"),
        (-1.0, 0.01, math.nan, "hurts as trained"),
        (1.0, 0.2, 0.01, "helps on these images"),
        (1.0, 0.2, math.nan, "not clear"),
        (1.0, math.nan, math.nan, "not tested"),
        (math.nan, math.nan, math.nan, "no runs"),
    ],
)
def test_the_answer_says_no_more_than_the_tests(gap: float, p: float, p_seeds: float, said: str) -> None:
    assert images_stats.answer({"gap": gap, "images": 5, "p_holm": p, "p_holm_seeds": p_seeds}) == said
