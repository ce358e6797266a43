"""The runs on faces: one network each."""

from dataclasses import dataclass

from regcls.params.faces import Faces
from regcls.params.types import Method
from regcls.runs.images import ImageSpec, shared_fields


@dataclass(frozen=True, kw_only=True)
class FaceSpec(ImageSpec):
    """One tracked run: one network, trained on the images of one data set."""

    size: int  # pixels of a side of the images
    pad: int  # pixels on each side before the random crop
    many_above: int  # training images of an age, for the metrics
    few_below: int


def make_spec(faces: Faces, dataset: str, *, method: Method, classes: int, lam: float, balanced_data: bool, seed: int) -> FaceSpec:
    """A run with params.yaml's training values. What does not apply is blanked: equal runs are equal."""
    training = faces.training
    return FaceSpec(
        **shared_fields(training, method=method, classes=classes, lam=lam, balanced_data=balanced_data, seed=seed),
        dataset=dataset,
        batch_size=training.batch_size,
        accumulate=training.accumulate,
        learning_rate=training.balanced_learning_rate if balanced_data else training.learning_rate,
        size=faces.data.size,
        pad=training.pad,
        many_above=faces.shots.many_above,
        few_below=faces.shots.few_below,
    )
