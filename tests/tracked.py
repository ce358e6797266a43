"""A run to track and its results, for tests in this process and in others."""

import math
from dataclasses import replace

import numpy as np

from regcls.runs import RunResult
from regcls.tasks.functions.runs import FunctionSpec

SPEC = FunctionSpec(
    dataset="functions",
    setting="noisy",
    sampling="severe",
    noise=0.1,
    method="reg+cls",
    classes=64,
    lam=1000.0,
    rounding=None,
    repetition=1,
    data_seed=9845,
    seed=421,
    hidden=(6, 15),
    epochs=3,
    batch_size=256,
    optimizer="adam",
    learning_rate=0.01,
    weight_decay=0.001,
    precision="float32",
)
REG = replace(SPEC, method="reg", classes=0, lam=None)
RESULT = RunResult(
    metrics={
        "train/mse/all": 1.0,
        "test/mse/all": 2.5,
        "test/mse/function_0": math.nan,
        "test/mse/function_10": 0.5,
        "test/mse/function_2": math.inf,
    },
    history={"train/mse/all": [3.0, 2.0, 1.0], "val/mse/all": [3.5, 2.5, 1.5]},
    weights={"0.weight": np.arange(60, dtype=np.float32).reshape(10, 6, 1)},
    started=1_700_000_000.0,
    ended=1_700_000_003.0,
)
TAGS = {"git_commit": "a1b2c3", "data_digest": "0123456789abcdef"}
