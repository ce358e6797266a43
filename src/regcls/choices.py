"""Choices that params.yaml offers and that code without params knows too. Nothing is imported here: reading params.yaml must be quick."""

from typing import Literal

Activation = Literal["relu", "sigmoid"]  # of hidden units
RegressionLoss = Literal["mae", "mse", "huber"]  # |e|, e² or Huber's, of each sample
Rounding = Literal["ceil", "floor", "round"]  # of the sum in Eq. 12, which makes balanced classes
