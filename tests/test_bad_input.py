"""What a user can get wrong: one clear message on stderr, exit code 2, nothing half-written. Damaged prepared files: datasets/test_store.py."""

import errno
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from conftest import ROOT, laid_over
from regcls.cli import main
from regcls.data.store import prepared_folder, write_prepared
from regcls.errors import UserError
from regcls.files import explain_os_errors, write_json, write_text
from regcls.params import load_params

pytestmark = pytest.mark.usefixtures("signals")


def nested(keys, value):
    """("a.b", 1) -> {"a": {"b": 1}}"""
    for key in reversed(keys.split(".")):
        value = {key: value}
    return value


def refused(root):
    """What load_params says of a params.yaml."""
    with pytest.raises(UserError) as error:
        load_params(root / "params.yaml")
    return str(error.value).removeprefix(f"{root}/params.yaml").removeprefix(": ")


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("tracking.experimint", "x", "tracking.experimint is not a known key"),
        ("synthetic.trainign", {}, "synthetic.trainign is not a known key"),
        (
            "synthetic.training.epochs",
            "80",
            'synthetic.training.epochs = "80": Input should be a valid integer (YAML reads this as text: write 80,',
        ),
        ("synthetic.training.epochs", 80.5, "synthetic.training.epochs = 80.5: Input should be a valid integer"),
        ("synthetic.training.epochs", "many", 'synthetic.training.epochs = "many": Input should be a valid integer'),
        ("synthetic.training.epochs", None, "synthetic.training.epochs = null: Input should be a valid integer"),
        (
            "synthetic.training.weight_decay",
            "1e-3",
            'weight_decay = "1e-3": Input should be a valid number (YAML reads this as text: write 0.001,',
        ),
        ("synthetic.training.weight_decay", -0.1, "synthetic.training.weight_decay = -0.1: Input should be greater than or equal to 0"),
        (
            "synthetic.training.learning_rate.clean",
            float("nan"),
            "synthetic.training.learning_rate.clean = NaN: Input should be a finite number",
        ),
        ("synthetic.training.lambda.noisy", 0, "synthetic.training.lambda.noisy = 0: Input should be greater than 0"),
        ("synthetic.training.hidden", [6], "synthetic.training.hidden = [6]: Tuple should have at least 2 items"),
        ("synthetic.training.optimizer", "adamw", "synthetic.training.optimizer = \"adamw\": Input should be 'adam' or 'sgd'"),
        ("synthetic.run.classes", 0, "synthetic.run.classes = 0: Input should be greater than or equal to 2"),
        ("synthetic.run.classes", True, "synthetic.run.classes = true: Input should be a valid integer"),
        ("synthetic.run.repetition", 2, "synthetic.run.repetition = 2, but only 0 to 1 are prepared"),
        ("synthetic.grids.figure3.classes", [], "synthetic.grids.figure3.classes = []: Tuple should have at least 1 item"),
        ("synthetic.grids.figure3.classes", [4, 0], "synthetic.grids.figure3.classes.1 = 0: Input should be greater than or equal to 2"),
        ("synthetic.grids.figure3.classes", [4, 4], "synthetic.grids.figure3.classes = [4, 4]: a value stands in the list twice"),
        (
            "synthetic.grids.figure3.settings",
            ["clear"],
            "synthetic.grids.figure3.settings.0 = \"clear\": Input should be 'clean', 'noisy' or 'ood'",
        ),
        ("synthetic.grids.figure4.lambdas", [1.0, -1.0], "synthetic.grids.figure4.lambdas.1 = -1.0: Input should be greater than 0"),
        ("synthetic.grids.figure4.lambdas", "defalt", "synthetic.grids.figure4.lambdas = \"defalt\": Input should be 'default'"),
        ("synthetic.grids.figure-3b", {"settings": 1}, "synthetic.grids.figure-3b.settings = 1: Input should be a valid array"),
        (
            "synthetic.grids.figure5.noise",
            [0.3],
            "synthetic.grids.figure5.noise asks for [0.3], but synthetic.data.noise prepares only [0.1]",
        ),
        ("synthetic.grids.figure3.repetitions", 3, "synthetic.grids.figure3.repetitions = 3, but synthetic.data.repetitions prepares 2"),
        ("synthetic.data.repetitions", 6, "synthetic.data.repetitions = 6, but synthetic.data.data_seeds has 5 seeds"),
        ("synthetic.data.samplings", ["severe"], "synthetic.data.samplings must hold 'uniform'"),
        ("synthetic.data.samples", 100, "synthetic.data.samples = 100: Input should be greater than or equal to 18432"),
        ("synthetic.data.functions", [[0.5]], "synthetic.data.functions.0.1 is missing"),
        (
            "synthetic.demo.training",
            {"epoch": 3},
            "synthetic.demo.training.epoch overrides nothing; keys there: hidden, epochs, batch_size",
        ),
        ("synthetic.demo.grids", {"figure6": {}}, "synthetic.demo.grids.figure6 overrides nothing; keys there: figure3, figure4, figure5"),
        ("synthetic.demo.data", {"repetitions": 0}, "synthetic.data.repetitions = 0: Input should be greater than or equal to 1"),
        ("synthetic.demo", None, "synthetic.demo = None: write the keys that differ at scale demo, or remove it"),
        ("synthetic", None, "synthetic = null: Input should be an object"),
        ("scale", "big", "scale = 'big': write demo or paper"),
        ("datasets", [], "datasets = []: Tuple should have at least 1 item"),
        (
            "datasets",
            ["sinthetic"],
            "datasets.0 = \"sinthetic\": Input should be 'synthetic', 'imdb_wiki', 'agedb', 'nyud2' or 'breakfast'",
        ),
        (
            "compute.processes",
            0,
            "compute.processes = 0: Input should be 'auto'; compute.processes = 0: Input should be greater than or equal to 1",
        ),
        ("imdb_wiki.data.size", 16, "imdb_wiki.data.size = 16: Input should be greater than or equal to 32"),
        ("imdb_wiki.data.source", "web", "imdb_wiki.data.source = \"web\": Input should be 'raw' or 'stand-in'"),
        (
            "imdb_wiki.training.model",
            "resnet101",
            "imdb_wiki.training.model = \"resnet101\": Input should be 'resnet18', 'resnet34' or 'resnet50'",
        ),
        ("imdb_wiki.training.milestones", [8, 6], "imdb_wiki.training.milestones = [8, 6]: write the values in growing order, each once"),
        (
            "imdb_wiki.training.class_range",
            [100.0, 0.0],
            "imdb_wiki.training.class_range = [100.0, 0.0]: write the values in growing order",
        ),
        ("imdb_wiki.training.lambda", {1: 0.1}, "Input should be greater than or equal to 2"),
        ("imdb_wiki.training.flip", 1.5, "imdb_wiki.training.flip = 1.5: Input should be less than or equal to 1"),
        ("agedb.training.pad", 300, "agedb.training.pad = 300 must be less than agedb.data.size = 224"),
        ("agedb.shots.few_below", 200, "agedb.shots: few_below = 200 and many_above = 100 overlap"),
        ("agedb.grids.table3.seeds", 9, "agedb.grids.table3.seeds = 9, but agedb.training.seeds has only 3"),
        (
            "imdb_wiki.grids.table3.lambdas",
            "searched",
            "imdb_wiki.grids.table3.lambdas = 'searched' needs the grid imdb_wiki.grids.lambda_search with at least one seed",
        ),
        (
            "imdb_wiki.grids.lambda_search.lambdas",
            "default",
            "imdb_wiki.grids.lambda_search.lambdas = 'default': list the values of λ to try",
        ),
        ("nyud2.data.crop", [227, 304], "nyud2.data.crop = [227, 304]: write even numbers: depth is learned at half the size"),
        ("nyud2.data.crop", [38, 44], "nyud2.data.crop = [38, 44]: it is higher than nyud2.data.short_side = 36"),
        ("nyud2.data.validation_share", 1.0, "nyud2.data.validation_share = 1.0: Input should be less than 1"),
        ("nyud2.shots.many", [[9, 100]], "nyud2.shots.many.0.1 = 100: Input should be less than 100"),
        ("nyud2.shots.many", [[45, 9]], "nyud2.shots.many: [45, 9] ends before it begins"),
        ("nyud2.shots.medium", [[44, 46]], "nyud2.shots: bucket 44 is in many and in medium"),
        ("nyud2.training.weights", "", 'nyud2.training.weights = "": String should have at least 1 character'),
        ("nyud2.training.class_range", [-1.0, 10.0], "nyud2.training.class_range = [-1.0, 10.0]: depth begins at 0"),
        ("nyud2.grids.table2.seeds", 4, "nyud2.grids.table2.seeds = 4, but nyud2.training.seeds has only 3"),
        ("breakfast.data.test_persons.s2", [28, 16], "breakfast.data.test_persons.s2 = [28, 16] ends before it begins"),
        ("breakfast.data.test_persons", {"s5": [1, 2]}, "breakfast.data.test_persons"),
        ("breakfast.run.method", "regcls", "breakfast.run.method = \"regcls\": Input should be 'random', 'kukleva', 'reg', 'reg+cls' or"),
        ("breakfast.run.unit", "seconds", "breakfast.run.unit = \"seconds\": Input should be 'percent' or 'frames'"),
        ("breakfast.training.lambda", {"percent": 0}, "breakfast.training.lambda.percent = 0: Input should be greater than 0"),
        (
            "breakfast.grids.table5.lambdas",
            "searched",
            "breakfast.grids.table5.lambdas = 'searched' needs the grid breakfast.grids.lambda_search with at least one seed",
        ),
        ("breakfast.grids.lambda_search.lambdas", "default", "breakfast.grids.lambda_search.lambdas = 'default': list the values of λ"),
        (
            "breakfast.grids",
            {"table5": {"lambdas": "searched"}, "lambda_search": {"seeds": 1, "units": ["frames"], "classes": [10], "splits": ["s2"]}},
            "breakfast.grids.lambda_search does not search λ for 100 classes, percent, s1",
        ),
        ("compute.device", "tpu", "compute.device = \"tpu\": Input should be 'auto', 'cpu' or 'cuda'"),
    ],
)
def test_a_mistake_in_params_yaml_is_named_with_its_key_its_value_and_what_is_allowed(make_project, key, value, message):
    assert message in refused(make_project(nested(key, value)))


