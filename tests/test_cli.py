"""The command line as a user meets it: help with the defaults of params.yaml, and the project found from any folder of it. Mistakes: test_bad_input.py."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from regcls.cli import find_root, main
from regcls.errors import UserError
from regcls.methods import in_words
from regcls.params import option_names, parse_options, resolved
from regcls.tracking.tracker import Tracker
from tracked import RESULT, SPEC, TAGS

COMMANDS = ["prepare", "train", "run", "params", "inputs", "compare", "setup", "predict", "data", "doctor", "s3", "show", "rerun", "sync"]
OF_EACH_TASK = ["functions", "imdb_wiki", "nyud2", "breakfast"]
BELOW = [["data", "fetch"], ["data", "samples"], ["s3", "check"]]

# Unlike params.yaml's own, so that none of them can stand in the code.
OTHER_DEFAULTS = {
    "run": {"setting": "clean", "sampling": "mild", "noise": 0.5, "method": "reg+cls-bal", "classes": 77, "repetition": 1},
    "data": {"noise": [0.1, 0.5]},
    "training": {
        "hidden": [7, 11],
        "epochs": 83,
        "batch_size": 123,
        "optimizer": "sgd",
        "weight_decay": 0.0625,
        "learning_rate": {"clean": 0.375, "noisy": 0.625, "ood": 0.875},
        "lambda": {"clean": 31.5, "noisy": 32.5, "ood": 33.5},
        "precision": "float64",
        "seeds": [17, 1717],
    },
}


NOISY_ALONE = {
    "data": {"settings": ["noisy"], "samplings": ["uniform", "severe"]},
    "grids": {f"figure{number}": {"settings": ["noisy"], "samplings": ["severe"]} for number in (3, 4, 5)},
}


pytestmark = pytest.mark.usefixtures("signals")


def regcls(folder, *arguments, **environment):
    """A process of its own, as a user starts it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment}
    return subprocess.run(
        [sys.executable, "-m", "regcls", *arguments], cwd=folder, env=environment, text=True, capture_output=True, timeout=120
    )


@pytest.fixture
def help_of(make_project, monkeypatch, capsys):
    """Command (none: regcls itself), changes to params.yaml -> what --help says there, paragraph by paragraph."""
    monkeypatch.setenv("COLUMNS", "1000")  # no line is broken

    def paragraphs(*command, changes=None):
        monkeypatch.chdir(make_project(changes))
        with pytest.raises(SystemExit) as end:
            main([*command, "--help"])
        assert end.value.code == 0
        said, mistakes = capsys.readouterr()
        assert not mistakes
        return said.strip().split("\n\n")

    return paragraphs


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), *BELOW], ids=" ".join)
def test_help_states_a_purpose_and_an_example(help_of, command):
    usage, purpose, *_, example = help_of(*command)
    assert usage.startswith(" ".join(["usage: regcls", *command]))
    assert len(purpose.split()) >= 5
    assert example.startswith(" ".join(["Example: regcls", *command]))


@pytest.mark.parametrize("dataset", OF_EACH_TASK)
def test_help_of_a_data_set_names_its_task_and_an_example_of_its_own(help_of, dataset):
    usage, purpose, *_, example = help_of("run", dataset)
    task = yaml.safe_load(Path("params.yaml").read_text())[dataset]["task"]
    assert usage.startswith("usage: regcls run [-h]")
    assert purpose == f"train and track one run; here with the options of {dataset}, a data set of the task {task}"
    assert example.startswith(f"Example: regcls run {dataset} --")
    words = [word.removeprefix("--") for word in example.split()[4:]]
    parse_options(task, dict(zip(words[::2], words[1::2], strict=True)))


def test_help_of_run_without_a_data_set_is_that_of_the_default_one(help_of):
    assert "here with the options of portraits, a data set of the task images" in help_of("run")[1]
    changes = {"default_dataset": "breakfast"}
    assert "here with the options of breakfast, a data set of the task sequences" in help_of("run", changes=changes)[1]
    assert "default breakfast" in "\n".join(help_of("run", changes=changes))


@pytest.fixture
def asked_for(make_project, monkeypatch):
    """Words after `regcls run` -> the data set and the options of the run that is to be made."""
    monkeypatch.chdir(make_project({"default_dataset": "breakfast"}))
    made = []
    monkeypatch.setattr("regcls.pipeline.train.run", lambda params, root, dataset, options: made.append((dataset, options)))

    def run(*words):
        assert main(["run", *words]) == 0
        return made.pop()

    return run


