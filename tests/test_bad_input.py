"""User errors: one clear message on stderr, exit code 2, nothing half-written. For damaged prepared files, see data/test_store.py."""

import errno
import json
import os
from copy import deepcopy
from dataclasses import asdict
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from processes import run_regcls
from regcls.cli import main
from regcls.data.store import prepared_folder, write_prepared
from regcls.errors import UserError
from regcls.files import explain_os_errors, write_json, write_text
from regcls.methods import KINDS
from regcls.params import load_params
from regcls.params.reading import read_yaml
from regcls.tasks.functions.data import FunctionSets

pytestmark = pytest.mark.usefixtures("signals")

# Of values that never enter a product: as small as one likes.
SHARES = ("mild", "moderate", "severe", "flip", "decay", "jitter", "rotate", "validation_share", "test_share")
PARTS = ", ".join(KINDS)


def nested(keys, value):
    """("a.b", 1) -> {"a": {"b": 1}}"""
    for key in reversed(keys.split(".")):
        value = {key: value}
    return value


def error_of(root):
    """The error of load_params for a params.yaml."""
    with pytest.raises(UserError) as error:
        load_params(root / "params.yaml")
    return str(error.value).removeprefix(f"{root}/params.yaml").removeprefix(": ")


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("tracking.experimint", "x", "tracking.experimint is not a known key; did you mean experiment?"),
        ("portraits.epochs", 3, "portraits.epochs is not a known key; did you mean training.epochs?"),
        ("portraits.bananas", 3, "portraits.bananas is not a known key"),
        ("houses", {"liek": "portraits"}, "or `like:` and the name of another data set; did you mean like?"),
        ("functions.trainign", {}, "functions.trainign is not a known key"),
        (
            "functions.training.epochs",
            "80",
            'functions.training.epochs = "80": Input should be a valid integer (YAML reads this as text: write 80,',
        ),
        ("functions.training.epochs", 80.5, "functions.training.epochs = 80.5: Input should be a valid integer"),
        ("functions.training.epochs", "many", 'functions.training.epochs = "many": Input should be a valid integer'),
        ("functions.training.epochs", None, "functions.training.epochs = null: Input should be a valid integer"),
        (
            "functions.training.weight_decay",
            "1e-3",
            'weight_decay = "1e-3": Input should be a valid number (YAML reads this as text: write 0.001,',
        ),
        ("functions.training.weight_decay", -0.1, "functions.training.weight_decay = -0.1: Input should be greater than or equal to 0"),
        (
            "functions.training.learning_rate.clean",
            float("nan"),
            "functions.training.learning_rate.clean = NaN: Input should be a finite number",
        ),
        ("functions.training.lambda.noisy", 0, "functions.training.lambda.noisy = 0: Input should be greater than 0"),
        ("functions.training.hidden", [6], "functions.training.hidden = [6]: Tuple should have at least 2 items"),
        ("functions.training.optimizer", "adamw", "functions.training.optimizer = \"adamw\": Input should be 'adam' or 'sgd'"),
        ("functions.run.classes", 0, "functions.run.classes = 0: Input should be greater than or equal to 2"),
        ("functions.run.classes", True, "functions.run.classes = true: Input should be a valid integer"),
        ("functions.run.repetition", 2, "functions.run.repetition = 2, but only 0 to 1 are prepared"),
        ("functions.grids.figure3.classes", [], "functions.grids.figure3.classes = []: Tuple should have at least 1 item"),
        ("functions.grids.figure3.classes", [4, 0], "functions.grids.figure3.classes.1 = 0: Input should be greater than or equal to 2"),
        ("functions.grids.figure3.classes", [4, 4], "functions.grids.figure3.classes = [4, 4]: a value is in the list twice"),
        (
            "functions.grids.figure3.settings",
            ["clear"],
            "functions.grids.figure3.settings.0 = \"clear\": Input should be 'clean', 'noisy' or 'ood'",
        ),
        ("functions.grids.figure4.lambdas", [1.0, -1.0], "functions.grids.figure4.lambdas.1 = -1.0: Input should be greater than 0"),
        ("functions.grids.figure4.lambdas", "defalt", "functions.grids.figure4.lambdas = \"defalt\": Input should be 'default'"),
        ("functions.grids.figure-3b", {"settings": 1}, "functions.grids.figure-3b.settings = 1: Input should be a valid array"),
        (
            "functions.grids.figure5.noise",
            [0.3],
            "functions.grids.figure5.noise asks for [0.3], but functions.data.noise prepares only [0.1]",
        ),
        ("functions.grids.figure3.repetitions", 3, "functions.grids.figure3.repetitions = 3, but functions.data.repetitions prepares 2"),
        ("functions.data.repetitions", 6, "functions.data.repetitions = 6, but functions.data.data_seeds has 5 seeds"),
        ("functions.data.samplings", ["severe"], "functions.data.samplings must include 'uniform'"),
        ("functions.data.samples", 100, "functions.data.samples = 100: Input should be greater than or equal to 18432"),
        ("functions.data.functions", [[0.5]], "functions.data.functions.0.1 is missing"),
        (
            "functions",
            None,
            "functions is neither a known key nor a data set, which has `task:` or `like:`. Known keys: datasets, default_dataset,",
        ),
        ("functions", 3, "functions is neither a known key nor a data set"),
        ("scale", "demo", "scale is neither a known key nor a data set"),
        (
            "trackin",
            {"experiment": "x"},
            "trackin.task = null: write one of functions, images, depth, sequences, table, or `like:` and the name of",
        ),
        ("functions.task", "function", 'functions.task = "function": write one of functions, images, depth, sequences, table, or `like:`'),
        ("houses", {"task": ["images"]}, 'houses.task = ["images"]: write one of functions, images, depth, sequences'),
        (
            "houses",
            {"like": "imdbwiki"},
            'houses.like = "imdbwiki": there is no such section; did you mean imdb_wiki?',
        ),
        ("houses", {"like": "tracking"}, 'houses.like = "tracking": there is no such section'),
        ("houses", {"like": None}, "houses.like = null: there is no such section"),
        ("houses", {"like": ["rooms", "walks"]}, 'houses.like = ["rooms", "walks"]: there is no such section'),
        ("houses", {"like": "houses"}, "houses inherits from itself"),
        ("imdb_wiki.like", "portraits", "imdb_wiki inherits from itself through portraits"),
        ("portraits.training.epoch", 3, "portraits.training.epoch is not a known key"),
        (
            "portraits.grids",
            {"tabel3": {"seeds": 1}},
            "portraits.grids.tabel3.methods is missing; portraits.grids.tabel3.classes is missing (and 2 more)",
        ),
        ("portraits.grids.lambda_search", None, "portraits.grids.table3.lambdas = 'searched' needs the grid portraits.grids.lambda_search"),
        ("portraits.title", "", 'portraits.title = "": String should have at least 1 character'),
        (
            "imdb_wiki.training.pad",
            -1,
            "imdb_wiki.training.pad = -1: Input should be greater than or equal to 0",
        ),  # not of those that inherit from it
        ("imdb_wiki.data.layout", "json", "imdb_wiki.data.layout = \"json\": Input should be 'imdb-wiki' or 'csv'"),
        ("imdb_wiki.data.target", "", 'imdb_wiki.data.target = "": String should have at least 1 character'),
        ("datasets", [], "datasets = []: Tuple should have at least 1 item"),
        ("datasets", "functions", 'datasets = "functions": Input should be a valid array'),
        ("datasets", ["functions", "functions"], 'datasets = ["functions", "functions"]: a value is in the list twice'),
        (
            "datasets",
            ["functions", "sinthetic"],
            "datasets names sinthetic, which has no section; sections: functions, functions_small, imdb_wiki",
        ),
        (
            "default_dataset",
            "compute",
            "default_dataset names compute, which has no section; sections: functions, functions_small, imdb_wiki",
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
        (
            "imdb_wiki.training.milestones",
            [8, 6],
            "imdb_wiki.training.milestones = [8, 6]: write the values in increasing order, each once",
        ),
        (
            "imdb_wiki.training.class_range",
            [100.0, 0.0],
            "imdb_wiki.training.class_range = [100.0, 0.0]: write the values in increasing order",
        ),
        ("imdb_wiki.training.lambda", {1: 0.1}, "Input should be greater than or equal to 2"),
        ("imdb_wiki.training.flip", 1.5, "imdb_wiki.training.flip = 1.5: Input should be less than or equal to 1"),
        (
            "portraits.data.layout",
            "csv",
            "portraits.data.source = stand-in generates portraits in the layout imdb-wiki, but portraits.data.layout = csv",
        ),
        ("agedb.training.pad", 300, "agedb.training.pad = 300 must be less than agedb.data.size = 32"),
        ("agedb.shots.few_below", 200, "agedb.shots: few_below = 200 and many_above = 6 overlap"),
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
        ("nyud2.data.crop", [227, 304], "nyud2.data.crop = [227, 304]: write even numbers: depth is predicted at half the size"),
        ("nyud2.data.crop", [38, 44], "nyud2.data.crop = [38, 44]: it is higher than nyud2.data.short_side = 36"),
        ("nyud2.data.layout", "csv", "nyud2.data.source = stand-in generates rooms in the layout nyu2, but nyud2.data.layout = csv: write"),
        ("nyud2.data", {"layout": "csv", "source": "raw", "crop": [44, 38]}, "nyud2.data.crop = [44, 38]: its shorter side is longer than"),
        ("nyud2.data.deepest", "data", "nyud2.data.deepest = data is for layout csv: in layout nyu2, depth ends at 10.0"),
        ("nyud2.data.depth_scale", 0, "nyud2.data.depth_scale = 0: Input should be greater than 0"),
        ("nyud2.data.invalid", ["none"], 'nyud2.data.invalid.0 = "none": Input should be a valid number'),
        (
            "nyud2",
            {"data": {"layout": "csv", "source": "raw"}, "training": {"depth_resampling": "released"}},
            "nyud2.training.depth_resampling = released is for 8-bit depth only, not for layout csv: write nearest or measured",
        ),
        ("nyud2.shots", {"many_above": 0.2}, "nyud2.shots: few_below = 0.25 and many_above = 0.2 overlap: a bucket would be both"),
        ("nyud2.data.validation_share", 1.0, "nyud2.data.validation_share = 1.0: Input should be less than 1"),
        ("nyud2.shots.many", [[9, 100]], "nyud2.shots.many.0.1 = 100: Input should be less than 100"),
        ("nyud2.shots.many", [[45, 9]], "nyud2.shots.many: [45, 9] ends before it begins"),
        ("nyud2.shots.medium", [[44, 46]], "nyud2.shots: bucket 44 is in many and in medium"),
        ("nyud2.training.weights", "", 'nyud2.training.weights = "": String should have at least 1 character'),
        ("nyud2.training.class_range", [-1.0, 10.0], "nyud2.training.class_range = [-1.0, 10.0]: depth begins at 0"),
        ("nyud2.grids.table2.seeds", 4, "nyud2.grids.table2.seeds = 4, but nyud2.training.seeds has only 3"),
        ("breakfast.data.test_persons.s2", [28, 16], "breakfast.data.test_persons.s2 = [28, 16] ends before it begins"),
        ("breakfast.data.test_persons", {"s5": [1, 2]}, "breakfast.data.test_persons"),
        (
            "breakfast.run.method",
            "regcls",
            f'breakfast.run.method = "regcls": there is no method regcls; there are {PARTS}, random, kukleva',
        ),
        (
            "nyud2.run.method",
            "focal+cls",
            f'nyud2.run.method = "focal+cls": focal+cls: there is no focal; there are {PARTS}',
        ),
        ("functions.run.method", "random", f'functions.run.method = "random": there is no method random; there are {PARTS}'),
        ("functions.run.method", 1, "functions.run.method = 1: Input should be a valid string"),
        (
            "functions.grids.figure3.methods",
            ["reg", "focal-r(bet=1)"],
            'functions.grids.figure3.methods.1 = "focal-r(bet=1)": focal-r(bet=1): focal-r has no option bet; it has beta, gamma',
        ),
        (
            "imdb_wiki.grids.table3.methods",
            ["reg", "reg+bal"],
            'imdb_wiki.grids.table3.methods.1 = "reg+bal": reg+bal: there is no bal; there are reg, ',
        ),
        (
            "breakfast.grids.table5.methods",
            ["focal-r(gamma=-1)"],
            "breakfast.grids.table5.methods.0 = \"focal-r(gamma=-1)\": focal-r(gamma=-1): gamma = '-1' is not a number of 0 or more",
        ),
        (
            "nyud2.grids.table2.methods",
            ["focal-r", "focal-r(beta=0.2)"],
            'nyud2.grids.table2.methods = ["focal-r", "focal-r(beta=0.2)"]: a value is in the list twice',
        ),
        (
            "imdb_wiki.grids",
            {
                "table3": {"methods": ["focal-r", "focal-r+cls", "focal-r+cls-bal"], "lambdas": "searched"},
                "lambda_search": {"seeds": 1, "methods": ["reg+cls"]},
            },
            "imdb_wiki.grids.lambda_search does not search λ for focal-r+cls, focal-r+cls-bal",
        ),
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
        ("compute.gpus", 0, "compute.gpus = 0: Input should be 'auto'; compute.gpus = 0: Input should be greater than or equal to 1"),
        ("compute.device", "tpu", "compute.device = \"tpu\": Input should be 'auto', 'cpu' or 'cuda'"),
    ],
)
def test_errors_in_params_yaml_give_key_value_and_what_is_allowed(make_project, key, value, message):
    assert message in error_of(make_project(nested(key, value)))


