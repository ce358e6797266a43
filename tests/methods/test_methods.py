"""Names of methods, their meaning, and the code that they add to the fingerprint of a run."""

import os
import subprocess
import sys
from dataclasses import replace
from importlib import import_module

import pytest
import yaml

from conftest import ROOT
from regcls.methods import (
    CLASS_LOSSES,
    KINDS,
    canonical,
    code_of,
    engine_loss,
    has_class_loss,
    has_classes,
    in_words,
    is_balanced,
    make_loss,
    meanings,
    parsed,
    searched_as,
    yaml_name,
)
from regcls.methods.focal_r import FocalR
from regcls.methods.lds import LabelDistributionSmoothing
from regcls.methods.loss import Plain
from regcls.params import parse_options
from regcls.runs import fingerprint
from regcls.tasks import TASKS, task_named

FOCAL_R = {"beta": 0.2, "gamma": 1.0}


@pytest.mark.parametrize(
    "name, parts",
    [
        ("reg", [("reg", {})]),
        ("reg+cls", [("reg", {}), ("cls", {})]),
        ("focal-r+cls-bal", [("focal-r", FOCAL_R), ("cls-bal", {})]),
        ("focal-r(beta=0.5)+cls", [("focal-r", {"beta": 0.5, "gamma": 1.0}), ("cls", {})]),
        ("focal-r(gamma=2,beta=1e-3)", [("focal-r", {"beta": 0.001, "gamma": 2.0})]),
        ("lds", [("reg", {}), ("lds", {"bins": 0, "size": 5, "sigma": 2.0})]),
        ("cls+lds(bins=7)", [("reg", {}), ("lds", {"bins": 7.0, "size": 5, "sigma": 2.0}), ("cls", {})]),
        ("inverse+focal-r", [("focal-r", FOCAL_R), ("inverse", {"bins": 0, "least": 5, "most": 1000})]),
    ],
)
def test_a_name_is_parsed_into_parts_with_the_regression_loss_first(name, parts):
    assert [(part.name, part.options) for part in parsed(name).parts] == parts


@pytest.mark.parametrize(
    "given, name",
    [
        ("focal-r()", "focal-r"),
        ("focal-r(beta=0.2, gamma=1)", "focal-r"),
        ("focal-r(gamma=1.0)+cls", "focal-r+cls"),
        ("focal-r(gamma=2,beta=0.5)", "focal-r(beta=0.5,gamma=2)"),
        ("focal-r( gamma = 2.0 , beta = .50 )+cls-bal", "focal-r(beta=0.5,gamma=2)+cls-bal"),
        ("focal-r(beta=0.2,gamma=2)", "focal-r(gamma=2)"),
        ("focal-r(beta=-0)", "focal-r(beta=0)"),
        ("focal-r(beta=0.20000000000000001)", "focal-r"),
        ("reg()+cls", "reg+cls"),
        ("reg+lds", "lds"),
        ("cls+reg", "reg+cls"),
        ("cls-bal+lds(size=5.0)+reg", "lds+cls-bal"),
        ("lds+focal-r", "focal-r+lds"),
    ],
)
def test_every_spelling_of_a_method_has_one_canonical_name(given, name):
    assert canonical(given) == name and parsed(given) == parsed(name)


VALUES = (0.0, 1e-7, 0.1, 0.2 + 2**-55, 1 / 3, 1.0, 2.0, 123456789012345.0, 1e16, 5e300)


@pytest.mark.parametrize("classes", ["", *(f"+{name}" for name in CLASS_LOSSES)])
@pytest.mark.parametrize("value", VALUES)
def test_names_round_trip_without_losing_digits(value, classes):
    method = parsed(f"focal-r(beta={value!r},gamma={value!r}){classes}")
    assert parsed(method.name) == method and parsed(method.name).name == method.name
    assert method.parts[0].options == {"beta": value, "gamma": value}
    assert has_classes(method.name) == has_class_loss(method.name) == bool(classes)  # whatever is in the parentheses, even 1e+16


