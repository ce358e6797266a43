"""The sections `imdb_wiki` and `agedb` of params.yaml: age from faces (paper, section 3.2), and images with a target at large."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from regcls.errors import UserError
from regcls.params.images import Finite, ImageGrid, ImageOptions, ImageRun, ImageTraining, check_image_grids
from regcls.params.types import FROM_TEXT, STRICT, Count, Positive, Seed


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
class FaceTraining(ImageTraining):
    """How each network is trained."""

    balanced_learning_rate: Positive
    pad: Annotated[int, Field(ge=0)]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class ShotLimits:
    """Many, medium and few: by the number of training images of an integer target."""

    many_above: Annotated[int, Field(ge=0)]
    few_below: Annotated[int, Field(ge=0)]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class Faces:
    """A data set of images, each with one number to predict."""

    data: FaceData
    training: FaceTraining
    shots: ShotLimits
    run: ImageRun
    grids: Annotated[dict[str, ImageGrid], Field(min_length=1)]
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class FaceOptions(ImageOptions):
    """What may be said of a single run on faces."""

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
