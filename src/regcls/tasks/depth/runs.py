"""Runs on depth: one network each."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from regcls.params.types import Method
from regcls.runs.grids import SingleSpec, shared_fields, single_spec
from regcls.tasks.depth.params import Depth, DepthOptions, Resampling, Validation

OWN = ("weights", "align_corners", "depth_resampling", "clip_colours", "validation")  # options of depth only


@dataclass(frozen=True, kw_only=True)
class DepthSpec(SingleSpec):
    """A run: one network trained on one data set of images with depth maps."""

    task: ClassVar[str] = "depth"
    depth_scale: float  # depth of a step of predicted 16-bit maps
    deepest: float  # upper end of the buckets of depth; 0: the greatest training depth
    short_side: int  # of the images before cropping, in pixels
    crop: tuple[int, int]  # height and width of what the network sees, in pixels; depth is learned at half of that
    weights: str  # initial weights of the encoder: random, or the path or address of ImageNet weights
    align_corners: bool  # in the network's up-projections
    rotate: float  # maximum rotation to either side, in degrees
    lighting: float  # standard deviation of the PCA lighting
    jitter: float  # maximum relative change of brightness, contrast and saturation
    depth_resampling: Resampling  # of depth maps in training
    clip_colours: bool  # to 0 … 255 after colour augmentation
    validation: Validation  # choice and weighting of validation pixels

    def tags(self) -> dict[str, str]:
        """SingleSpec's tags and the initial weights."""
        return super().tags() | {"weights": self.weights}


def make_spec(depth: Depth, dataset: str, *, method: Method, classes: int, lam: float, balanced_data: bool, seed: int) -> DepthSpec:
    """A run with the training values of params.yaml. Fields that do not apply are blanked, so that equal runs have equal specs."""
    training = depth.training
    return DepthSpec(
        **shared_fields(training, method=method, classes=classes, lam=lam, balanced_data=balanced_data, seed=seed),
        dataset=dataset,
        batch_size=training.balanced_batch_size if balanced_data else training.batch_size,
        accumulate=training.balanced_accumulate if balanced_data else training.accumulate,
        learning_rate=training.learning_rate,
        depth_scale=depth.data.depth_scale,
        deepest=0.0 if depth.data.deepest == "data" else depth.data.deepest,
        short_side=depth.data.short_side,
        crop=depth.data.crop,
        weights=training.weights,
        align_corners=training.align_corners,
        rotate=training.rotate,
        lighting=training.lighting,
        jitter=training.jitter,
        depth_resampling=training.depth_resampling,
        clip_colours=training.clip_colours or not (training.lighting or training.jitter),
        validation=training.validation,
    )


def single_depth_spec(depth: Depth, dataset: str, options: DepthOptions) -> DepthSpec:
    """See `runs.grids.single_spec`."""
    own: dict[str, Any] = {name: value for name in OWN if (value := getattr(options, name)) is not None}
    return single_spec(make_spec, replace(depth, training=replace(depth.training, **own)), dataset, options)
