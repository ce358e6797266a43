import math

import pandas as pd

from regcls.reports.published import by_shot


def test_published_errors_by_group_have_integer_class_counts_and_flags() -> None:
    printed = {"method": ["reg", "reg+cls"], "classes": [math.nan, 100.0], "metric": "mae", "shot": "few", "value": [2.0, 1.0]}
    table = by_shot(pd.DataFrame(printed | {"std": [math.nan, 0.1], "uncertain": [0, 1], "page": 7}))
    assert list(table) == ["method", "classes", "metric", "shot", "value", "std", "uncertain"]
    assert table["classes"].tolist() == [0, 100] and table["uncertain"].tolist() == [False, True]
    assert table["value"].tolist() == [2.0, 1.0] and math.isnan(table["std"][0])
