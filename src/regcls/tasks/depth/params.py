"""Sections of depth data sets in params.yaml: depth from one image (paper, section 3.2)."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import AfterValidator, Field

from regcls.errors import UserError
from regcls.metrics import ShotGroups
from regcls.params.single import PURPOSES, ImageBatch, SingleOptions, SingleSection, SingleTraining, check_grids, lambdas_text
from regcls.params.types import FROM_TEXT, STRICT, Count, Finite, NotNegative, Pixels, Positive, Seed, TaskParams, plain

Selection = Literal["val", "test"]  # split whose RMSE selects the weights to keep
Resampling = Literal["nearest", "measured", "released"]
Validation = Literal["pooled", "released"]
BUCKETS = 100  # equal ranges of depth from 0 on; the last one includes all greater depths
Bucket = Annotated[int, Field(ge=0, lt=BUCKETS)]
Groups = Mapping[Literal["many", "medium"], Set[int]]  # the buckets of many and medium; the rest are few


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
    layout: Literal["nyu2", "csv"]
    target: Annotated[str, Field(min_length=1)]  # its name in reports
    unit: str  # of depth, in reports; may be empty
    columns: dict[Literal["image", "depth", "split", "group"], str | None]  # other names in the csv; null: not to be read
    depth_scale: Positive  # depth of a step of 16-bit maps
    invalid: tuple[Finite, ...]  # values of depth files that mean not measured, besides 0, NaN and infinity
    deepest: Positive | Literal["data"]  # upper end of the buckets; data: the greatest training depth
    duplicates: Literal["refuse", "allow"]
    archives: tuple[Annotated[str, Field(min_length=1)], ...]
    short_side: Pixels
    crop: Annotated[tuple[Pixels, Pixels], AfterValidator(_even)]  # height, width
    test_share: Annotated[float, Field(gt=0, lt=1)]
    validation_share: Annotated[float, Field(gt=0, lt=1)]
    split_seed: Seed
    mask_seed: Seed
    expected_train: Count | None
    expected_test: Count | None
    stand_in: RoomStandIn
    __pydantic_config__ = STRICT

    @property
    def without_effect(self) -> tuple[str, ...]:
        """Fields that do not decide the prepared data in this layout."""
        own = ("layout", "columns", "depth_scale", "invalid", "deepest", "test_share")
        return ("target", *own) if self.layout == "nyu2" else ("target", "mask_seed")


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
    """Shot groups of pixels: many and medium as (first, last) ranges of buckets, all others are few; or by training pixels."""

    by: Literal["buckets", "density"]
    many: tuple[tuple[Bucket, Bucket], ...]
    medium: tuple[tuple[Bucket, Bucket], ...]
    many_above: NotNegative
    few_below: NotNegative
    __pydantic_config__ = STRICT

    def buckets(self, shot: Literal["many", "medium"]) -> frozenset[int]:
        """The listed buckets of a group."""
        ranges = self.many if shot == "many" else self.medium
        return frozenset(bucket for first, last in ranges for bucket in range(first, last + 1))

    def groups(self, training: ArrayLike) -> Groups:
        """The groups; `training` (100,): training pixels by bucket."""
        if self.by == "buckets":
            return {"many": self.buckets("many"), "medium": self.buckets("medium")}
        pixels = np.asarray(training)
        limits = {"many_above": self.many_above * pixels.mean(), "few_below": self.few_below * pixels.mean()}
        shot = ShotGroups(low=0.0, width=1.0, counts=dict(enumerate(pixels.tolist())), **limits).shot_of(np.arange(BUCKETS))
        return {"many": frozenset(np.flatnonzero(shot == "many")), "medium": frozenset(np.flatnonzero(shot == "medium"))}


def by_bucket(groups: Groups) -> list[Literal["many", "medium", "few"]]:
    """The group of each bucket."""
    many, medium = groups["many"], groups["medium"]
    return ["many" if bucket in many else "medium" if bucket in medium else "few" for bucket in range(BUCKETS)]


def shots_text(shots: DepthShots) -> str:
    """As a run tag: `many 9-45, 47-47; medium 7-8`, or `density: many_above 1, few_below 0.25`."""
    if shots.by == "density":
        return f"density: many_above {shots.many_above:g}, few_below {shots.few_below:g}"
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
    if shots.few_below > shots.many_above:
        raise UserError(
            f"{path}: {name}.shots: few_below = {shots.few_below:g} and many_above = {shots.many_above:g} overlap: a bucket would be both"
        )
    _check_data(path, name, depth.data)
    if depth.data.layout == "csv" and depth.training.depth_resampling == "released":
        raise UserError(
            f"{path}: {name}.training.depth_resampling = released is for 8-bit depth only, not for layout csv: write nearest or measured"
        )
    if depth.training.class_range != "data" and depth.training.class_range[0] < 0:
        raise UserError(f"{path}: {name}.training.class_range = {list(depth.training.class_range)}: depth begins at 0")
    check_grids(path, name, depth.grids, seeds=len(depth.training.seeds))


def _check_data(path: Path, name: str, data: DepthData) -> None:
    if data.layout == "csv" and data.source == "stand-in":
        raise UserError(
            f"{path}: {name}.data.source = stand-in generates rooms in the layout nyu2, but {name}.data.layout = csv: write "
            "`source: raw` to read your own files"
        )
    if data.layout == "nyu2" and data.deepest == "data":
        raise UserError(f"{path}: {name}.data.deepest = data is for layout csv: in layout nyu2, depth ends at 10.0")
    crop, height = list(data.crop), data.crop[0] if data.layout == "nyu2" else min(data.crop)
    if height > data.short_side:
        what = "it is higher" if data.layout == "nyu2" else "its shorter side is longer"
        raise UserError(f"{path}: {name}.data.crop = {crop}: {what} than {name}.data.short_side = {data.short_side}")


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
        "depth_resampling": "of depth maps in training: nearest, measured (for sparse maps) or released (splines)",
        "clip_colours": "false: augmented colours may lie outside 0 to 255",
        "validation": "pooled (pixels balanced over 100 buckets) or released (over the run's classes, by image)",
        "weights": "initial weights of the encoder: random, or the path or address of ImageNet weights",
    },
    example="--method reg+cls --classes 100 --seed 0",
    provides=frozenset({"features"}),
    own="a csv with the paths of each image and its depth map",
)
