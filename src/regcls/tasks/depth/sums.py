"""The test results of a depth network: sums of errors by image and bucket of depth, from which errors for any shot groups follow.

Legend: B images, H × W pixels. Bucket k of 100 has depths from k to k + 1 hundredths of the deepest, 10 m for NYUD2-DIR; the last one has
all greater depths too.
"""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from torch import Tensor

BUCKETS = 100
COLUMNS = ("n", "squared", "absolute", "relative", "log10", "delta1", "delta2", "delta3")
NEAREST = 1e-3  # lower limit of predictions for logarithms and ratios, which are meaningless below: 1 mm, as is usual in depth estimation
DELTA = 1.25  # δ_k: share of pixels whose prediction and truth differ by a factor below 1.25^k (Eigen et al., NeurIPS 2014)


def bucket_sums(
    predictions: Float[Tensor, "B H W"],
    targets: Float[Tensor, "B H W"],
    mask: Bool[Tensor, "B H W"],
    *,
    deepest: float = 10.0,
    nearest: float = NEAREST,
) -> Float[Tensor, "B 100 8"]:
    """COLUMNS summed over the pixels of `mask`, by image and bucket of the target, in the unit of depth and float64, on the device.

    Targets in the mask must be above 0. Columns: number of pixels, e², |e|, |e| / target, |log10 prediction − log10 target|, and the
    numbers of pixels within δ1, δ2 and δ3. In the last four, predictions are at least `nearest`; the benchmark's code has no such limit,
    and gives NaN for log10 of negative predictions. A NaN prediction affects its bucket only. `deepest`: upper end of the buckets.
    """
    images = mask.nonzero()[:, 0]
    predicted, wanted = predictions[mask].double(), targets[mask].double()
    buckets = (targets[mask].float() * (BUCKETS / deepest)).long().clamp(max=BUCKETS - 1)  # as data.buckets_of
    error, above = (predicted - wanted).abs(), predicted.clamp(min=nearest)
    ratio = torch.maximum(above / wanted, wanted / above)
    columns = [torch.ones_like(error), error.square(), error, error / wanted, (above.log10() - wanted.log10()).abs()]
    columns += [(ratio < DELTA**power).double() for power in (1, 2, 3)]
    sums = torch.zeros(len(mask) * BUCKETS, len(COLUMNS), dtype=torch.float64, device=mask.device)
    # Adds in a fixed order, also on a GPU, where it sorts first; there, bincount and index_add have a random order and varying last digits.
    sums.index_put_((images * BUCKETS + buckets,), torch.stack(columns, 1), accumulate=True)
    return sums.view(len(mask), BUCKETS, len(COLUMNS))


def table_of(sums: ArrayLike) -> pd.DataFrame:
    """Sums (B, 100, 8) as a table with columns image, bucket and COLUMNS, without empty buckets."""
    array = np.asarray(sums)
    image, bucket = np.nonzero(array[..., 0])
    return pd.DataFrame({"image": image, "bucket": bucket} | dict(zip(COLUMNS, array[image, bucket].T, strict=True)))


def rmse(sums: ArrayLike) -> float:
    """RMSE over all pixels, from sums (…, 100, 8)."""
    n, squared = np.asarray(sums, dtype=np.float64).reshape(-1, BUCKETS, len(COLUMNS)).sum(0).sum(0)[:2]
    return float((squared / n) ** 0.5)


def rmse_by_image(sums: ArrayLike) -> float:
    """RMSE from sums (B, 100, 8): root of the mean over images, except empty ones, of their mean squared errors."""
    n, squared = np.asarray(sums, dtype=np.float64)[..., :2].sum(1).T
    return float(np.sqrt(np.mean(squared[n > 0] / n[n > 0])))
