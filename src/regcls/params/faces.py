"""The sections `imdb_wiki` and `agedb` of params.yaml: age from faces (paper, section 3.2), and images with a target at large."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from regcls.errors import UserError
from regcls.params.images import (
    Backbone,
    Finite,
    ImageGrid,
    ImagePrecision,
    RegressionLoss,
    Scaling,
    check_image_grids,
    growing,
    nearest_lambda,
)
from regcls.params.types import FROM_TEXT, STRICT, Classes, Count, Method, NotNegative, OneOrMore, Optimizer, Positive, Seed, Share


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """Generated portraits in the archives' own layout, for where the archives are not."""

    images: Annotated[int, Field(ge=200)]  # fewer leave no age with three groups of images
    seed: Seed
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class FaceData:
    """What `prepare` reads, and how it splits and stores it."""

    source: Literal["raw", "stand-in"]
    archives: tuple[Annotated[str, Field(min_length=1)], ...]
    size: Annotated[int, Field(ge=32)]
    min_face_score: Finite
    split_seed: Seed
    split_most: Count
    expected_images: Count | None
    stand_in: StandIn
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class FaceTraining:
    """How each network is trained."""

    model: Backbone
    width: Count
    class_range: Annotated[tuple[Finite, Finite], AfterValidator(growing)]
    loss: RegressionLoss
    huber_delta: Positive
    loss_scaling: Scaling
    lam: Annotated[dict[Classes, Positive], Field(alias="lambda", min_length=1)]
    optimizer: Optimizer
    learning_rate: Positive
    balanced_learning_rate: Positive
    weight_decay: NotNegative
    epochs: Count
    milestones: Annotated[tuple[Count, ...], AfterValidator(growing)]
    decay: Annotated[float, Field(gt=0, le=1)]
    batch_size: Annotated[int, Field(ge=2)]  # batch norm cannot take a single image
    accumulate: Count
    precision: ImagePrecision
    pad: Annotated[int, Field(ge=0)]
    flip: Share
    balanced_bins: Classes
    seeds: OneOrMore[Seed]
    __pydantic_config__ = STRICT

    def lam_for(self, classes: int) -> float:
        """λ of C classes: the one listed, or that of the listed count nearest in ratio (the smaller of two as near)."""
        return nearest_lambda(self.lam, classes)


@dataclass(frozen=True, kw_only=True)
class ShotLimits:
    """Many, medium and few: by the number of training images of an integer target."""

    many_above: Annotated[int, Field(ge=0)]
    few_below: Annotated[int, Field(ge=0)]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class FaceRun:
    """The run that `regcls run imdb_wiki` trains where no option says otherwise."""

    method: Method
    classes: Classes
    balanced_data: bool
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class Faces:
    """A data set of images, each with one number to predict."""

    data: FaceData
    training: FaceTraining
    shots: ShotLimits
    run: FaceRun
    grids: Annotated[dict[str, ImageGrid], Field(min_length=1)]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class FaceOptions:
    """What may be said of a single run on the command line; None leaves it to params.yaml."""

    method: Method | None = None
    classes: Classes | None = None
    lam: Annotated[Positive | None, Field(alias="lambda")] = None
    balanced_data: bool | None = None
    seed: Seed | None = None
    model: Backbone | None = None
    width: Count | None = None
    loss: RegressionLoss | None = None
    huber_delta: Positive | None = None
    loss_scaling: Scaling | None = None
    epochs: Count | None = None
    batch_size: Annotated[int | None, Field(ge=2)] = None
    accumulate: Count | None = None
    optimizer: Optimizer | None = None
    learning_rate: Positive | None = None
    weight_decay: NotNegative | None = None
    precision: ImagePrecision | None = None
    __pydantic_config__ = FROM_TEXT


def check_faces(path: Path, name: str, faces: Faces) -> None:
    """Raise a UserError where values that are right one by one do not fit each other."""
    limits = faces.shots
    if faces.training.pad >= faces.data.size:
        raise UserError(f"{path}: {name}.training.pad = {faces.training.pad} must be less than {name}.data.size = {faces.data.size}")
    if limits.few_below > limits.many_above + 1:
        raise UserError(
            f"{path}: {name}.shots: few_below = {limits.few_below} and many_above = {limits.many_above} overlap: an age would be both"
        )
    check_image_grids(path, name, faces.grids, seeds=len(faces.training.seeds))
