"""Runs on images: one network each."""

from dataclasses import dataclass
from typing import ClassVar

from regcls.methods import has_regression_loss
from regcls.params.types import Method
from regcls.runs.grids import SingleSpec, shared_fields
from regcls.tasks.images.params import Images, Targets


@dataclass(frozen=True, kw_only=True)
class ImageSpec(SingleSpec):
    """A run: one network trained on one data set of images."""

    task: ClassVar[str] = "images"
    size: int  # side length of the images in pixels
    exif: bool  # whether images are turned upright by their EXIF orientation
    bits: int = 16  # of the values in 16-bit images
    pad: int  # pixels added on each side before the random crop
    targets: Targets


def make_spec(images: Images, dataset: str, *, method: Method, classes: int, lam: float, balanced_data: bool, seed: int) -> ImageSpec:
    """A run with the training values of params.yaml. Fields that do not apply are blanked, so that equal runs have equal specs."""
    training = images.training
    return ImageSpec(
        **shared_fields(training, method=method, classes=classes, lam=lam, balanced_data=balanced_data, seed=seed),
        dataset=dataset,
        batch_size=training.batch_size,
        accumulate=training.accumulate,
        learning_rate=training.balanced_learning_rate if balanced_data else training.learning_rate,
        size=images.data.size,
        exif=images.data.exif,
        bits=images.data.bits or 16,
        pad=training.pad,
        targets=training.targets if has_regression_loss(method) else "raw",
    )
