"""The command line: help with the defaults of params.yaml, and use from any folder of a project. For user errors, see test_bad_input.py."""

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from processes import run_regcls
from regcls.cli import find_root, main
from regcls.errors import UserError
from regcls.methods import in_words
from regcls.params import option_names, parse_options, resolved
from regcls.tracking.tracker import Tracker
from tracked import RESULT, SPEC, TAGS

COMMANDS = [
    "prepare",
    "train",
    "run",
    "params",
    "inputs",
    "compare",
    "setup",
    "advise",
    "predict",
    "data",
    "doctor",
    "s3",
    "show",
    "rerun",
    "delete",
    "sync",
    "methods",
    "new",
]
OF_EACH_TASK = ["functions", "imdb_wiki", "nyud2", "breakfast", "diabetes"]
BELOW = [["data", "fetch"], ["data", "samples"], ["s3", "check"]]

# Different from params.yaml's own values, so that none can be hard-coded.
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
        "seeds": [17, 1717, 18],
    },
}


NOISY_ALONE = {
    "data": {"settings": ["noisy"], "samplings": ["uniform", "severe"]},
    "grids": {f"figure{number}": {"settings": ["noisy"], "samplings": ["severe"]} for number in (3, 4, 5)},
}


pytestmark = pytest.mark.usefixtures("signals")


@pytest.fixture
def help_of(make_project, monkeypatch, capsys):
    """The paragraphs of --help of a command (none: regcls itself), with changes to params.yaml."""
    monkeypatch.setenv("COLUMNS", "1000")  # no line is wrapped

    def paragraphs(*command, changes=None):
        monkeypatch.chdir(make_project(changes))
        with pytest.raises(SystemExit) as end:
            main([*command, "--help"])
        assert end.value.code == 0
        output, mistakes = capsys.readouterr()
        assert not mistakes
        return output.strip().split("\n\n")

    return paragraphs


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), *BELOW], ids=" ".join)
def test_help_states_a_purpose_and_an_example(help_of, command):
    usage, purpose, *_, example = help_of(*command)
    assert usage.startswith(" ".join(["usage: regcls", *command]))
    assert len(purpose.split()) >= 5
    assert example.startswith(" ".join(["Example: regcls", *command]))


@pytest.mark.parametrize("dataset", OF_EACH_TASK)
def test_help_of_run_shows_the_task_and_an_example_for_a_data_set(help_of, dataset):
    usage, purpose, *_, example = help_of("run", dataset)
    task = yaml.safe_load(Path("params.yaml").read_text())[dataset]["task"]
    assert usage.startswith("usage: regcls run [-h]")
    assert purpose == f"train and track one run; here with the options of {dataset}, a data set of the task {task}"
    assert example.startswith(f"Example: regcls run {dataset} --")
    words = [word.removeprefix("--") for word in example.split()[4:]]
    parse_options(task, dict(zip(words[::2], words[1::2], strict=True)))


def test_help_of_run_without_a_data_set_describes_the_default_one(help_of):
    assert "here with the options of portraits, a data set of the task images" in help_of("run")[1]
    changes = {"default_dataset": "breakfast"}
    assert "here with the options of breakfast, a data set of the task sequences" in help_of("run", changes=changes)[1]
    assert "default breakfast" in "\n".join(help_of("run", changes=changes))


@pytest.fixture
def requested(make_project, monkeypatch):
    """The data set and options of the run requested by the words after `regcls run`."""
    monkeypatch.chdir(make_project({"default_dataset": "breakfast"}))
    requests = []
    monkeypatch.setattr("regcls.pipeline.train.run", lambda params, root, dataset, options: requests.append((dataset, options)))

    def run(*words):
        assert main(["run", *words]) == 0
        return requests.pop()

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
def test_run_uses_the_named_data_set_or_the_default(requested, words, dataset, seed):
    chosen, options = requested(*words.split())
    assert (chosen, options.seed) == (dataset, seed)


def test_a_run_has_the_options_of_its_data_sets_task(requested):
    assert requested("--unit", "frames")[1].unit == "frames"
    assert requested("functions", "--hidden", "7x11")[1].hidden == (7, 11)
    assert requested("rooms", "--align_corners", "false")[1].align_corners is False


def test_help_lists_every_command_with_its_purpose(help_of):
    listed = dict(re.findall(r"^    (\w+) +(.+)$", "\n".join(help_of()), flags=re.MULTILINE))
    assert listed == {name: help_of(name)[1].partition("; here with")[0] for name in COMMANDS}


def defaults_in(help_text):
    """Option -> its help line, from "default" on."""
    return dict(re.findall(r"^ +--([\w-]+)\b.* default (.*)$", re.sub(r"\n {8,}", " ", help_text), flags=re.MULTILINE))


