"""What a depth network leaves behind: sums of errors by image and bucket of depth. Any table and any shot limits follow from them.

Legend: B images, H × W pixels. Bucket k of 100 holds depths from k / 10 to (k + 1) / 10 metres, the last one all deeper ones too.
"""

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from torch import Tensor

BUCKETS = 100  # of 0.1 m
COLUMNS = ("n", "squared", "absolute", "relative", "log10", "delta1", "delta2", "delta3")
NEAREST = 1e-3  # metres: a prediction below has no logarithm or ratio that means anything, and is raised to it there
DELTA = 1.25  # δ_k: share of pixels whose prediction and truth differ by a factor below 1.25^k (Eigen et al., NeurIPS 2014)


def bucket_sums(
    predictions: Float[Tensor, "B H W"], targets: Float[Tensor, "B H W"], mask: Bool[Tensor, "B H W"]
) -> Float[Tensor, "B 100 8"]:
    """Sums over the pixels of `mask`, in metres and float64, on the device: COLUMNS by image and bucket of the target.

    Targets in the mask must be above 0. Columns: pixels, e², |e|, |e| / target, |log10 prediction − log10 target|, and the pixels that
    δ1, δ2 and δ3 count. In the last four a prediction below 1 mm counts as 1 mm, as is usual in depth estimation; the benchmark's own
    code has no such limit, and no number for log10 where one is below 0. One that is not a number shows in its bucket alone.
    """
    images = mask.nonzero()[:, 0]
    predicted, wanted = predictions[mask].double(), targets[mask].double()
    buckets = (targets[mask].float() * 10).long().clamp(max=BUCKETS - 1)  # in float32 as the benchmark: 0.7 m is in bucket 7
    error, above = (predicted - wanted).abs(), predicted.clamp(min=NEAREST)
    ratio = torch.maximum(above / wanted, wanted / above)
    columns = [torch.ones_like(error), error.square(), error, error / wanted, (above.log10() - wanted.log10()).abs()]
    columns += [(ratio < DELTA**power).double() for power in (1, 2, 3)]
    sums = torch.zeros(len(mask) * BUCKETS, len(COLUMNS), dtype=torch.float64, device=mask.device)
    # In a fixed order on the CPU and on a GPU, where it sorts; bincount and index_add would add there in any order, to other last digits.
    sums.index_put_((images * BUCKETS + buckets,), torch.stack(columns, 1), accumulate=True)
    return sums.view(len(mask), BUCKETS, len(COLUMNS))


def table_of(sums: ArrayLike) -> pd.DataFrame:
    """(B, 100, 8) sums as a table with columns image, bucket and COLUMNS, without buckets that have no pixels."""
    array = np.asarray(sums)
    image, bucket = np.nonzero(array[..., 0])
    return pd.DataFrame({"image": image, "bucket": bucket} | dict(zip(COLUMNS, array[image, bucket].T, strict=True)))


def rmse(sums: ArrayLike) -> float:
    """Metres, over all pixels. From sums (…, 100, 8)."""
    n, squared = np.asarray(sums, dtype=np.float64).reshape(-1, BUCKETS, len(COLUMNS)).sum(0).sum(0)[:2]
    return float((squared / n) ** 0.5)


def rmse_by_image(sums: ArrayLike) -> float:
    """Metres: the root of the mean, over the images that have pixels, of their mean squared error. From sums (B, 100, 8)."""
    n, squared = np.asarray(sums, dtype=np.float64)[..., :2].sum(1).T
    return float(np.sqrt(np.mean(squared[n > 0] / n[n > 0])))