@pytest.mark.parametrize(
    "name, message",
    [
        ("focal", f"there is no method focal; there are {', '.join(KINDS)}"),
        ("", "'' is not the name of a method: write parts joined by +, as in reg+cls (there are reg, "),
        ("cls", "cls: a class loss stands beside a regression loss: write reg+cls"),
        ("Reg", "'Reg' is not the name of a method"),
        (" reg", "' reg' is not the name of a method"),
        ("reg\n", r"'reg\n' is not the name of a method"),
        ("reg+cls+cls", "reg+cls+cls: cls and cls do not go together: a method has one of them"),
        ("reg+cls-bal+cls", "cls-bal and cls do not go together"),
        ("reg+focal-r", "reg and focal-r do not go together"),
        ("lds+inverse", "lds and inverse do not go together"),
        ("focal-r(beta=0.5", "'focal-r(beta=0.5' is not the name of a method"),
        ("focal-r+cls(beta=0.5)", "focal-r+cls(beta=0.5): cls has no option beta; it has none"),
        ("random", "there is no method random"),
        ("reg+bal", "reg+bal: there is no bal; there are reg, "),
        ("focal-r(alpha=1)", "focal-r(alpha=1): focal-r has no option alpha; it has beta, gamma"),
        ("focal-r(1)", "focal-r(1): focal-r has no option 1; it has beta, gamma"),
        ("reg(beta=1)+cls", "reg(beta=1)+cls: reg has no option beta; it has none"),
        ("focal-r(beta=1,beta=2)", "focal-r(beta=1,beta=2): beta is given twice"),
        ("focal-r(beta=wide)", "focal-r(beta=wide): beta = 'wide' is not a number of 0 or more"),
        ("focal-r(beta)", "focal-r(beta): beta = '' is not a number of 0 or more"),
        ("focal-r(beta=-1)", "beta = '-1' is not a number of 0 or more"),
        ("focal-r(gamma=nan)", "gamma = 'nan' is not a number of 0 or more"),
        ("focal-r(gamma=inf)", "gamma = 'inf' is not a number of 0 or more"),
        ("focal-r(gamma=1e999)", "gamma = '1e999' is not a number of 0 or more"),
        ("lds(size=2.5)", "size = '2.5' is not a whole number"),
        ("lds(size=4)", "lds(size=4): size = '4': write an odd number of bins, at most 999"),
        ("bmse-bni(kernel_size=0)", "kernel_size = '0': write an odd number of bins"),
        ("lds(bins=1)", "bins = '1': write 2 to 10000 bins, or 0 for the default"),
        ("lds(bins=1e10)", "bins = '1e10': write 2 to 10000 bins"),
        ("fds(momentum=2)", "momentum = '2': write a number below 1"),
        ("bmse-gai(components=0)", "components = '0': write 1 to 1000"),
        ("bmse-bmc(sigma=0)", "sigma = '0': write a number above 0"),
        ("inverse(least=2000)", "inverse(least=2000): least = 2000 is more than most = 1000"),
    ],
)
def test_a_misspelt_name_lists_the_alternatives(name, message):
    with pytest.raises(ValueError) as error:
        parsed(name)
    assert message in str(error.value)


def test_a_task_may_add_methods_that_are_not_losses():
    also = ("random", "kukleva")
    assert canonical("random", also=also) == "random" and canonical("focal-r()", also=also) == "focal-r"
    with pytest.raises(ValueError, match=r"there is no method rand; there are reg, .*, random, kukleva$"):
        canonical("rand", also=also)


@pytest.mark.parametrize(
    "name, classes, balanced, searched",
    [
        ("random", False, False, "random"),
        ("reg", False, False, "reg"),
        ("reg+cls", True, False, "reg+cls"),
        ("reg+cls-bal", True, True, "reg+cls"),
        ("focal-r(beta=1)", False, False, "focal-r(beta=1)"),
        ("focal-r(beta=1)+cls", True, False, "focal-r(beta=1)+cls"),
        ("focal-r(beta=1)+cls-bal", True, True, "focal-r(beta=1)+cls"),
        ("lds", False, False, "lds"),
        ("lds+cls-bal", True, True, "lds+cls"),
    ],
)
def test_a_name_determines_its_classes_and_whose_lambda_it_uses(name, classes, balanced, searched):
    assert (has_classes(name), is_balanced(name), searched_as(name)) == (classes, balanced, searched)


def test_a_name_with_a_comma_is_quoted_for_yaml():
    for name in ("reg+cls", "focal-r(beta=0.5)", "focal-r(beta=0.5,gamma=2)+cls"):
        assert yaml.safe_load(f"{{method: {yaml_name(name)}, classes: 10}}") == {"method": name, "classes": 10}


def test_help_names_the_command_that_lists_all_parts():
    assert "regcls methods" in in_words() and all(canonical(name.strip(" ,")) for name in ("reg+cls", "lds+cls-bal") if name in in_words())


NAMES = [name if kind.role != "classes" else f"reg+{name}" for name, kind in KINDS.items() if kind.role != "distribution"]


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_can_be_made_with_its_default_options(name):
    loss = make_loss(name, kind="mae", huber_delta=2.0)
    assert (loss.kind, loss.huber_delta) == ("mae", 2.0)


