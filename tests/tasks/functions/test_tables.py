import math

from regcls.tasks.functions.tables import mean_std


def test_means_over_fewer_repetitions_say_so() -> None:
    row = {"mean": 0.2, "std": 0.1, "repetitions": 3, "repetitions_wanted": 5}
    assert mean_std(row) == "0.2000 ± 0.1000 (n = 3 of 5)"
    assert mean_std(row | {"repetitions": 5}) == "0.2000 ± 0.1000"
    assert mean_std(row | {"repetitions": 0, "mean": math.nan}) == "– (n = 0 of 5)"
