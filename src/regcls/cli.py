"""The command line: argv -> calls. No logic."""

import argparse
import difflib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from regcls.errors import UserError
from regcls.params import OPTION_NAMES, Params, load_params, parse_options

# Before MLflow, DVC or albumentations are imported: no telemetry, no questions to an update server.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DVC_NO_ANALYTICS", "true")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 done, 2 a user's mistake, 130 Ctrl-C, 143 SIGTERM."""
    signal.signal(signal.SIGTERM, _terminated)
    argv = sys.argv[1:] if argv is None else argv
    try:
        try:
            root = find_root(Path.cwd())
            params = load_params(root / "params.yaml")
        except UserError:
            if {"-h", "--help"} & set(argv):  # help must not need a project
                _parser(None).parse_args(argv)
            raise
        arguments, rest = _parser(params).parse_known_args(argv)
        if rest:
            raise UserError(_unknown(arguments.command, rest))
        _call(arguments, params, root)
    except UserError as error:
        print(f"regcls: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("regcls: interrupted. Finished runs are kept; the same command goes on from here.", file=sys.stderr)
        return 130
    return 0


def find_root(start: Path) -> Path:
    """The project's root: the nearest folder upwards with a params.yaml.

    Raises:
        UserError: there is none.
    """
    for folder in (start, *start.parents):
        if (folder / "params.yaml").exists():
            return folder
    raise UserError(f"no params.yaml in {start} or above it: run regcls inside the project")


def _call(arguments: argparse.Namespace, params: Params, root: Path) -> None:
    # Imported where it is needed: PyTorch and MLflow take seconds, and `--help` should not.
    match arguments.command:
        case "prepare":
            from regcls.stages.prepare import prepare

            prepare(params, root, arguments.dataset)
        case "train":
            from regcls.stages.train import train

            train(params, root, arguments.dataset)
        case "run":
            from regcls.stages.train import run

            given = {name: value for name in OPTION_NAMES if (value := getattr(arguments, name)) is not None}
            run(params, root, arguments.dataset, parse_options(given))
        case "compare":
            from regcls.stages.compare import compare

            compare(params, root)
        case "setup":
            from regcls.mlproject import register_environment
            from regcls.tracking import Tracker

            print(f"mlflow run . uses {register_environment(root, Path(sys.prefix))}")
            if not os.environ.get("MLFLOW_TRACKING_URI"):  # before a plain mlflow command makes one with other settings
                print(f"runs go to {Tracker(root, experiment=params.tracking.experiment).uri}")


def _parser(params: Params | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="regcls",
        description="Does a classification loss next to the regression loss help on imbalanced continuous targets?",
        epilog="Example: regcls run synthetic --method reg+cls --classes 100. Everything at once: dvc repro",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, purpose: str, example: str, *, dataset: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=purpose, description=purpose, epilog=f"Example: {example}", allow_abbrev=False)
        if dataset:
            sub.add_argument("dataset", choices=params.datasets if params else None, help="one of `datasets` in params.yaml")
        return sub

    command("prepare", "make a data set's prepared files in data/<dataset>/prepared", "regcls prepare synthetic")
    command("train", "train and track every run of the grids in params.yaml that is not finished yet", "regcls train synthetic")
    run = command("run", "train and track one run", "regcls run synthetic --setting noisy --sampling severe --method reg+cls --classes 100")
    defaults = _run_defaults(params) if params else {}
    for name in OPTION_NAMES:
        flags = dict.fromkeys([f"--{name.replace('_', '-')}", f"--{name}"])  # both: `mlflow run -P batch_size=64` gives --batch_size
        text = f"{PURPOSES[name]}; default {defaults.get(name, 'in params.yaml')}"
        run.add_argument(*flags, dest=name, metavar=name.upper(), help=text.replace("%", "%%"))
    command("compare", "write reports/ (tables, figures, index.html) from the tracked runs", "regcls compare", dataset=False)
    command("setup", "let `mlflow run .` use this Python environment, and create the local store of runs", "regcls setup", dataset=False)
    return parser


PURPOSES = {  # of the options of `regcls run`
    "setting": "clean, noisy or ood (training, validation and test from different ranges of x)",
    "sampling": "how imbalanced the training targets are: uniform, mild, moderate or severe",
    "noise": "σ of the noise on the targets, where the setting is noisy",
    "method": "reg, reg+cls, or reg+cls-bal (balanced classes)",
    "classes": "number of classes C",
    "lambda": "weight λ of the regression loss (Eq. 4)",
    "repetition": "which draw of the data, with its seeds",
    "seed": "of initial weights and shuffling",
    "hidden": "units of the two hidden layers, as in 6x15",
    "epochs": "passes over the training data",
    "batch_size": "samples a step; the last, incomplete batch is dropped",
    "optimizer": "adam or sgd",
    "learning_rate": "constant over training",
    "weight_decay": "as L2 in the gradient",
    "precision": "float32 or float64",
}


def _run_defaults(params: Params) -> dict[str, str]:
    """Option of `regcls run` -> what params.yaml says."""
    run, training, data = params.synthetic.run, params.synthetic.training, params.synthetic.data
    by_setting = "{0.clean:g} (clean), {0.noisy:g} (noisy), {0.ood:g} (ood)"
    seeds = ", ".join(map(str, training.seeds[: data.repetitions]))
    special = {
        "noise": f"{run.noise:g} (prepared: {', '.join(map(str, data.noise))})",
        "lambda": by_setting.format(training.lam),
        "repetition": f"{run.repetition} (prepared: 0 to {data.repetitions - 1})",
        "seed": f"that of the repetition ({seeds})",
        "hidden": "x".join(map(str, training.hidden)),
        "learning_rate": by_setting.format(training.learning_rate),
    }
    return {name: special.get(name) or str(getattr(run, name, None) or getattr(training, name)) for name in OPTION_NAMES}


def _unknown(command: str, rest: Sequence[str]) -> str:
    option = next((word for word in rest if word.startswith("-")), rest[0])
    known = [f"--{name.replace('_', '-')}" for name in OPTION_NAMES] if command == "run" else []
    close = difflib.get_close_matches(option.split("=")[0], known, n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; known: {', '.join(known)}" if known else ""
    return f"unknown option {option}{hint} (regcls {command} --help)"


def _terminated(signum: int, frame: object) -> NoReturn:
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
