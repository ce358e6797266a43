"""The runs on depth maps: one network each."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from regcls.params.types import Method
from regcls.runs.grids import SingleSpec, shared_fields, single_spec
from regcls.tasks.depth.params import Depth, DepthOptions, Resampling, Validation

OWN = ("weights", "align_corners", "depth_resampling", "clip_colours", "validation")  # options that faces do not have


@dataclass(frozen=True, kw_only=True)
class DepthSpec(SingleSpec):
    """One tracked run: one network, trained on the images of one data set."""

    task: ClassVar[str] = "depth"
    short_side: int  # pixels of the images before they are cut
    crop: tuple[int, int]  # height and width of what the network sees, in pixels; depth is learned at half of that
    weights: str  # that the encoder begins with: random, or where those of ImageNet are from
    align_corners: bool  # in the network's up-projections
    rotate: float  # degrees, to either side
    lighting: float  # standard deviation of the PCA lighting
    jitter: float  # brightness, contrast and saturation, up to this share
    depth_resampling: Resampling  # of depth maps in training
    clip_colours: bool  # to 0 … 255 after the change of colours
    validation: Validation  # which pixels are validated on, and what is averaged over them

    def tags(self) -> dict[str, str]:
        """With what the encoder begins with."""
        return super().tags() | {"weights": self.weights}


def make_spec(depth: Depth, dataset: str, *, method: Method, classes: int, lam: float, balanced_data: bool, seed: int) -> DepthSpec:
    """A run with params.yaml's training values. What does not apply is blanked: equal runs are equal."""
    training = depth.training
    return DepthSpec(
        **shared_fields(training, method=method, classes=classes, lam=lam, balanced_data=balanced_data, seed=seed),
        dataset=dataset,
        batch_size=training.balanced_batch_size if balanced_data else training.batch_size,
        accumulate=training.balanced_accumulate if balanced_data else training.accumulate,
        learning_rate=training.learning_rate,
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
    """See `images.single_spec`."""
    own: dict[str, Any] = {name: value for name in OWN if (value := getattr(options, name)) is not None}
    return single_spec(make_spec, replace(depth, training=replace(depth.training, **own)), dataset, options)
