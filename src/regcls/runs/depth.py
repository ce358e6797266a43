"""The runs on depth maps: one network each."""

from dataclasses import dataclass, replace

from regcls.params.depth import Depth, DepthOptions
from regcls.params.types import Method
from regcls.runs.images import ImageSpec, shared_fields, single_spec


@dataclass(frozen=True, kw_only=True)
class DepthSpec(ImageSpec):
    """One tracked run: one network, trained on the images of one data set."""

    short_side: int  # pixels of the images before they are cut
    crop: tuple[int, int]  # height and width of what the network sees, in pixels; depth is learned at half of that
    weights: str  # that the encoder begins with: random, or where those of ImageNet are from
    rotate: float  # degrees, to either side
    lighting: float  # standard deviation of the PCA lighting
    jitter: float  # brightness, contrast and saturation, up to this share

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
        rotate=training.rotate,
        lighting=training.lighting,
        jitter=training.jitter,
    )


def single_depth_spec(depth: Depth, dataset: str, options: DepthOptions) -> DepthSpec:
    """See `images.single_spec`."""
    spec = single_spec(make_spec, depth, dataset, options)
    return replace(spec, weights=options.weights) if options.weights else spec