@pytest.mark.parametrize(
    "path, message",
    [
        (["synthetic", "training", "epochs"], "synthetic.training.epochs is missing"),
        (["synthetic", "training", "lambda"], "synthetic.training.lambda is missing"),
        (["imdb_wiki", "data", "stand_in", "seed"], "imdb_wiki.data.stand_in.seed is missing"),
        (["tracking", "experiment"], "tracking.experiment is missing"),
    ],
)
def test_a_missing_key_is_named(make_project, path, message):
    root = make_project()
    tree = yaml.safe_load((root / "params.yaml").read_text())
    section = tree
    for key in path[:-1]:
        section = section[key]
    del section[path[-1]]
    (root / "params.yaml").write_text(yaml.safe_dump(tree))
    assert message in refused(root)


@pytest.mark.parametrize(
    "text, message",
    [
        (b"", " holds no keys. Restore it with: git checkout params.yaml"),
        (b"- 1", " holds no keys"),
        (b"scale: [demo", " is not YAML: while parsing a flow sequence"),
        (b"\tscale: demo", "is not YAML: while scanning"),
        (b"\xff\xfe\x00", " is not YAML: 'utf-8' codec can't decode"),
        (b"scale: !!python/object:os.system demo", " is not YAML: could not determine a constructor"),
        (b"scale: demo", "datasets is missing; tracking is missing (and 6 more)"),
        (b"scale: demo\nx: &x [*x]", " holds what no parameter can be: Circular reference"),
        (b"scale: demo\n2020-01-01: 1", " holds what no parameter can be: keys must be str"),
    ],
)
def test_a_file_that_is_no_params_yaml_at_all_is_a_clear_error(tmp_path, text, message):
    (tmp_path / "params.yaml").write_bytes(text)
    assert message in refused(tmp_path)


