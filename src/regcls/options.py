"""What `regcls run <dataset> --help` says of each option, and its default."""

from regcls.params import KINDS, Kind, Params
from regcls.params.depth import Depth
from regcls.params.faces import Faces
from regcls.params.synthetic import Synthetic
from regcls.params.video import Video

PURPOSES = {
    "setting": "clean, noisy or ood (training, validation and test from different ranges of x)",
    "sampling": "how imbalanced the training targets are: uniform, mild, moderate or severe",
    "noise": "σ of the noise on the targets, where the setting is noisy",
    "method": "reg, reg+cls, or reg+cls-bal (balanced classes)",
    "unit": "of the target: percent of the video, or frames",
    "split": "whose persons test: s1, s2, s3 or s4",
    "align_corners": "false: up-projections as in the benchmark's code, not the authors'",
    "depth_resampling": "of depth maps in training: nearest or released (splines)",
    "clip_colours": "false: changed colours may lie outside 0 to 255",
    "validation": "pooled (pixels balanced over 100 buckets) or released (over the run's classes, by image)",
    "weights": "that the encoder begins with: random, or the path or address of ImageNet's",
    "classes": "number of classes C",
    "lambda": "weight λ of the regression loss (Eq. 4)",
    "rounding": "of Eq. 12, which balances classes: ceil, round or floor",
    "activation": "relu or sigmoid",
    "balanced_data": "true: rare targets enter both losses more often (Table 4)",
    "repetition": "which draw of the data, with its seeds",
    "seed": "of initial weights, order and augmentation",
    "hidden": "units of the two hidden layers, as in 6x15",
    "model": "resnet18, resnet34 or resnet50",
    "width": "channels of the first stage of the network",
    "loss": "regression loss: mae, mse or huber",
    "huber_delta": "where the Huber loss turns from square to straight",
    "loss_scaling": "released (reg + cls/λ for λ <= 1) or eq4 (λ·reg + cls)",
    "epochs": "passes over the training data",
    "batch_size": "samples a batch",
    "accumulate": "batches a step of the optimizer",
    "optimizer": "adam or sgd",
    "learning_rate": "at the start",
    "weight_decay": "as L2 in the gradient",
    "precision": "of the computation",
}
PREDICTIONS = "predictions"  # folder for the files of `regcls predict`
SMALL_NETWORKS = {"seed": "of initial weights and order"}
PURPOSES_OF_KIND: dict[Kind, dict[str, str]] = {  # where a kind of data has other words
    "synthetic": SMALL_NETWORKS,
    "video": SMALL_NETWORKS | {"method": "random, kukleva (sigmoids), reg, reg+cls, or reg+cls-bal (balanced classes)"},
}
EXAMPLES = {
    "synthetic": "regcls run synthetic --setting noisy --sampling severe --method reg+cls --classes 100",
    "imdb_wiki": "regcls run imdb_wiki --method reg+cls --classes 100 --seed 0",
    "agedb": "regcls run agedb --method reg+cls-bal --classes 100",
    "nyud2": "regcls run nyud2 --method reg+cls --classes 100 --seed 0",
    "breakfast": "regcls run breakfast --unit frames --split s2 --method reg+cls --classes 100",
}


def purpose_of(option: str, dataset: str) -> str:
    """What an option of `regcls run <dataset>` is."""
    return PURPOSES_OF_KIND.get(KINDS[dataset], {}).get(option, PURPOSES[option])


def run_defaults(params: Params, dataset: str) -> dict[str, str]:
    """Option of `regcls run <dataset>` -> what params.yaml says."""
    match KINDS[dataset]:
        case "synthetic":
            return _synthetic(params.synthetic)
        case "faces":
            return _faces(params.faces(dataset))
        case "depth":
            return _depth(params.nyud2)
        case "video":
            return _video(params.breakfast)


def _synthetic(synthetic: Synthetic) -> dict[str, str]:
    run, training, data = synthetic.run, synthetic.training, synthetic.data
    by_setting = "{0.clean:g} (clean), {0.noisy:g} (noisy), {0.ood:g} (ood)"
    seeds = ", ".join(map(str, training.seeds[: data.repetitions]))
    return _plain(training) | _plain(run) | {
        "noise": f"{run.noise:g} (prepared: {', '.join(map(str, data.noise))})",
        "lambda": by_setting.format(training.lam),
        "repetition": f"{run.repetition} (prepared: 0 to {data.repetitions - 1})",
        "seed": f"that of the repetition ({seeds})",
        "hidden": "x".join(map(str, training.hidden)),
        "learning_rate": by_setting.format(training.learning_rate),
        "precision": f"{training.precision} (float32 or float64)",
    }  # fmt: skip


def _faces(faces: Faces) -> dict[str, str]:
    training = faces.training
    by_classes = ", ".join(f"{lam:g} ({classes})" for classes, lam in training.lam.items())
    return _plain(training) | _plain(faces.run) | {
        "lambda": f"by classes: {by_classes}; another number takes the nearest one's",
        "seed": str(training.seeds[0]),
        "learning_rate": f"{training.learning_rate:g}, on balanced data {training.balanced_learning_rate:g}",
        "precision": f"{training.precision} (float32 or bf16)",
    }  # fmt: skip


def _depth(depth: Depth) -> dict[str, str]:
    training = depth.training
    by_classes = ", ".join(f"{lam:g} ({classes})" for classes, lam in training.lam.items())
    balanced = "{}, on balanced data {}"
    return _plain(training) | _plain(depth.run) | {
        "lambda": f"by classes: {by_classes}; another number takes the nearest one's",
        "seed": str(training.seeds[0]),
        "batch_size": balanced.format(training.batch_size, training.balanced_batch_size),
        "accumulate": balanced.format(training.accumulate, training.balanced_accumulate),
        "precision": f"{training.precision} (float32 or bf16)",
    }  # fmt: skip


def _video(video: Video) -> dict[str, str]:
    training = video.training
    return _plain(training) | _plain(video.run) | {
        "lambda": f"{training.lam.percent:g} (percent), {training.lam.frames:g} (frames)",
        "seed": str(training.seeds[0]),
        "hidden": "x".join(map(str, training.hidden)),
        "precision": f"{training.precision} (float32 or float64)",
    }  # fmt: skip


def _plain(section: object) -> dict[str, str]:
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in vars(section).items()}