def expected_defaults(functions):
    """Option -> values that its help line must contain, from params.yaml."""
    run, training = functions["run"], functions["training"]
    values = {**run, **{key: [value] for key, value in training.items()}}
    values |= {key: list(training[key].values()) for key in ("lambda", "learning_rate")}
    values |= {"hidden": ["x".join(map(str, training["hidden"]))], "seed": training["seeds"][: functions["data"]["repetitions"]]}
    values |= {"extra_loss": ["false"]}  # of grids alone
    del values["seeds"]
    return {key: value if isinstance(value, list) else [value] for key, value in values.items()}


@pytest.mark.parametrize("changes", [None, {"functions": OTHER_DEFAULTS}], ids=["shrunk", "others"])
def test_help_of_run_lists_options_with_defaults_from_params_yaml(help_of, changes):
    shown_defaults = defaults_in("\n".join(help_of("run", "functions", changes=changes)))
    expected = expected_defaults(yaml.safe_load(Path("params.yaml").read_text())["functions"])
    assert set(shown_defaults) == {name.replace("_", "-") for name in option_names("functions")}
    assert set(expected) == set(option_names("functions"))
    for name, values in expected.items():
        words = re.findall(r"[^\s,;()]+", shown_defaults[name.replace("_", "-")])
        numbers = [str(value) if isinstance(value, str) else f"{value:g}" for value in values]
        assert set(numbers) <= set(words), name
        assert len(numbers) > 1 or words[0] == numbers[0], name


@pytest.mark.parametrize("dataset", ["imdb_wiki", "agedb"])
def test_help_of_run_on_faces_lists_options_with_their_defaults(help_of, dataset):
    changes = {
        dataset: {"run": {"classes": 77, "balanced_data": True}, "training": {"width": 23, "seeds": [17, 18, 19], "lambda": {2: 0.375}}}
    }
    shown_defaults = defaults_in("\n".join(help_of("run", dataset, changes=changes)))
    section = resolved(Path("params.yaml"), yaml.safe_load(Path("params.yaml").read_text()), dataset)
    assert set(shown_defaults) == {name.replace("_", "-") for name in option_names("images")}
    for name, value in {**section["training"], **section["run"], "seed": 17, "lambda": "by classes: 0.375 (2)"}.items():
        if name in option_names("images"):
            shown = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
            assert re.match(rf"{re.escape(shown)}\b|{re.escape(str(value))}", shown_defaults[name.replace("_", "-")]), name


@pytest.mark.parametrize("dataset, others", [("breakfast", ["random", "kukleva"]), ("nyud2", []), ("functions", [])])
def test_help_of_run_lists_methods_and_augmentation_of_the_task(help_of, dataset, others):
    lines = {line.split()[0]: line for line in "\n".join(help_of("run", dataset)).splitlines() if line.strip().startswith("--")}
    methods = lines["--method"].partition("; default")[0]
    assert in_words() in methods and [name for name in ("random", "kukleva") if name in methods] == others
    assert ("augmentation" in lines["--seed"]) == (dataset == "nyud2")


def test_help_does_not_import_torch_or_mlflow(make_project):
    program = "import sys; from regcls.cli import main\ntry: main(['run', '--help'])\nexcept SystemExit: print(sorted({'torch', 'mlflow', 'pandas'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=make_project(), env=environment, text=True, capture_output=True, timeout=120
    )
    assert result.stdout.endswith("\n[]\n"), result.stdout + result.stderr


def test_regcls_without_a_command_lists_the_commands_and_fails(make_project):
    result = run_regcls(make_project())
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("usage: regcls") and "COMMAND" in result.stderr and "Traceback" not in result.stderr


def test_the_root_is_the_nearest_parent_with_a_params_yaml(make_project, tmp_path):
    root = make_project()
    (root / "notes" / "deep").mkdir(parents=True)
    assert find_root(root) == find_root(root / "notes" / "deep") == root
    inner = make_project(folder=root / "notes" / "clone")
    assert find_root(inner) == inner
    with pytest.raises(UserError, match=f"no params.yaml in {tmp_path} or above it"):
        find_root(tmp_path)


def test_commands_in_a_subfolder_work_on_the_whole_project(make_project):
    root = make_project({"functions": NOISY_ALONE})
    (root / "notes" / "deep").mkdir(parents=True)
    result = run_regcls(root / "notes" / "deep", "prepare", "functions")
    assert result.returncode == 0, result.stderr
    assert re.search(r"^noisy-0.1 +train .* sets of \d+ to \d+ samples$", result.stdout, flags=re.MULTILINE)
    assert (root / "data" / "functions" / "prepared").is_dir()
    assert (os.listdir(root / "notes"), os.listdir(root / "notes" / "deep")) == (["deep"], [])


C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