@pytest.mark.parametrize(
    "words, dataset, seed",
    [
        ("", "breakfast", None),
        ("--seed 3", "breakfast", 3),
        ("--seed=3", "breakfast", 3),
        ("rooms", "rooms", None),
        ("rooms --seed 3", "rooms", 3),
        ("--seed 3 rooms", "rooms", 3),
        ("--dataset rooms --seed 3", "rooms", 3),
        ("--seed 3 --dataset=rooms", "rooms", 3),
        ("rooms --dataset rooms", "rooms", None),
    ],
)
def test_a_run_is_on_the_data_set_that_is_named_as_an_argument_or_an_option_or_else_on_the_default(asked_for, words, dataset, seed):
    made, options = asked_for(*words.split())
    assert (made, options.seed) == (dataset, seed)


def test_a_run_takes_the_options_of_its_data_sets_task(asked_for):
    assert asked_for("--unit", "frames")[1].unit == "frames"
    assert asked_for("functions", "--hidden", "7x11")[1].hidden == (7, 11)
    assert asked_for("rooms", "--align_corners", "false")[1].align_corners is False


def test_help_lists_every_command_with_its_purpose(help_of):
    listed = dict(re.findall(r"^    (\w+) +(.+)$", "\n".join(help_of()), flags=re.MULTILINE))
    assert listed == {name: help_of(name)[1].partition("; here with")[0] for name in COMMANDS}


def defaults_in(help_text):
    """Option -> the line about it, from "default" on."""
    return dict(re.findall(r"^ +--([\w-]+)\b.* default (.*)$", re.sub(r"\n {8,}", " ", help_text), flags=re.MULTILINE))


def expected_defaults(functions):
    """Option -> what its line must name, from the keys of params.yaml."""
    run, training = functions["run"], functions["training"]
    values = {**run, **{key: [value] for key, value in training.items()}}
    values |= {key: list(training[key].values()) for key in ("lambda", "learning_rate")}
    values |= {"hidden": ["x".join(map(str, training["hidden"]))], "seed": training["seeds"][: functions["data"]["repetitions"]]}
    del values["seeds"]
    return {key: value if isinstance(value, list) else [value] for key, value in values.items()}


@pytest.mark.parametrize("changes", [None, {"functions": OTHER_DEFAULTS}], ids=["shrunk", "others"])
def test_help_of_run_names_every_option_with_the_default_of_params_yaml(help_of, changes):
    said = defaults_in("\n".join(help_of("run", "functions", changes=changes)))
    expected = expected_defaults(yaml.safe_load(Path("params.yaml").read_text())["functions"])
    assert set(said) == {name.replace("_", "-") for name in option_names("functions")}
    assert set(expected) == set(option_names("functions"))
    for name, values in expected.items():
        words = re.findall(r"[^\s,;()]+", said[name.replace("_", "-")])
        numbers = [str(value) if isinstance(value, str) else f"{value:g}" for value in values]
        assert set(numbers) <= set(words), name
        assert len(numbers) > 1 or words[0] == numbers[0], name


@pytest.mark.parametrize("dataset", ["imdb_wiki", "agedb"])
def test_help_of_run_on_faces_names_every_option_with_the_default_of_params_yaml(help_of, dataset):
    changes = {
        dataset: {"run": {"classes": 77, "balanced_data": True}, "training": {"width": 23, "seeds": [17, 18, 19], "lambda": {2: 0.375}}}
    }
    said = defaults_in("\n".join(help_of("run", dataset, changes=changes)))
    section = resolved(Path("params.yaml"), yaml.safe_load(Path("params.yaml").read_text()), dataset)
    assert set(said) == {name.replace("_", "-") for name in option_names("images")}
    for name, value in {**section["training"], **section["run"], "seed": 17, "lambda": "by classes: 0.375 (2)"}.items():
        if name in option_names("images"):
            shown = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
            assert re.match(rf"{re.escape(shown)}\b|{re.escape(str(value))}", said[name.replace("_", "-")]), name


@pytest.mark.parametrize("dataset, others", [("breakfast", ["random", "kukleva"]), ("nyud2", []), ("functions", [])])
def test_help_of_run_names_every_method_and_augmentation_only_where_there_is_one(help_of, dataset, others):
    lines = {line.split()[0]: line for line in "\n".join(help_of("run", dataset)).splitlines() if line.strip().startswith("--")}
    known = lines["--method"].partition("; default")[0]
    assert in_words() in known and [name for name in ("random", "kukleva") if name in known] == others
    assert ("augmentation" in lines["--seed"]) == (dataset == "nyud2")


