"""Sections of depth data sets in params.yaml: depth from one image (paper, section 3.2)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from regcls.errors import UserError
from regcls.params.single import PURPOSES, ImageBatch, SingleOptions, SingleSection, SingleTraining, check_grids, lambdas_text
from regcls.params.types import FROM_TEXT, STRICT, Count, NotNegative, Pixels, Seed, TaskParams, plain

Selection = Literal["val", "test"]  # split whose RMSE selects the weights to keep
Resampling = Literal["nearest", "released"]
Validation = Literal["pooled", "released"]
BUCKETS = 100  # of depth, 0.1 m each; the last one includes all greater depths
Bucket = Annotated[int, Field(ge=0, lt=BUCKETS)]


def _even(values: tuple[int, int]) -> tuple[int, int]:
    if any(value % 2 for value in values):
        raise ValueError("write even numbers: depth is predicted at half the size")
    return values


@dataclass(frozen=True, kw_only=True)
class RoomStandIn:
    """Generated rooms in the layout of the original archive, for use without it."""

    scenes: Annotated[int, Field(ge=5, le=10**6)]  # of training and validation images
    images: Annotated[int, Field(ge=10, le=10**6)]  # training and validation images
    test_images: Annotated[int, Field(ge=1, le=10**6)]
    seed: Seed
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class DepthData:
    """What `prepare` reads, and how it splits and stores the pairs."""

    source: Literal["raw", "stand-in"]
    archives: tuple[Annotated[str, Field(min_length=1)], ...]
    short_side: Pixels
    crop: Annotated[tuple[Pixels, Pixels], AfterValidator(_even)]  # height, width
    validation_share: Annotated[float, Field(gt=0, lt=1)]
    split_seed: Seed
    mask_seed: Seed
    expected_train: Count | None
    expected_test: Count | None
    stand_in: RoomStandIn
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class DepthTraining(SingleTraining):
    """How each network is trained."""

    weights: Annotated[str, Field(min_length=1)]  # random, a path, or an address
    align_corners: bool
    balanced_batch_size: ImageBatch
    balanced_accumulate: Count
    rotate: Annotated[float, Field(ge=0, le=45)]
    lighting: NotNegative
    jitter: Annotated[float, Field(ge=0, lt=1)]
    depth_resampling: Resampling
    clip_colours: bool
    validation: Validation
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class DepthShots:
    """Shot groups: the buckets of many and medium as (first, last) ranges; all others are few."""

    many: tuple[tuple[Bucket, Bucket], ...]
    medium: tuple[tuple[Bucket, Bucket], ...]
    __pydantic_config__ = STRICT

    def buckets(self, shot: Literal["many", "medium"]) -> frozenset[int]:
        """The buckets of a group."""
        ranges = self.many if shot == "many" else self.medium
        return frozenset(bucket for first, last in ranges for bucket in range(first, last + 1))

    def by_bucket(self) -> list[Literal["many", "medium", "few"]]:
        """The group of each bucket."""
        many, medium = self.buckets("many"), self.buckets("medium")
        return ["many" if bucket in many else "medium" if bucket in medium else "few" for bucket in range(BUCKETS)]


def shots_text(shots: DepthShots) -> str:
    """As a run tag: `many 9-45, 47-47; medium 7-8`."""
    groups = {"many": shots.many, "medium": shots.medium}
    return "; ".join(f"{name} {', '.join(f'{first}-{last}' for first, last in ranges)}" for name, ranges in groups.items())


@dataclass(frozen=True, kw_only=True)
class Depth(SingleSection):
    """A data set of images, each with a depth map."""

    published: Literal["nyud2"] | None
    data: DepthData
    training: DepthTraining
    shots: DepthShots
    __pydantic_config__ = STRICT


@dataclass(frozen=True, kw_only=True)
class DepthOptions(SingleOptions):
    """Command-line options of a single run on depth."""

    weights: Annotated[str | None, Field(min_length=1)] = None
    align_corners: bool | None = None
    depth_resampling: Resampling | None = None
    clip_colours: bool | None = None
    validation: Validation | None = None
    __pydantic_config__ = FROM_TEXT


def check(path: Path, name: str, depth: Depth) -> None:
    """Raise a UserError if valid values contradict each other."""
    shots = depth.shots
    for key in ("many", "medium"):
        if wrong := [(first, last) for first, last in getattr(shots, key) if first > last]:
            raise UserError(f"{path}: {name}.shots.{key}: {list(wrong[0])} ends before it begins")
    if both := sorted(shots.buckets("many") & shots.buckets("medium")):
        raise UserError(f"{path}: {name}.shots: bucket {both[0]} is in many and in medium")
    if depth.data.crop[0] > depth.data.short_side:
        raise UserError(
            f"{path}: {name}.data.crop = {list(depth.data.crop)}: it is higher than {name}.data.short_side = {depth.data.short_side}"
        )
    if depth.training.class_range == "data":
        raise UserError(f"{path}: {name}.training.class_range = data: write the metres that the ranges cover, as in [0.0, 10.0]")
    if depth.training.class_range[0] < 0:
        raise UserError(f"{path}: {name}.training.class_range = {list(depth.training.class_range)}: depth begins at 0")
    check_grids(path, name, depth.grids, seeds=len(depth.training.seeds))


def _defaults(depth: Depth) -> dict[str, str]:
    training = depth.training
    balanced = "{}, on balanced data {}"
    return plain(training) | plain(depth.run) | {
        "lambda": lambdas_text(training),
        "seed": str(training.seeds[0]),
        "batch_size": balanced.format(training.batch_size, training.balanced_batch_size),
        "accumulate": balanced.format(training.accumulate, training.balanced_accumulate),
        "precision": f"{training.precision} (float32 or bf16)",
    }  # fmt: skip


PARAMS = TaskParams(
    section=Depth,
    options=DepthOptions,
    check=check,
    defaults=_defaults,
    purposes=PURPOSES
    | {
        "align_corners": "false: up-projections as in the benchmark's code, not the authors'",
        "depth_resampling": "of depth maps in training: nearest or released (splines)",
        "clip_colours": "false: augmented colours may lie outside 0 to 255",
        "validation": "pooled (pixels balanced over 100 buckets) or released (over the run's classes, by image)",
        "weights": "initial weights of the encoder: random, or the path or address of ImageNet weights",
    },
    example="--method reg+cls --classes 100 --seed 0",
)