# Several commands in one process, each with the streams as a new process has them, and "exit code" after the output of each.
COMMANDS_IN_TURN = """
import json, sys
from regcls.cli import main
for command in json.loads(sys.argv[1]):
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "strict")
    try:
        code = main(command)
    except SystemExit as end:
        code = end.code
    print("exit code", code, flush=True)
    print("exit code", code, file=sys.stderr, flush=True)
"""


@pytest.fixture
def recorded(make_project):
    """The root and run id of a project with a finished run whose record is not only ASCII."""
    root = make_project()
    tracker = Tracker(root, experiment="regcls")
    run = tracker.start(SPEC, fingerprint="f", tags=TAGS, lineage={"params.yaml": "# λ é\n"})
    tracker.finish(run, RESULT)
    return root, run


def run_in_turn(root, *commands, **environment):
    """Run commands in a process of their own; return exit code, stdout and stderr of each."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment}
    program = [sys.executable, "-c", COMMANDS_IN_TURN, json.dumps(commands)]
    result = subprocess.run(program, cwd=root, env=environment, text=True, capture_output=True, timeout=120)
    assert result.returncode == 0, result.stderr
    outputs, errors = (re.split(r"^exit code (\d+)\n", text, flags=re.MULTILINE) for text in (result.stdout, result.stderr))
    assert len(outputs) == len(errors) == 2 * len(commands) + 1
    return [(int(code), *texts) for code, *texts in zip(outputs[1::2], outputs[::2], errors[::2], strict=False)]


@pytest.mark.slow
def test_every_command_works_on_an_ascii_terminal(recorded):
    root, run = recorded
    cases = (
        (["show", run], 0, r"\u03bb1000"),
        (["show", "--data", "functions"], 0, r"\u03bb1000"),
        (["run", "functions", "--classes", "4"], 0, r"\u03bb1000"),
        (["doctor"], 2, "doctor found"),
        (["run", "functions", "--help"], 0, "usage: regcls run [-h] [--dataset DATASET]"),
        (["nö"], 2, "invalid choice"),
    )
    results = run_in_turn(root, *(command for command, _, _ in cases), PYTHONIOENCODING="ascii")
    for (command, code, expected), (found, output, errors) in zip(cases, results, strict=True):
        assert found == code and "Traceback" not in errors, (command, errors)
        assert expected in output + errors and (output + errors).isascii(), command


@pytest.mark.slow
def test_commands_work_in_the_c_locale(recorded):
    root, run = recorded
    for code, output, errors in run_in_turn(root, ["show", run], ["run", "functions", "--classes", "4"], **C_LOCALE):
        assert code == 0 and r"\u03bb1000" in output + errors, errors


@pytest.mark.slow
def test_records_are_printed_verbatim_on_any_terminal(recorded):
    root, run = recorded
    assert run_regcls(root, "show", "--print", "params.yaml", run, PYTHONIOENCODING="ascii").stdout == "# λ é\n"


@pytest.mark.parametrize("name, environment", [(b"\xff", {}), ("é".encode(), C_LOCALE)], ids=["no UTF-8", "C locale"])
def test_an_undecodable_folder_name_is_a_clear_error(tmp_path, name, environment):
    folder = os.path.join(os.fsencode(tmp_path), name)
    os.mkdir(folder)
    result = run_regcls(folder, "show", "abc", **environment)
    assert result.returncode == 2
    assert re.fullmatch(r"regcls: error: the name of /\S+ cannot be read\. .*LC_ALL=C\.UTF-8 .* rename the folder\.\n", result.stderr)


def test_the_installed_command_is_the_modules_main():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"] == {"regcls": f"{main.__module__}:{main.__name__}"}


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_whose_reader_has_ended_ends_the_command_without_a_word(unbuffered):
    read, write = os.pipe()
    os.close(read)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "regcls", "params", "portraits"]
    result = subprocess.run(command, cwd=ROOT, env=environment, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (result.returncode, result.stderr) == (128 + signal.SIGPIPE, "")


def test_an_error_is_not_hidden_by_output_that_nobody_reads():
    read, write = os.pipe()
    os.close(read)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": ""}
    failing = "import sys\nimport regcls.cli as cli\ncli.load_params = lambda file: print('some output') or {}['a bug']\nsys.exit(cli.main(['methods']))"
    for command, code, message in ((["params", "none"], 2, "none is not a data set"), (None, 1, "KeyError: 'a bug'")):
        program = [sys.executable, *(["-m", "regcls", *command] if command else ["-c", failing])]
        result = subprocess.run(program, cwd=ROOT, env=environment, stdout=write, stderr=subprocess.PIPE, text=True)
        assert result.returncode in (code, 120) and message in result.stderr  # 120: Python itself cannot write the output
    os.close(write)


def test_output_to_a_full_disk_is_an_error():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "regcls", "params", "portraits"]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": ""}
        result = subprocess.run(command, cwd=ROOT, env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (result.returncode, result.stderr) == (2, "regcls: error: cannot write the output: No space left on device\n")