def test_options_reach_the_loss_and_reg_is_the_plain_mean():
    loss = make_loss("focal-r(gamma=2)+cls", kind="huber")
    assert loss == FocalR(kind="huber", huber_delta=1.0, beta=0.2, gamma=2.0) and isinstance(make_loss("reg+cls-bal", kind="mse"), Plain)
    weighted = make_loss("focal-r+lds(sigma=1)+cls", kind="mae")
    assert weighted.loss == FocalR(kind="mae", huber_delta=1.0, beta=0.2, gamma=1.0)
    assert weighted.weighting == LabelDistributionSmoothing(bins=0, size=5, sigma=1.0)


def test_the_engine_uses_its_own_loss_for_reg_and_for_non_losses():
    assert [engine_loss(name) for name in ("random", "kukleva", "reg", "reg+cls", "reg+cls-bal")] == [None] * 5
    assert engine_loss("focal-r(beta=1)+cls") == FocalR(kind="mse", huber_delta=1.0, beta=1.0, gamma=1.0)


def test_parsing_names_does_not_import_torch():
    program = "import sys, regcls.methods as m; m.parsed('focal-r(beta=1)+cls'), m.code_of('focal-r'); print({'torch', 'numpy'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    result = subprocess.run([sys.executable, "-c", program], env=environment, text=True, capture_output=True, timeout=120)
    assert result.stdout == "set()\n", result.stdout + result.stderr


SHARED = ("reg", "random", "kukleva", "reg+cls", "reg+cls-bal")


def test_methods_of_the_paper_add_no_code_to_fingerprints():
    assert [code_of(name) for name in SHARED] == [""] * 5


def append(file, text):
    file.write_text(file.read_text() + text)


def test_another_loss_adds_the_code_of_its_module_without_comments(source_copy):
    before = code_of("focal-r")
    append(source_copy / "methods" / "focal_r.py", "\n# a comment\n")
    assert code_of("focal-r") == code_of("focal-r+cls-bal") == before != ""
    append(source_copy / "methods" / "focal_r.py", "\nmore = 1\n")
    assert code_of("focal-r") != before and code_of("reg") == ""


@pytest.mark.parametrize("module", ["methods/focal_r.py", "methods/loss.py", "losses.py"])
def test_another_loss_adds_all_the_code_that_it_consists_of(source_copy, module):
    before = code_of("focal-r")
    append(source_copy / module, "\nmore = 1\n")
    assert code_of("focal-r") != before


def test_changed_default_options_of_another_loss_change_its_code_digest(monkeypatch):
    """Names do not contain default options."""
    before = code_of("focal-r")
    monkeypatch.setitem(KINDS, "focal-r", replace(KINDS["focal-r"], options={**FOCAL_R, "beta": 0.3}))
    parsed.cache_clear()
    try:
        assert code_of("focal-r") != before
    finally:
        parsed.cache_clear()


@pytest.fixture(params=TASKS)
def fingerprint_of(request, params):
    """Compute the fingerprint of a method's run with the present code."""
    kind = request.param
    dataset = next(name for name in params.datasets if params.task(name) == kind)
    result_code = import_module(f"regcls.tasks.{kind}.code").result_code.__wrapped__

    def compute(method):
        spec = task_named(kind).single_spec(params.datasets[dataset], dataset, parse_options(kind, {"method": method}))
        return fingerprint(spec, data_digest="d", code_digest=result_code())

    return compute


def test_other_losses_do_not_change_the_fingerprint_of_reg(fingerprint_of, source_copy):
    before = [fingerprint_of(name) for name in ("reg", "reg+cls", "focal-r", "focal-r+cls")]
    assert len(set(before)) == 4
    append(source_copy / "methods" / "__init__.py", '\nKINDS = {**KINDS, "another": Kind(role="loss", meaning="")}\n')
    assert [fingerprint_of(name) for name in ("reg", "reg+cls", "focal-r", "focal-r+cls")] == before
    append(source_copy / "methods" / "focal_r.py", "\nmore = 1\n")
    after = [fingerprint_of(name) for name in ("reg", "reg+cls", "focal-r", "focal-r+cls")]
    assert after[:2] == before[:2] and not set(after[2:]) & set(before)


def test_a_report_explains_each_loss_except_reg_once():
    assert meanings(["reg", "reg+cls", "random"]) == []
    assert meanings(["reg", "focal-r", "focal-r(beta=1)+cls"]) == [
        "focal-r: large errors weigh more in the regression loss (Yang et al., ICML 2021)."
    ]
