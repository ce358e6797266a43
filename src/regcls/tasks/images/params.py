"""Sections of image data sets in params.yaml: images with one target each (age from faces: paper, section 3.2)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from regcls.errors import UserError
from regcls.params.shots import DensityShots, IntegerShots, Shots
from regcls.params.single import (
    PURPOSES,
    SingleOptions,
    SingleSection,
    SingleTraining,
    check_grids,
    lambdas_text,
)
from regcls.params.types import FROM_TEXT, STRICT, Count, Finite, Natural, Pixels, Positive, Seed, TaskParams, plain

Targets = Literal["raw", "standardised"]  # what the regression loss compares with predictions


@dataclass(frozen=True, kw_only=True)
class StandIn:
    """Generated portraits in the layout of the original archives, for use without them."""

    images: Annotated[int, Field(ge=200, le=10**6)]  # fewer leave no age with three groups of images
    seed: Seed
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """What `prepare` reads, and how it splits and stores the images."""

    source: Literal["raw", "stand-in"]
    archives: tuple[Annotated[str, Field(min_length=1)], ...]
    layout: Literal["imdb-wiki", "csv"]
    target: Annotated[str, Field(min_length=1)]  # name of the target, in reports and as the csv's column
    unit: str  # of the target, in reports; may be empty
    columns: dict[Literal["path", "split", "group"], str | None]  # other names in the csv; null: not to be read
    size: Pixels
    exif: bool
    bits: Annotated[int, Field(ge=8, le=16)] | None  # of the values in 16-bit images; None: 16
    duplicates: Literal["refuse", "allow"]
    min_face_score: Finite
    split_seed: Seed
    split_most: Count
    test_share: Annotated[float, Field(gt=0, lt=1)]
    validation_share: Annotated[float, Field(gt=0, lt=1)]
    expected_images: Count | None
    stand_in: StandIn
    __pydantic_config__ = STRICT

    @property
    def without_effect(self) -> tuple[str, ...]:
        """Fields that do not decide the prepared data in this layout."""
        return () if self.layout == "csv" else ("columns", "test_share", "validation_share")

    @property
    def refuses_duplicates(self) -> bool:
        """Whether an image may be in one split only. The archives of IMDB-WIKI are taken as they are."""
        return self.layout == "csv" and self.duplicates == "refuse"


@dataclass(frozen=True, kw_only=True)
class ImageTraining(SingleTraining):
    """How each network is trained."""

    balanced_learning_rate: Positive
    pad: Natural
    targets: Targets
    __pydantic_config__ = STRICT


def shots_text(shots: IntegerShots | DensityShots) -> str:
    """As a run tag: `integer: many_above 100, few_below 20`."""
    return f"{shots.by}: {', '.join(f'{name} {value:g}' for name, value in vars(shots).items() if name != 'by')}"


@dataclass(frozen=True, kw_only=True)
class Images(SingleSection):
    """A data set of images with one target each."""

    published: Literal["imdb_wiki"] | None
    data: ImageData
    training: ImageTraining
    shots: Shots
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class ImageOptions(SingleOptions):
    """Command-line options of a single run on images."""

    targets: Targets | None = None
    __pydantic_config__ = FROM_TEXT


def check(path: Path, name: str, images: Images) -> None:
    """Raise a UserError if valid values contradict each other."""
    if images.data.source == "stand-in" and images.data.layout != "imdb-wiki":
        raise UserError(
            f"{path}: {name}.data.source = stand-in generates portraits in the layout imdb-wiki, but {name}.data.layout = "
            f"{images.data.layout}: write `source: raw` to read your own files"
        )
    if images.training.pad >= images.data.size:
        raise UserError(f"{path}: {name}.training.pad = {images.training.pad} must be less than {name}.data.size = {images.data.size}")
    images.shots.check(path, name)
    check_grids(path, name, images.grids, seeds=len(images.training.seeds))


def _defaults(images: Images) -> dict[str, str]:
    training = images.training
    return plain(training) | plain(images.run) | {
        "lambda": lambdas_text(training),
        "seed": str(training.seeds[0]),
        "learning_rate": f"{training.learning_rate:g}, on balanced data {training.balanced_learning_rate:g}",
        "precision": f"{training.precision} (float32 or bf16)",
    }  # fmt: skip


PARAMS = TaskParams(
    section=Images,
    options=ImageOptions,
    check=check,
    defaults=_defaults,
    purposes=PURPOSES | {"targets": "raw or standardised, in the regression loss; predictions are in the target's unit either way"},
    example="--method reg+cls --classes 100 --seed 0",
    provides=frozenset({"features", "features of each sample"}),
    own="a csv with the path and the target of each image",
)