def test_help_does_not_wait_for_torch_or_mlflow(make_project):
    program = "import sys; from regcls.cli import main\ntry: main(['run', '--help'])\nexcept SystemExit: print(sorted({'torch', 'mlflow', 'pandas'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", program], cwd=make_project(), env=environment, text=True, capture_output=True, timeout=120)
    assert done.stdout.endswith("\n[]\n"), done.stdout + done.stderr


def test_regcls_without_a_command_names_the_commands_and_fails(make_project):
    done = regcls(make_project())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: regcls") and "COMMAND" in done.stderr and "Traceback" not in done.stderr


def test_the_root_is_the_nearest_folder_upwards_with_a_params_yaml(make_project, tmp_path):
    root = make_project()
    (root / "notes" / "deep").mkdir(parents=True)
    assert find_root(root) == find_root(root / "notes" / "deep") == root
    inner = make_project(folder=root / "notes" / "clone")
    assert find_root(inner) == inner
    with pytest.raises(UserError, match=f"no params.yaml in {tmp_path} or above it"):
        find_root(tmp_path)


def test_a_command_in_a_subfolder_works_for_the_whole_project(make_project):
    root = make_project({"functions": NOISY_ALONE})
    (root / "notes" / "deep").mkdir(parents=True)
    done = regcls(root / "notes" / "deep", "prepare", "functions")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^noisy-0.1 +train .* sets of \d+ to \d+ samples$", done.stdout, flags=re.MULTILINE)
    assert (root / "data" / "functions" / "prepared").is_dir()
    assert (os.listdir(root / "notes"), os.listdir(root / "notes" / "deep")) == (["deep"], [])


C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture
def recorded(make_project):
    """A project with a finished run whose record is not all ASCII: its root and the run's id."""
    root = make_project()
    tracker = Tracker(root, experiment="regcls")
    run = tracker.start(SPEC, fingerprint="f", tags=TAGS, lineage={"params.yaml": "# λ é\n"})
    tracker.finish(run, RESULT)
    return root, run


@pytest.mark.slow
def test_where_only_ascii_can_be_written_every_command_says_what_it_has_to(recorded):
    root, run = recorded
    for command, code, said in (
        (["show", run], 0, r"\u03bb1000"),
        (["show", "--data", "functions"], 0, r"\u03bb1000"),
        (["show", "nö"], 2, "regcls: error: no run in"),
        (["run", "functions", "--classes", "4"], 0, r"\u03bb1000"),
        (["compare"], 0, "reports/index.html"),
        (["doctor"], 2, "doctor found"),
        (["--help"], 0, "usage: regcls"),
        (["run", "functions", "--help"], 0, "usage: regcls run [-h] [--dataset DATASET]"),
        (["nö"], 2, "invalid choice"),
    ):
        done = regcls(root, *command, PYTHONIOENCODING="ascii")
        assert done.returncode == code and "Traceback" not in done.stderr, (command, done.stderr)
        assert said in done.stdout + done.stderr and (done.stdout + done.stderr).isascii(), command


@pytest.mark.slow
def test_the_c_locale_is_no_obstacle(recorded):
    root, run = recorded
    for command in (["show", run], ["run", "functions", "--classes", "4"]):
        done = regcls(root, *command, **C_LOCALE)
        assert done.returncode == 0 and r"\u03bb1000" in done.stdout + done.stderr, done.stderr


@pytest.mark.slow
def test_a_part_of_a_record_is_printed_as_it_was_whatever_the_terminal_can_show(recorded):
    root, run = recorded
    assert regcls(root, "show", "--print", "params.yaml", run, PYTHONIOENCODING="ascii").stdout == "# λ é\n"


@pytest.mark.parametrize("name, environment", [(b"\xff", {}), ("é".encode(), C_LOCALE)], ids=["no UTF-8", "C locale"])
def test_a_folder_whose_name_cannot_be_read_is_an_error_that_names_it(tmp_path, name, environment):
    folder = os.path.join(os.fsencode(tmp_path), name)
    os.mkdir(folder)
    done = regcls(folder, "show", "abc", **environment)
    assert done.returncode == 2
    assert re.fullmatch(r"regcls: error: the name of /\S+ cannot be read\. .*LC_ALL=C\.UTF-8 .* rename the folder\.\n", done.stderr)


def test_the_installed_command_is_the_one_of_the_module():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"] == {"regcls": f"{main.__module__}:{main.__name__}"}
