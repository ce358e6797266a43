"""Errors of depth maps from their sums by bucket (sums.py), over all pixels and by shot group (section 3.2). Does not affect training."""

from collections.abc import Iterator, Mapping, Set
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from regcls.metrics import SHOTS
from regcls.tasks.depth.sums import BUCKETS, COLUMNS


def sums_of(table: pd.DataFrame) -> NDArray[np.float64]:
    """Sums (100, 8) over all images of a table with columns bucket and COLUMNS."""
    sums = np.zeros((BUCKETS, len(COLUMNS)))
    np.add.at(sums, table["bucket"].to_numpy(), table[list(COLUMNS)].to_numpy(np.float64))  # pandas' sums skip NaN
    return sums


def errors_of(sums: ArrayLike, shots: Mapping[Literal["many", "medium"], Set[int]]) -> Iterator[tuple[str, float]]:
    """Yield (name, value) of errors over all pixels and by shot group, from the sums (…, 100, 8) of bucket_sums.

    `shots`: the buckets of many and medium; the rest are few. Names: `rmse/all`, `mae/few` … (in the unit of depth), abs_rel, log10,
    delta1, delta2, delta3 (shares), and `n/all` … (pixels). An empty group yields only its n of 0.
    """
    array = np.asarray(sums, dtype=np.float64)
    by_bucket = array.reshape(-1, *array.shape[-2:]).sum(0)
    buckets = {"all": set(range(BUCKETS)), "many": shots["many"], "medium": shots["medium"]}
    buckets["few"] = buckets["all"] - buckets["many"] - buckets["medium"]
    for shot in SHOTS:
        n, squared, *rest = by_bucket[sorted(buckets[shot])].sum(0).tolist()
        if n:
            yield f"rmse/{shot}", (squared / n) ** 0.5
            for name, value in zip(("mae", "abs_rel", "log10", "delta1", "delta2", "delta3"), rest, strict=True):
                yield f"{name}/{shot}", value / n
        yield f"n/{shot}", n