def test_a_date_where_a_number_belongs_is_named(make_project):
    root = make_project()
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("epochs: 2\n", "epochs: 2020-01-01\n"))
    assert 'synthetic.training.epochs = "2020-01-01": Input should be a valid integer' in refused(root)


def test_a_mistake_in_the_scale_that_is_not_asked_for_is_found_too(make_project):
    root = make_project(laid_over({"scale": "paper"}, nested("synthetic.demo.grids", {"figure3": {"classes": []}})))
    assert "synthetic.grids.figure3.classes = []" in refused(root)


def regcls(root, *arguments):
    """A process of its own, as a user starts it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, "-m", "regcls", *arguments], cwd=root, env=environment, text=True, capture_output=True, timeout=120
    )


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("synthetic.grids.figure4.lambdas", [0.0], "synthetic.grids.figure4.lambdas.0 = 0.0: Input should be greater than 0"),
        ("synthetic.trainign", {}, "synthetic.trainign is not a known key"),
    ],
)
def test_a_mistake_in_params_yaml_ends_the_command_in_one_line_and_with_exit_code_2(make_project, key, value, message):
    done = regcls(make_project(nested(key, value)), "train", "synthetic")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("regcls: error: ") and message in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture
def cli(make_project, monkeypatch, capsys):
    """Run a command in a project, here: -> exit code and what it said on stderr."""
    monkeypatch.chdir(make_project())

    def run(*arguments):
        try:
            code = main(arguments)
        except SystemExit as exit:  # argparse's own
            code = exit.code
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--clases", "4"], "unknown option --clases; did you mean --classes?"),
        (["--clases=4"], "unknown option --clases=4; did you mean --classes?"),
        (["--seeed", "1"], "unknown option --seeed; did you mean --seed?"),
        (["--xyz", "4"], "unknown option --xyz; known: --setting, --sampling, --noise"),
        (["--class", "4"], "unknown option --class; did you mean --classes?"),
        (["noisy"], "unknown option noisy; did you mean --noise?"),
        (["--classes", "four"], '--classes = "four": Input should be a valid integer'),
        (["--classes", "1"], '--classes = "1": Input should be greater than or equal to 2'),
        (["--classes", ""], '--classes = ""'),
        (["--lambda", "0"], '--lambda = "0": Input should be greater than 0'),
        (["--lambda", "nan"], '--lambda = "nan": Input should be a finite number'),
        (["--batch-size", "0"], '--batch-size = "0": Input should be greater than or equal to 1'),
        (["--batch_size", "x"], '--batch-size = "x": Input should be a valid integer'),
        (["--learning-rate=-1"], '--learning-rate = "-1": Input should be greater than 0'),
        (["--method", "cls"], "--method = \"cls\": Input should be 'reg', 'reg+cls' or 'reg+cls-bal'"),
        (["--hidden", "6"], '--hidden = "6": write the units of two layers, as in 6x15'),
        (["--seed", "-1"], '--seed = "-1": Input should be greater than or equal to 0'),
        (
            ["--method", "reg", "--classes", "4"],
            "method reg has no classes and no λ: leave out --classes and --lambda, or choose --method reg+cls",
        ),
        (["--method", "reg", "--lambda", "4"], "method reg has no classes and no λ"),
        (["--setting", "clean", "--noise", "0.1"], "setting clean has no noise: leave out --noise, or choose --setting noisy"),
        (["--noise", "0.3"], "--noise = 0.3: prepared are 0.1 (synthetic.data.noise in params.yaml)"),
        (["--repetition", "2"], "--repetition = 2: only 0 to 1 are prepared (synthetic.data.repetitions in params.yaml)"),
        (["--classes"], "--classes: expected one argument"),
    ],
)
def test_a_wrong_option_of_run_is_named_with_what_is_allowed(cli, arguments, message):
    code, said = cli("run", "synthetic", *arguments)
    assert (code, message in said) == (2, True), said
    assert os.listdir() == ["params.yaml"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "the following arguments are required: COMMAND"),
        (["trian", "synthetic"], "invalid choice: 'trian'"),
        (["train"], "the following arguments are required: dataset"),
        (["train", "sinthetic"], "invalid choice: 'sinthetic' (choose from 'synthetic', 'imdb_wiki', 'agedb', 'nyud2', 'breakfast')"),
        (["train", "synthetic", "--epochs", "3"], "unknown option --epochs (regcls train --help)"),
        (["compare", "synthetic"], "unknown option synthetic (regcls compare --help)"),
    ],
)
def test_a_wrong_command_says_what_there_is(cli, arguments, message):
    code, said = cli(*arguments)
    assert (code, message in said) == (2, True), said


def test_outside_a_project_the_message_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "synthetic"]) == 2
    assert capsys.readouterr().err == f"regcls: error: no params.yaml in {tmp_path} or above it: run regcls inside the project\n"


@pytest.mark.parametrize("command", [["train", "synthetic"], ["compare"]])
def test_without_prepared_data_the_message_says_how_to_make_it(cli, command):
    code, said = cli(*command)
    assert code == 2
    assert (
        said
        == f"regcls: error: there is no prepared data in {Path.cwd()}/data/synthetic/prepared. Make it anew with: dvc repro -f prepare@synthetic\n"
    )
    assert not Path("mlflow.db").exists()


@pytest.mark.parametrize("command", [["train", "synthetic"], ["run", "synthetic"], ["compare"]])
def test_data_prepared_with_other_parameters_is_not_used(cli, command):
    folder = prepared_folder(Path.cwd(), "synthetic")
    table = pd.DataFrame({"data": ["clean"], "sampling": "uniform", "function": 0, "repetition": 0, "split": "train"})
    made_from = asdict(load_params(Path("params.yaml")).synthetic.data) | {"peak_share": 0.5}
    write_prepared(folder, arrays={"clean": np.zeros((2, 500))}, table=table, made_from=made_from)
    code, said = cli(*command)
    assert code == 2
    assert said == (
        f"regcls: error: {folder} was prepared with other values of peak_share than params.yaml has now. "
        "Prepare it again with: dvc repro prepare@synthetic\n"
    )


@pytest.mark.parametrize("command", ["train", "run"])
def test_damaged_prepared_data_is_never_trained_on(cli, command):
    folder = prepared_folder(Path.cwd(), "synthetic")
    table = pd.DataFrame({"data": ["clean"], "sampling": "uniform", "function": 0, "repetition": 0, "split": "train"})
    write_prepared(
        folder, arrays={"clean": np.zeros((2, 500))}, table=table, made_from=asdict(load_params(Path("params.yaml")).synthetic.data)
    )
    with (folder / "clean.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    code, said = cli(command, "synthetic")
    assert code == 2
    assert (
        said
        == f"regcls: error: {folder}/clean.npy is damaged: its content is not what prepare wrote. Make it anew with: dvc repro -f prepare@synthetic\n"
    )
    assert not Path("mlflow.db").exists()


def test_a_gpu_that_is_not_there_is_a_clear_error(make_project, monkeypatch):
    from regcls.training.device import device_for

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    compute = load_params(make_project({"compute": {"device": "cuda"}}) / "params.yaml").compute
    with pytest.raises(UserError, match="compute.device = cuda, but PyTorch sees no GPU"):
        device_for(compute.device)


def test_a_full_disk_leaves_the_old_file_whole_and_nothing_beside_it(tmp_path):
    path = tmp_path / "runs" / "synthetic.json"
    write_json(path, {"whole": True})
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    path.with_name(f".{path.name}.{os.getpid()}.part").symlink_to("/dev/full")  # where it is written aside
    with pytest.raises(UserError, match=f"no space left on the disk while writing {path}; nothing was replaced. Free some space"):
        write_json(path, {"whole": False})
    assert path.read_text() == '{\n  "whole": true\n}\n'
    assert os.listdir(path.parent) == ["synthetic.json"]


@pytest.mark.parametrize("number, text", [(errno.EROFS, "Read-only file system"), (errno.EACCES, "Permission denied")])
def test_a_folder_that_cannot_be_written_leaves_the_old_file_whole(tmp_path, monkeypatch, number, text):
    path = tmp_path / "summary.md"
    write_text(path, "before")

    def refuse(path, mode="r", *args, **kwargs):
        raise OSError(number, text, str(path))

    with monkeypatch.context() as patch, pytest.raises(UserError, match=f"cannot write {path}: {text}. Make the folder writable"):
        patch.setattr(Path, "open", refuse)
        write_text(path, "after")
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["summary.md"]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("/proc/regcls", "cannot write /proc/regcls: No such file or directory. Choose another place."),
        ("/dev/null/here", "cannot write /dev/null/here: /dev/null is a file, not a folder."),
        ("x" * 300, f"cannot write {'x' * 300}: File name too long. Choose another place."),
        (f"{'x' * 300}/here", f"cannot write {'x' * 300}/here: File name too long. Choose another place."),
    ],
)
def test_a_place_that_takes_no_files_is_named(cli, place, said):
    code, err = cli("data", "samples", "breakfast", place)
    assert (code, said in err) == (2, True), err


def test_what_is_read_beside_is_no_trouble_of_writing(tmp_path):
    with pytest.raises(FileNotFoundError), explain_os_errors(tmp_path / "prepared"):
        (tmp_path / "raw.tar").read_bytes()
    with pytest.raises(OSError), explain_os_errors(tmp_path / "prepared"):
        os.stat(9999)  # its error names a number


def test_a_file_below_proc_cannot_be_written():
    with pytest.raises(UserError, match="cannot write /proc/runs.json: .*Choose another place"):
        write_json(Path("/proc/runs.json"), {})


@pytest.mark.parametrize("path", ["runs/synthetic.json", "runs/a/b/synthetic.json"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, path):
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(UserError, match=f"cannot write .*: {tmp_path}/runs is a file, not a folder. Move it away"):
        write_json(tmp_path / path, {})


def test_a_file_in_the_place_of_the_lock_folder_is_named(cli):
    Path(".regcls").write_text("mine")
    code, said = cli("prepare", "synthetic")
    assert (code, f"{Path.cwd()}/.regcls is a file, not a folder" in said) == (2, True), said
