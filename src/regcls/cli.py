"""The command line: parses arguments and calls the commands."""

import argparse
import os
import select
import signal
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from regcls import dvc_lock
from regcls.errors import UserError
from regcls.files import explained
from regcls.options import PREDICTIONS, purpose_of
from regcls.params import Params, load_params, option_names, parse_options
from regcls.processes import end_with_launcher
from regcls.tasks import TASKS, task_params
from regcls.words import printable, suggestion

# Before MLflow, DVC or albumentations are imported: no telemetry, no update checks.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DVC_NO_ANALYTICS", "true")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

PIPED = 128 + signal.SIGPIPE  # exit code of a program whose reader has ended
STAGES = ("inputs", "prepare", "train", "compare")  # of dvc.yaml


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 success, 2 user error, 130 Ctrl-C, 141 nobody reads the output, 143 SIGTERM."""
    try:
        code = _run(argv)
    except SystemExit as stop:  # of argparse, or after SIGTERM
        flushed = _flush()
        if stop.code or not flushed:
            raise
        return flushed
    except BrokenPipeError:
        if not _is_unread():
            raise
        code = PIPED
    flushed = _flush()
    return code or flushed


def _is_unread() -> bool:
    """Whether the reader of standard output, such as `head`, has ended."""
    if not sys.stdout:  # closed
        return False
    output = select.poll()
    output.register(sys.stdout, 0)
    return bool(output.poll(0))


def _flush() -> int:
    """Write what is left of standard output; return the exit code."""
    try:
        if sys.stdout:  # None if it is closed
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        return PIPED if isinstance(error, BrokenPipeError) else _failed(f"cannot write the output: {error.strerror}")
    return 0


def _run(argv: Sequence[str] | None) -> int:
    signal.signal(signal.SIGTERM, _terminated)
    end_with_launcher()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # if the encoding lacks λ (cron, LANG=C), print \u03bb instead of a traceback
            stream.reconfigure(errors="backslashreplace")
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        root, params = Path.cwd(), None
        try:
            root = find_root(root)
            params = load_params(root / "params.yaml")
        except UserError as error:
            if {"-h", "--help"} & set(argv):  # help must not need a project
                _parser(None, "").parse_args(argv)
            if argv[:1] != ["doctor"]:
                raise
            problem = error  # for the doctor to report
        dataset, argv = _dataset_of_run(argv, params) if params and argv[:1] == ["run"] else ("", argv)
        arguments, rest = _parser(params, dataset).parse_known_args(argv)
        if dataset:
            arguments.dataset = dataset  # argparse might take the value of an unknown option instead
        if rest:
            raise UserError(_unknown(arguments, rest, params))
        if arguments.command == "doctor" and arguments.repair:
            print(*dvc_lock.repair(root) or ["nothing to repair"], sep="\n")
        elif arguments.command == "doctor":
            from regcls.pipeline.doctor import doctor

            doctor(params or problem, root)
        elif params:
            _call(arguments, params, root)
    except UserError as error:
        return _failed(str(error))
    except OSError as error:
        if (text := explained(error)) is None:
            raise
        return _failed(text)
    except SystemExit as stop:
        if stop.code == 128 + signal.SIGTERM:
            print("regcls: terminated. Finished runs are kept; the same command resumes from here.", file=sys.stderr)
        raise
    except KeyboardInterrupt:
        print("regcls: interrupted. Finished runs are kept; the same command resumes from here.", file=sys.stderr)
        return 130
    return 0


def _failed(text: str) -> int:
    print(printable(f"regcls: error: {text}", keep="\n"), file=sys.stderr)
    return 2


def _dataset_of_run(argv: Sequence[str], params: Params) -> tuple[str, list[str]]:
    """The data set of `regcls run …`, by default the project's, and the other arguments.

    It is a positional argument or, with `mlflow run . -P dataset=…`, an option, anywhere among the others.
    """
    datasets, others, words = dict[str, None](), [*argv[:1]], iter(argv[1:])
    for word in words:
        option, equals, value = word.partition("=")
        following = next(words, None) if word.startswith("-") and not equals and word not in ("-h", "--help") else None
        if not word.startswith("-"):
            datasets[word] = None
        elif option == "--dataset" and (equals or following is not None):
            datasets[following or value] = None
        else:
            others += [word] if following is None else [word, following]
    if len(datasets) > 1:
        raise UserError(f"regcls run takes one data set, not {' and '.join(datasets)}")
    dataset = next(iter(datasets), params.default_dataset)
    params.check_name(dataset)
    return dataset, others


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("the folder's name is empty")
    return Path(text)


def find_root(start: Path) -> Path:
    """The project's root: `start` or the nearest folder above it with a params.yaml.

    Raises:
        UserError: there is none, or its name cannot be decoded: MLflow and SQLite cannot open files in it.
    """
    try:
        str(start).encode()
    except UnicodeEncodeError:
        name = os.fsencode(start).decode(errors="replace")
        raise UserError(f"the name of {name} cannot be read. Set LC_ALL=C.UTF-8 if it is UTF-8; otherwise rename the folder.") from None
    for folder in (start, *start.parents):
        if (folder / "params.yaml").exists():
            return folder
    raise UserError(f"no params.yaml in {start} or above it: run regcls inside the project")


def _call(arguments: argparse.Namespace, params: Params, root: Path) -> None:
    if arguments.command in STAGES:
        dvc_lock.keep(root)
    # Lazy imports: PyTorch and MLflow take seconds, and `--help` should not.
    match arguments.command:
        case "prepare":
            from regcls.pipeline.prepare import prepare

            prepare(params, root, arguments.dataset)
        case "train":
            from regcls.pipeline.train import train

            train(params, root, arguments.dataset)
        case "run":
            from regcls.pipeline.train import run

            task = params.task(arguments.dataset)
            options = {name: value for name in option_names(task) if (value := getattr(arguments, name)) is not None}
            run(params, root, arguments.dataset, parse_options(task, options))
        case "params":
            from regcls.pipeline.show_params import show_params

            show_params(params, root, arguments.dataset)
        case "methods":
            from regcls.pipeline.methods import show_methods

            show_methods()
        case "inputs":
            from regcls.pipeline.inputs import write_inputs

            write_inputs(params, root)
        case "compare":
            from regcls.pipeline.compare import compare

            compare(params, root)
        case "advise":
            from regcls.pipeline.advise import METHODS, advise

            found = advise(params, root, arguments.dataset, budget=arguments.budget, methods=arguments.methods or METHODS)
            print(f"{found.summary()}\nEvidence: {found.page}")
        case "predict":
            from regcls.pipeline.predict import predict

            predict(params, root, arguments.run, arguments.images, checkpoint=arguments.checkpoint, folder=arguments.folder)
        case "show":
            from regcls.pipeline.show import show, show_data

            if arguments.data is None:
                show(params, root, arguments.run, part=arguments.print)
            else:
                show_data(params, root, arguments.data)
        case "rerun":
            from regcls.pipeline.rerun import rerun

            rerun(params, root, arguments.run, anyway=arguments.anyway)
        case "new":
            from regcls.pipeline.new import new

            task = next(task for task in TASKS if getattr(arguments, task, None))
            given = {name: getattr(arguments, name) for name in ("target", "unit", "split", "group")}
            file = Path.cwd() / getattr(arguments, task)
            new(params, root, arguments.name, task, file, given, title=arguments.title, dry_run=arguments.dry_run)
        case "data":
            from regcls.pipeline import data

            if arguments.action == "fetch":
                data.fetch(params, root, arguments.dataset, arguments.source, unpack=arguments.extract)
            else:
                data.samples(params, arguments.dataset, arguments.folder)
        case "s3":
            from regcls.pipeline import s3

            s3.check(root, arguments.url, create=arguments.create)
        case "delete":
            from regcls.pipeline.delete import delete

            delete(params, root, arguments.run, lost=arguments.lost)
        case "sync":
            from regcls.pipeline.sync import sync

            sync(params, root)
        case "setup":
            from regcls.mlproject import register_environment
            from regcls.tracking.tracker import Tracker

            print(f"mlflow run . uses {register_environment(root, Path(sys.prefix))}")
            if not os.environ.get("MLFLOW_TRACKING_URI"):  # creates the store before a plain mlflow command does with other settings
                print(f"runs go to {Tracker(root, experiment=params.tracking.experiment).uri}")


def _parser(params: Params | None, run_dataset: str) -> argparse.ArgumentParser:
    """`run_dataset`: the data set that determines the options of `regcls run`."""
    parser = argparse.ArgumentParser(
        prog="regcls",
        description="Does a classification loss next to the regression loss help on imbalanced continuous targets?",
        epilog="Example: regcls run portraits --method reg+cls --classes 100. Everything at once: dvc repro",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    datasets = tuple(params.datasets) if params else ()  # all sections, not only those that `dvc repro` trains

    def command(name: str, purpose: str, example: str, *, dataset: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=purpose, description=purpose, epilog=f"Example: {example}", allow_abbrev=False)
        if dataset:
            sub.add_argument("dataset", help=f"one of {', '.join(datasets) or 'those in params.yaml'}")
        return sub

    command("prepare", "write a data set's prepared files into data/<dataset>/prepared", "regcls prepare portraits")
    command("train", "train and track every run of the grids in params.yaml that is not finished yet", "regcls train portraits")
    run = command("run", "train and track one run", "regcls run portraits --method reg+cls --classes 100 --seed 0", dataset=False)
    if params and run_dataset:
        _add_run_options(run, params, run_dataset)
    advise = command(
        "advise", "train what fits a time, and say whether a class loss helps on a data set", "regcls advise diabetes --budget 5m"
    )
    advise.add_argument("--budget", default="10m", help="time for training: 90s, 10m or 1.5h; default 10m")
    advise.add_argument("--methods", nargs="+", metavar="METHOD", help="to compare with reg, or all; default reg+cls reg+cls-bal")
    command("params", "print the effective parameters of a data set, and where each value comes from", "regcls params portraits")
    command("methods", "list the parts of training losses that methods are made of", "regcls methods", dataset=False)
    command("inputs", "write build/inputs, from which DVC sees what has changed for each data set", "regcls inputs", dataset=False)
    command(
        "compare",
        "write reports/ (tables, figures, index.html) on the data sets in `datasets` of params.yaml, from the tracked runs",
        "regcls compare",
        dataset=False,
    )
    command("setup", "let `mlflow run .` use this Python environment, and create the local store of runs", "regcls setup", dataset=False)
    predict = command(
        "predict",
        "predict the targets or depth maps of new images with a tracked run",
        "regcls predict RUN image1.jpg image2.jpg",
        dataset=False,
    )
    predict.add_argument("run", metavar="RUN", help="id of the run, as `mlflow ui` and `regcls run` show it, or its first characters")
    predict.add_argument("images", metavar="IMAGE", nargs="+", type=Path, help="image files like those of the data set")
    predict.add_argument("--folder", type=Path, help=f"folder for the depth maps of a run on depth; default: {PREDICTIONS}")
    predict.add_argument(
        "--checkpoint", choices=["best", "last"], default="best", help="lowest validation error (default), or the last epoch"
    )
    show = command("show", "show the provenance of a tracked run, or list the runs on a version of data", "regcls show RUN", dataset=False)
    subject = show.add_mutually_exclusive_group(required=True)
    run_help = "id or fingerprint of the run, the first characters of one, or the URL of its page"
    subject.add_argument("run", metavar="RUN", nargs="?", help=run_help)
    subject.add_argument(
        "--data", metavar="VERSION", help="list all runs on these data: first characters of the digest or DVC md5, or a data set"
    )
    show.add_argument("--print", choices=["params.yaml", "dvc.lock", "diff"], help="print only this part of the run's record, unchanged")
    rerun = command(
        "rerun", "repeat a tracked run, report if commit or data differ, and compare the results", "regcls rerun RUN", dataset=False
    )
    rerun.add_argument("run", metavar="RUN", help=run_help)
    rerun.add_argument("--anyway", action="store_true", help="repeat it even on other data")
    delete = command("delete", "delete tracked runs, so that they are trained again", "regcls delete --lost", dataset=False)
    delete.add_argument("run", metavar="RUN", nargs="*", help="id of the run, its first characters, or the URL of its page")
    delete.add_argument("--lost", action="store_true", help="delete all finished runs whose files are gone")
    new = command(
        "new",
        "add a data set of your own: show what is in its files, copy them to data/NAME/raw, and write its section of params.yaml",
        "regcls new houses --images photos.csv --target price --unit $",
        dataset=False,
    )
    new.add_argument("name", metavar="NAME", help="of the data set: a letter, then letters, digits, _ and -")
    files = new.add_mutually_exclusive_group(required=True)
    for task in TASKS:
        if own := task_params(task).own:
            files.add_argument(f"--{task}", metavar="FILE", type=Path, help=own)
    new.add_argument("--target", metavar="COLUMN", default="", help="column of the target; default: the only one that can be")
    new.add_argument("--unit", default="", help="of the target, in reports")
    new.add_argument("--title", default="", help="of the report")
    new.add_argument("--split", metavar="COLUMN", default="", help="column with train, val and test; default: split, if there is one")
    new.add_argument(
        "--group", metavar="COLUMN", default="", help="column, such as patient, whose samples stay together in a split or fold"
    )
    new.add_argument("--dry-run", action="store_true", help="show all of this and write nothing")
    data = command("data", "fetch a data set's raw files, or write stand-ins for them", "regcls data fetch imdb_wiki", dataset=False)
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    purpose = "fetch the archives of a data set into data/<dataset>/raw; resumes an interrupted download"
    example = "Example: regcls data fetch imdb_wiki, or regcls data fetch imdb_wiki s3://bucket/imdb_crop.tar"
    fetch = actions.add_parser("fetch", help=purpose, description=purpose, epilog=example, allow_abbrev=False)
    fetch.add_argument("dataset", help=f"one of {', '.join(datasets)}")
    fetch.add_argument("source", nargs="*", help="https:// or s3:// URLs or paths; default: <dataset>.data.archives in params.yaml")
    fetch.add_argument("--extract", action="store_true", help="also unpack them; prepare does not need it")
    purpose = "write the generated stand-in archives into a folder, to look at them"
    samples = actions.add_parser(
        "samples", help=purpose, description=purpose, epilog="Example: regcls data samples portraits /tmp/portraits"
    )
    samples.add_argument("dataset", help=f"one of {', '.join(datasets)}")
    samples.add_argument("folder", type=_folder)
    command("sync", "deliver runs to the tracking server that it has not received yet", "regcls sync", dataset=False)
    doctor = command("doctor", "check machine, project, tracking store and DVC remote, and say what to do", "regcls doctor", dataset=False)
    doctor.add_argument("--repair", action="store_true", help="only repair dvc.lock, if a killed DVC has left it damaged")
    s3 = command("s3", "check whether an S3 bucket works for data and artifacts", "regcls s3 check s3://bucket/prefix", dataset=False)
    actions = s3.add_subparsers(dest="action", required=True, metavar="ACTION")
    purpose = "check endpoint, clock, credentials and bucket: put, get, delete and a multipart upload; nothing is left behind"
    example = "Example: regcls s3 check s3://bucket/prefix --create"
    check = actions.add_parser("check", help=purpose, description=purpose, epilog=example, allow_abbrev=False)
    check.add_argument(
        "url", nargs="?", help="s3://bucket or s3://bucket/prefix; default: the DVC remote's, or MLFLOW_ARTIFACTS_DESTINATION"
    )
    check.add_argument("--create", action="store_true", help="create the bucket if there is none")
    return parser


def _add_run_options(run: argparse.ArgumentParser, params: Params, dataset: str) -> None:
    task = params.task(dataset)
    run.description = f"train and track one run; here with the options of {dataset}, a data set of the task {task}"
    run.epilog = f"Example: regcls run {dataset} {task_params(task).example}"
    run.add_argument("dataset", nargs="?", help=f"one of {', '.join(params.datasets)}; default {params.default_dataset}")
    run.add_argument("--dataset", dest="dataset_option", metavar="DATASET", help="the same, for mlflow run . -P dataset=NAME")
    defaults = task_params(task).defaults(params.datasets[dataset])
    for option in option_names(task):
        # Both spellings: `mlflow run -P batch_size=64` passes --batch_size.
        flags = dict.fromkeys([f"--{option.replace('_', '-')}", f"--{option}"])
        text = f"{purpose_of(option, task)}; default {defaults[option]}"
        run.add_argument(*flags, dest=option, metavar=option.upper(), help=text.replace("%", "%%"))
    run.set_defaults(dataset=dataset)


def _unknown(arguments: argparse.Namespace, rest: Sequence[str], params: Params | None) -> str:
    option = next((word for word in rest if word.startswith("-")), rest[0])
    if arguments.command == "compare" and not option.startswith("-"):
        return "regcls compare takes no data set: it writes the reports on those in `datasets` of params.yaml"
    is_run = arguments.command == "run"
    options = [f"--{name.replace('_', '-')}" for name in option_names(params.task(arguments.dataset))] if is_run and params else []
    hint = suggestion(option.split("=")[0], options) or (f"; known: {', '.join(options)}" if options else "")
    command = f"run {arguments.dataset}" if is_run else arguments.command
    return f"unknown option {option}{hint} (regcls {command} --help)"


def _terminated(signum: int, frame: object) -> NoReturn:
    raise SystemExit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