@pytest.mark.parametrize(
    "path, message",
    [
        (["functions", "training", "epochs"], "functions.training.epochs is missing"),
        (["functions", "training", "lambda"], "functions.training.lambda is missing"),
        (["imdb_wiki", "data", "stand_in", "seed"], "imdb_wiki.data.stand_in.seed is missing"),
        (["tracking", "experiment"], "tracking.experiment is missing"),
    ],
)
def test_a_missing_key_is_reported(make_project, path, message):
    root = make_project()
    tree = yaml.safe_load((root / "params.yaml").read_text())
    section = tree
    for key in path[:-1]:
        section = section[key]
    del section[path[-1]]
    (root / "params.yaml").write_text(yaml.safe_dump(tree))
    assert message in error_of(root)


@pytest.mark.parametrize(
    "text, message",
    [
        (b"", " has no keys. Restore it with: git checkout params.yaml"),
        (b"- 1", " has no keys"),
        (b"datasets: [rooms", " is not YAML: while parsing a flow sequence"),
        (b"\tdatasets: rooms", "is not YAML: while scanning"),
        (b"\xff\xfe\x00", " is not YAML: 'utf-8' codec can't decode"),
        (b"datasets: !!python/object:os.system rooms", " is not YAML: could not determine a constructor"),
        (b"datasets: [rooms]", "default_dataset is missing; tracking is missing (and 1 more)"),
        (b"datasets: &x [*x]", " has a value that cannot be a parameter: Circular reference"),
        (b"tracking: {2020-01-01: 1}", " has a value that cannot be a parameter: keys must be str"),
        (b"2020-01-01: 1", "2020-01-01 is neither a known key nor a data set"),
    ],
)
def test_a_file_that_is_not_a_params_yaml_is_a_clear_error(tmp_path, text, message):
    (tmp_path / "params.yaml").write_bytes(text)
    assert message in error_of(tmp_path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: 1\nb: {c: 2,\n  c: 3}", ", line 3: the key c is there already in line 2: keep one of the two"),
        ("a: {2: x, '2': y}", ", line 1: the key 2 is there already in line 1"),
        ("a: 1\nb: 010", ", line 2: 010 is another number to PyYAML than to DVC: write it without leading zeros and colons"),
        ("a: [1:30]", ", line 1: 1:30 is another number to PyYAML than to DVC"),
        ("a: -1:30.5", ", line 1: -1:30.5 is another number"),
        ("010: a", ", line 1: 010 is another number"),
        ("a: 1" + "0" * 5000, ", line 1: a number has 5001 characters: at most 100 are read"),
        ("a: " + "[" * 5000, ", line 1: lists and mappings are nested more than 30 deep"),
        ("a: " + "{b: " * 5000, ", line 1: lists and mappings are nested more than 30 deep"),
        ("a: !!int one", " is not YAML: invalid literal for int()"),
        ("a: 2020-13-01", " is not YAML: month must be in 1..12"),
    ],
)
def test_yaml_that_is_read_in_different_ways_or_not_at_all_is_refused(tmp_path, text, message):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        load_params(tmp_path / "params.yaml")
    assert str(error.value).startswith(f"{tmp_path}/params.yaml{message}")


