"""What `regcls run <dataset> --help` says of each option, and its default."""

from regcls.params import Params
from regcls.params.faces import Faces
from regcls.params.synthetic import Synthetic

PURPOSES = {
    "setting": "clean, noisy or ood (training, validation and test from different ranges of x)",
    "sampling": "how imbalanced the training targets are: uniform, mild, moderate or severe",
    "noise": "σ of the noise on the targets, where the setting is noisy",
    "method": "reg, reg+cls, or reg+cls-bal (balanced classes)",
    "classes": "number of classes C",
    "lambda": "weight λ of the regression loss (Eq. 4)",
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
EXAMPLES = {
    "synthetic": "regcls run synthetic --setting noisy --sampling severe --method reg+cls --classes 100",
    "imdb_wiki": "regcls run imdb_wiki --method reg+cls --classes 100 --seed 0",
    "agedb": "regcls run agedb --method reg+cls-bal --classes 100",
}


def run_defaults(params: Params, dataset: str) -> dict[str, str]:
    """Option of `regcls run <dataset>` -> what params.yaml says."""
    return _synthetic(params.synthetic) if dataset == "synthetic" else _faces(params.faces(dataset))


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


def _plain(section: object) -> dict[str, str]:
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in vars(section).items()}
