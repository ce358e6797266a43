"""Values of params.yaml that code without params uses too. Imports nothing else: reading params.yaml must be fast."""

from typing import Literal

Activation = Literal["relu", "sigmoid"]  # of hidden units
RegressionLoss = Literal["mae", "mse", "huber"]  # |e|, e² or Huber's, for each sample
Rounding = Literal["ceil", "floor", "round"]  # of the sum in Eq. 12, for balanced classes