def test_aliases_that_multiply_are_refused(tmp_path):
    rows = ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    (tmp_path / "params.yaml").write_text("\n".join(rows))
    assert error_of(tmp_path) == ", line 6: there are more than 100,000 values from here on"


def test_aliases_merges_and_plain_numbers_are_read_as_usual(tmp_path):
    text = "a: &a {x: 0, y: 0.5}\nb: {<<: *a, x: -12}\nc: {<<: *a, y: 0x10}\nd: [1_000, 1.0e-3, '010', 10]\n"
    (tmp_path / "params.yaml").write_text(text)
    assert read_yaml(tmp_path / "params.yaml") == yaml.safe_load(text)


def numbers(tree, keys=()):
    """The places of all numbers in a tree, with their values."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield (*keys, key), value
        yield from numbers(value, (*keys, key))


@pytest.mark.slow
def test_no_number_may_be_so_large_or_small_that_it_exhausts_memory_or_float32(make_project):
    root = make_project()
    tree = yaml.safe_load((root / "params.yaml").read_text())
    whole = {name: section for name, section in tree.items() if not isinstance(section, dict) or "like" not in section}
    (root / "params.yaml").write_text(yaml.safe_dump(whole | {"datasets": ["functions"], "default_dataset": "functions"}))
    load_params(root / "params.yaml")
    for keys, value in numbers(whole):
        tree = deepcopy(whole) | {"datasets": ["functions"], "default_dataset": "functions"}
        place = reduce(lambda node, key: node[key], keys[:-1], tree)
        for wrong in (10**30, -(10**30)) if isinstance(value, int) else (1e300, -1e300, 1e-300):
            if wrong == 1e-300 and keys[-1] in SHARES:
                continue
            place[keys[-1]] = wrong
            (root / "params.yaml").write_text(yaml.dump(tree, Dumper=yaml.CSafeDumper))
            assert str(keys[-1] if isinstance(keys[-1], str) else keys[-2]) in error_of(root), (keys, wrong)


@pytest.mark.parametrize("name", ["../houses", "old houses", ".houses", "-houses", "", "houses.v2", "houses/v2", "houses\n"])
def test_invalid_data_set_names_are_refused(make_project, name):
    expected = f"{json.dumps(name)} cannot be the name of a data set: a name begins with a letter or digit"
    assert error_of(make_project({name: {"like": "portraits"}})).startswith(expected)


def test_a_date_in_place_of_a_number_is_reported(make_project):
    root = make_project()
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace("epochs: 2\n", "epochs: 2020-01-01\n"))
    assert 'functions.training.epochs = "2020-01-01": Input should be a valid integer' in error_of(root)


def test_an_inherited_error_is_reported_where_it_was_made(make_project):
    root = make_project({"imdb_wiki": {"training": {"epochs": 0}}})
    tree = yaml.safe_load((root / "params.yaml").read_text())
    (root / "params.yaml").write_text(yaml.safe_dump({"agedb": tree.pop("agedb"), **tree}, sort_keys=False))
    assert error_of(root).startswith("imdb_wiki.training.epochs = 0: ")
    del tree["imdb_wiki"]["task"]
    (root / "params.yaml").write_text(yaml.safe_dump({"agedb": {"like": "imdb_wiki"}, **tree}, sort_keys=False))
    assert error_of(root).startswith("imdb_wiki.task = null: ")


def test_errors_in_data_sets_that_are_not_chosen_are_found_too(make_project):
    assert "walks.data.persons is not a known key" in error_of(make_project({"datasets": ["functions"], "walks": {"data": {"persons": 4}}}))


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("functions.grids.figure4.lambdas", [0.0], "functions.grids.figure4.lambdas.0 = 0.0: Input should be greater than 0"),
        ("functions.trainign", {}, "functions.trainign is not a known key"),
        (
            "portraits.grids.table3.methods",
            ["focal"],
            'portraits.grids.table3.methods.0 = "focal": there is no method focal; there are reg,',
        ),
    ],
)
def test_errors_in_params_yaml_end_a_command_with_one_line_and_code_2(make_project, key, value, message):
    result = run_regcls(make_project(nested(key, value)), "train", "functions")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("regcls: error: ") and message in result.stderr and result.stderr.count("\n") == 1


@pytest.fixture
def cli(make_project, monkeypatch, capsys):
    """Run a command in a project, in this process; return its exit code and stderr."""
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
        (["noisy"], "regcls run takes one data set, not functions and noisy"),
        (["--classes", "four"], '--classes = "four": Input should be a valid integer'),
        (["--classes", "1"], '--classes = "1": Input should be greater than or equal to 2'),
        (["--classes", ""], '--classes = ""'),
        (["--lambda", "0"], '--lambda = "0": Input should be greater than 0'),
        (["--lambda", "1e-300"], '--lambda = "1e-300": networks compute in float32: write a number from 1e-30 to 1e+30'),
        (["--classes", "2000000000"], '--classes = "2000000000": Input should be less than or equal to 65536'),
        (["--epochs", "9" * 30], "Input should be less than or equal to 1000000"),
        (["--lambda", "nan"], '--lambda = "nan": Input should be a finite number'),
        (["--batch-size", "0"], '--batch-size = "0": Input should be greater than or equal to 1'),
        (["--batch_size", "x"], '--batch-size = "x": Input should be a valid integer'),
        (["--learning-rate=-1"], '--learning-rate = "-1": Input should be greater than 0'),
        (
            ["--method", "cls"],
            '--method = "cls": cls: a class loss stands beside a regression loss: write reg+cls',
        ),
        (
            ["--method", "focal-r+class"],
            '--method = "focal-r+class": focal-r+class: there is no class; there are reg, ',
        ),
        (["--method", "focal-r(alpha=1)"], "focal-r(alpha=1): focal-r has no option alpha; it has beta, gamma"),
        (["--method=focal-r(beta=x)+cls"], "beta = 'x' is not a number of 0 or more"),
        (
            ["--method", "focal-r", "--lambda", "4"],
            "method focal-r has no classes and no λ: leave out --classes and --lambda, or choose one",
        ),
        (
            ["--method", "focal-r(beta=1)+cls", "--rounding", "ceil"],
            "method focal-r(beta=1)+cls has no balanced classes: leave out --rounding",
        ),
        (["--hidden", "6"], '--hidden = "6": write the units of two layers, as in 6x15'),
        (["--seed", "-1"], '--seed = "-1": Input should be greater than or equal to 0'),
        (
            ["--method", "reg", "--classes", "4"],
            "method reg has no classes and no λ: leave out --classes and --lambda, or choose one with +cls",
        ),
        (["--method", "reg", "--lambda", "4"], "method reg has no classes and no λ"),
        (["--setting", "clean", "--noise", "0.1"], "setting clean has no noise: leave out --noise, or choose --setting noisy"),
        (["--setting", "ood"], "--setting = ood: prepared are clean, noisy (functions.data.settings in params.yaml)"),
        (["--noise", "0.3"], "--noise = 0.3: prepared are 0.1 (functions.data.noise in params.yaml)"),
        (["--repetition", "2"], "--repetition = 2: only 0 to 1 are prepared (functions.data.repetitions in params.yaml)"),
        (["--classes"], "--classes: expected one argument"),
    ],
)
def test_wrong_options_of_run_are_reported_with_what_is_allowed(cli, arguments, message):
    code, output = cli("run", "functions", *arguments)
    assert (code, message in output) == (2, True), output
    assert os.listdir() == ["params.yaml"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "the following arguments are required: COMMAND"),
        (["trian", "functions"], "invalid choice: 'trian'"),
        (["train"], "the following arguments are required: dataset"),
        (
            ["train", "sinthetic"],
            "sinthetic is not a data set in params.yaml; there are functions, functions_small, imdb_wiki, agedb, portraits,",
        ),
        (["prepare", "sinthetic"], "sinthetic is not a data set in params.yaml"),
        (["prepare", "portrait"], "portrait is not a data set in params.yaml; did you mean portraits?"),
        (["params", "sinthetic"], "sinthetic is not a data set in params.yaml"),
        (["run", "sinthetic"], "sinthetic is not a data set in params.yaml"),
        (["run", "--dataset", "sinthetic"], "sinthetic is not a data set in params.yaml"),
        (["run", "--dataset="], "'' is not a data set in params.yaml"),
        (["run", "--dataset"], "argument --dataset: expected one argument"),
        (["run", "functions", "--seed", "1", "rooms"], "regcls run takes one data set, not functions and rooms"),
        (["run", "functions", "--dataset", "rooms"], "regcls run takes one data set, not functions and rooms"),
        (["run", "--clases", "4"], "unknown option --clases; did you mean --classes? (regcls run portraits --help)"),
        (["data", "fetch", "sinthetic"], "sinthetic is not a data set in params.yaml"),
        (["data", "samples", "sinthetic", "here"], "sinthetic is not a data set in params.yaml"),
        (["train", "functions", "--epochs", "3"], "unknown option --epochs (regcls train --help)"),
        (["compare", "functions"], "regcls compare takes no data set: it writes the reports on those in `datasets` of params.yaml"),
    ],
)
def test_wrong_commands_are_reported_with_what_exists(cli, arguments, message):
    code, output = cli(*arguments)
    assert (code, message in output) == (2, True), output


def test_outside_a_project_the_error_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "functions"]) == 2
    assert capsys.readouterr().err == f"regcls: error: no params.yaml in {tmp_path} or above it: run regcls inside the project\n"


@pytest.mark.parametrize("command", [["train", "functions"], ["compare"]])
def test_without_prepared_data_the_error_says_how_to_prepare_it(cli, command):
    code, output = cli(*command)
    assert code == 2
    assert (
        output
        == f"regcls: error: there is no prepared data in {Path.cwd()}/data/functions/prepared. Prepare it with: regcls prepare functions\n"
    )
    assert not Path("mlflow.db").exists()


@pytest.mark.parametrize("command", [["train", "functions"], ["run", "functions"], ["compare"]])
def test_data_prepared_with_other_parameters_are_not_used(cli, command):
    folder = prepared_folder(Path.cwd(), "functions")
    table = pd.DataFrame({"data": ["clean"], "sampling": "uniform", "function": 0, "repetition": 0, "split": "train"})
    made_from = asdict(load_params(Path("params.yaml")).datasets["functions"].data) | {"peak_share": 0.5}
    write_prepared(folder, arrays={"clean": np.zeros((2, 500))}, table=table, made_from=made_from)
    code, output = cli(*command)
    assert code == 2
    assert output == (
        f"regcls: error: {folder} was prepared with other values of peak_share than params.yaml has now. "
        "Prepare it again with: regcls prepare functions\n"
    )


@pytest.mark.parametrize(
    "row, message",
    [
        ("a.jpg,train,many", "age = 'many' is not a number: write it as in 1372000 or 0.5, without unit"),
        ("a.jpg,train,1e39", "age = '1e39' is too large for networks, which compute in float32: use a larger unit"),
        ("a.jpg,trial,1", "split = 'trial': write train, val or test"),
        ("/a.jpg,train,1", "/a.jpg is not a relative path in {raw}: move or copy the files there, where changes are noticed"),
        ("b/a.jpg,train,1", "there is no b.tar, b.zip or folder b in {raw}. docs/own-data.md says what belongs there"),
    ],
)
def test_a_wrong_line_of_own_data_is_one_line_of_error(cli, row, message):
    raw = Path.cwd() / "data" / "agedb" / "raw"
    raw.mkdir(parents=True)
    (raw / "agedb.csv").write_text(f"path,split,age\n{row}\n")
    code, output = cli("prepare", "agedb")
    assert (code, output) == (2, f"regcls: error: {raw}/agedb.csv, line 2: {message.format(raw=raw)}\n")


def test_a_wrong_pair_of_own_depth_is_one_line_of_error(cli):
    root = Path.cwd()
    tree = yaml.safe_load((root / "params.yaml").read_text())
    tree["own"] = {"like": "nyud2", "data": {"source": "raw", "layout": "csv", "archives": []}}
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    raw = root / "data" / "own" / "raw"
    raw.mkdir(parents=True)
    (raw / "own.csv").write_text("image,depth,split\na.jpg,a.png,train\nb.jpg,b.png,val\nc.jpg,c.png,test\n")
    code, output = cli("prepare", "own")
    assert (code, output.splitlines()[-1]) == (
        2,
        f"regcls: error: {raw}/own.csv, line 2: a.jpg and a.png: image missing. Mend the files or remove the line (1 more line is wrong)",
    )
    assert not (root / "data" / "own" / "prepared").exists()


def test_the_error_for_an_unprepared_set_names_the_command(tmp_path):
    folder = prepared_folder(tmp_path, "functions_small")
    table = pd.DataFrame({"data": ["clean"], "sampling": "uniform", "function": 0, "repetition": 0, "split": "train"})
    write_prepared(folder, arrays={"clean": np.zeros((2, 500))}, table=table, made_from={})
    with pytest.raises(
        UserError, match="clean/severe/0/0/train is not in .*; there: clean. Prepare it with: regcls prepare functions_small$"
    ):
        FunctionSets(folder).get("clean", "severe", 0, 0, "train")


@pytest.mark.parametrize("command", ["train", "run"])
def test_damaged_prepared_data_are_never_trained_on(cli, command):
    folder = prepared_folder(Path.cwd(), "functions")
    table = pd.DataFrame({"data": ["clean"], "sampling": "uniform", "function": 0, "repetition": 0, "split": "train"})
    write_prepared(
        folder,
        arrays={"clean": np.zeros((2, 500))},
        table=table,
        made_from=asdict(load_params(Path("params.yaml")).datasets["functions"].data),
    )
    with (folder / "clean.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    code, output = cli(command, "functions")
    assert code == 2
    assert (
        output
        == f"regcls: error: {folder}/clean.npy is damaged: its content is not what prepare wrote. Prepare it again with: regcls prepare functions\n"
    )
    assert not Path("mlflow.db").exists()


def test_a_missing_gpu_is_a_clear_error(make_project, monkeypatch):
    from regcls.training.device import device_for

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    compute = load_params(make_project({"compute": {"device": "cuda"}}) / "params.yaml").compute
    with pytest.raises(UserError, match="compute.device = cuda, but PyTorch sees no GPU"):
        device_for(compute.device)


def test_a_full_disk_keeps_the_old_file_and_leaves_no_other(tmp_path):
    path = tmp_path / "runs" / "functions.json"
    write_json(path, {"whole": True})
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    path.with_name(f".{path.name}.{os.getpid()}.part").symlink_to("/dev/full")  # the temporary file
    with pytest.raises(UserError, match=f"no space left on the disk while writing {path}; nothing was replaced. Free some space"):
        write_json(path, {"whole": False})
    assert path.read_text() == '{\n  "whole": true\n}\n'
    assert os.listdir(path.parent) == ["functions.json"]


@pytest.mark.parametrize("number, text", [(errno.EROFS, "Read-only file system"), (errno.EACCES, "Permission denied")])
def test_a_read_only_folder_keeps_the_old_file(tmp_path, monkeypatch, number, text):
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
    ("place", "expected"),
    [
        ("/proc/regcls", "cannot write /proc/regcls: No such file or directory. Choose another place."),
        ("/dev/null/here", "cannot write /dev/null/here: /dev/null is a file, not a folder."),
        ("x" * 300, f"cannot write {'x' * 300}: File name too long. Choose another place."),
        (f"{'x' * 300}/here", f"cannot write {'x' * 300}/here: File name too long. Choose another place."),
    ],
)
def test_an_unusable_folder_is_reported(cli, place, expected):
    code, err = cli("data", "samples", "breakfast", place)
    assert (code, expected in err) == (2, True), err


def test_errors_while_reading_are_not_explained_as_write_errors(tmp_path):
    with pytest.raises(FileNotFoundError), explain_os_errors(tmp_path / "prepared"):
        (tmp_path / "raw.tar").read_bytes()
    with pytest.raises(OSError), explain_os_errors(tmp_path / "prepared"):
        os.stat(9999)  # the error contains a number instead of a path


def test_a_file_below_proc_cannot_be_written():
    with pytest.raises(UserError, match="cannot write /proc/runs.json: .*Choose another place"):
        write_json(Path("/proc/runs.json"), {})


@pytest.mark.parametrize("path", ["runs/functions.json", "runs/a/b/functions.json"])
def test_a_file_in_place_of_a_folder_is_reported(tmp_path, path):
    (tmp_path / "runs").write_text("mine")
    with pytest.raises(UserError, match=f"cannot write .*: {tmp_path}/runs is a file, not a folder. Move it away"):
        write_json(tmp_path / path, {})


def test_a_file_in_place_of_the_lock_folder_is_reported(cli):
    Path(".regcls").write_text("mine")
    code, output = cli("prepare", "functions")
    assert (code, f"{Path.cwd()}/.regcls is a file, not a folder" in output) == (2, True), output
