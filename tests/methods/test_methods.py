"""Names of methods, what they say, and which code they bring into the fingerprint of a run."""

import os
import shutil
import subprocess
import sys
from importlib import import_module

import pytest

from conftest import ROOT
from regcls import provenance
from regcls.methods import (
    CLASS_LOSSES,
    LOSSES,
    MEANINGS,
    OPTIONS,
    canonical,
    code_of,
    engine_loss,
    has_classes,
    in_words,
    is_balanced,
    make_loss,
    meanings,
    parsed,
    searched_as,
)
from regcls.methods.focal_r import FocalR
from regcls.methods.loss import Plain
from regcls.params import parse_options
from regcls.runs import fingerprint
from regcls.tasks import TASKS, task_named

FOCAL_R = {"beta": 0.2, "gamma": 1.0}


@pytest.mark.parametrize(
    "name, loss, options, classes",
    [
        ("reg", "reg", {}, ""),
        ("reg+cls", "reg", {}, "cls"),
        ("reg+cls-bal", "reg", {}, "cls-bal"),
        ("focal-r", "focal-r", FOCAL_R, ""),
        ("focal-r+cls-bal", "focal-r", FOCAL_R, "cls-bal"),
        ("focal-r(beta=0.5)+cls", "focal-r", {"beta": 0.5, "gamma": 1.0}, "cls"),
        ("focal-r(gamma=2,beta=1e-3)", "focal-r", {"beta": 0.001, "gamma": 2.0}, ""),
    ],
)
def test_a_name_says_the_loss_its_options_and_the_class_loss(name, loss, options, classes):
    method = parsed(name)
    assert (method.loss, method.options, method.classes) == (loss, options, classes)


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
    ],
)
def test_a_method_has_one_name_however_it_is_written(given, name):
    assert canonical(given) == name and parsed(given) == parsed(name)


VALUES = (0.0, 1e-7, 0.1, 0.2 + 2**-55, 1 / 3, 1.0, 2.0, 123456789012345.0, 1e16, 5e300)


@pytest.mark.parametrize("classes", ["", *(f"+{name}" for name in CLASS_LOSSES)])
@pytest.mark.parametrize("value", VALUES)
def test_a_name_comes_back_from_what_it_says_with_every_digit(value, classes):
    method = parsed(f"focal-r(beta={value!r},gamma={value!r}){classes}")
    assert parsed(method.name) == method and parsed(method.name).name == method.name
    assert method.options == {"beta": value, "gamma": value}
    assert has_classes(method.name) == bool(classes)  # whatever stands in the parentheses, 1e+16 too


@pytest.mark.parametrize(
    "name, message",
    [
        ("focal", "there is no method focal; there are reg, focal-r, each alone or with +cls or +cls-bal behind it"),
        ("", "there is no method ; there are reg"),
        ("cls", "there is no method cls"),
        ("Reg", "there is no method Reg"),
        (" reg", "there is no method  reg"),
        ("reg\n", "there is no method reg"),
        ("reg+cls+cls", "there is no method reg+cls+cls"),
        ("focal-r(beta=0.5", "there is no method focal-r(beta=0.5;"),
        ("focal-r+cls(beta=0.5)", "there is no method focal-r+cls(beta=0.5)"),
        ("random", "there is no method random"),
        ("reg+bal", "reg+bal: +bal is no class loss; there are +cls and +cls-bal"),
        ("focal-r(beta=1)+class", "focal-r(beta=1)+class: +class is no class loss"),
        ("focal-r(alpha=1)", "focal-r(alpha=1): focal-r has no option alpha; it has beta, gamma"),
        ("focal-r(1)", "focal-r(1): focal-r has no option 1; it has beta, gamma"),
        ("reg(beta=1)+cls", "reg(beta=1)+cls: reg has no option beta; it has none"),
        ("focal-r(beta=1,beta=2)", "focal-r(beta=1,beta=2): beta stands in it twice"),
        ("focal-r(beta=wide)", "focal-r(beta=wide): beta = 'wide' is no number of 0 or more"),
        ("focal-r(beta)", "focal-r(beta): beta = '' is no number of 0 or more"),
        ("focal-r(beta=-1)", "beta = '-1' is no number of 0 or more"),
        ("focal-r(gamma=nan)", "gamma = 'nan' is no number of 0 or more"),
        ("focal-r(gamma=inf)", "gamma = 'inf' is no number of 0 or more"),
        ("focal-r(gamma=1e999)", "gamma = '1e999' is no number of 0 or more"),
    ],
)
def test_a_mistake_in_a_name_is_told_with_what_there_is(name, message):
    with pytest.raises(ValueError) as error:
        parsed(name)
    assert message in str(error.value) and str(error.value).startswith(("there is no", name))


def test_a_task_may_have_methods_that_are_no_loss():
    also = ("random", "kukleva")
    assert canonical("random", also=also) == "random" and canonical("focal-r()", also=also) == "focal-r"
    with pytest.raises(ValueError, match="there is no method rand; .* behind it, and random, and kukleva$"):
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
    ],
)
def test_a_name_tells_whether_there_are_classes_and_whose_lambda_it_takes(name, classes, balanced, searched):
    assert (has_classes(name), is_balanced(name), searched_as(name)) == (classes, balanced, searched)


def test_help_names_every_loss_with_its_options_and_every_class_loss():
    text = in_words()
    assert all(loss in text for loss in LOSSES) and all(f"+{name}" in text for name in CLASS_LOSSES)
    assert all(f"{key}={value:g}" in text for usual in OPTIONS.values() for key, value in usual.items())


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_the_list_can_be_made_with_its_usual_options(name):
    loss = make_loss(name, kind="mae", huber_delta=2.0)
    assert (loss.kind, loss.huber_delta) == ("mae", 2.0)
    assert {key: getattr(loss, key) for key in OPTIONS[name]} == OPTIONS[name]


def test_options_reach_the_loss_and_reg_is_the_mean_error():
    made = make_loss("focal-r(gamma=2)+cls", kind="huber")
    assert made == FocalR(kind="huber", huber_delta=1.0, beta=0.2, gamma=2.0) and isinstance(make_loss("reg+cls-bal", kind="mse"), Plain)


def test_the_engine_has_a_loss_of_its_own_for_reg_and_for_what_is_no_loss():
    assert [engine_loss(name) for name in ("random", "kukleva", "reg", "reg+cls", "reg+cls-bal")] == [None] * 5
    assert engine_loss("focal-r(beta=1)+cls") == FocalR(kind="mse", huber_delta=1.0, beta=1.0, gamma=1.0)


def test_reading_names_does_not_wait_for_torch():
    program = "import sys, regcls.methods as m; m.parsed('focal-r(beta=1)+cls'), m.code_of('focal-r'); print({'torch', 'numpy'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, text=True, capture_output=True, timeout=120)
    assert done.stdout == "set()\n", done.stdout + done.stderr


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A copy of the package's source, which digests are taken of."""
    copy = tmp_path / provenance.SOURCE.name
    shutil.copytree(provenance.SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "SOURCE", copy)
    return copy


SHARED = ("reg", "random", "kukleva", "reg+cls", "reg+cls-bal")


def test_methods_of_the_papers_losses_bring_no_code_and_their_fingerprints_are_those_of_before():
    assert [code_of(name) for name in SHARED] == [""] * 5


def append(file, text):
    file.write_text(file.read_text() + text)


def test_another_loss_brings_the_code_of_its_module_without_comments(source):
    before = code_of("focal-r")
    append(source / "methods" / "focal_r.py", "\n# a comment\n")
    assert code_of("focal-r") == code_of("focal-r+cls-bal") == before != ""
    append(source / "methods" / "focal_r.py", "\nmore = 1\n")
    assert code_of("focal-r") != before and code_of("reg") == ""


@pytest.mark.parametrize("module", ["methods/focal_r.py", "methods/loss.py", "losses.py"])
def test_another_loss_brings_all_code_that_it_is_made_of(source, module):
    before = code_of("focal-r")
    append(source / module, "\nmore = 1\n")
    assert code_of("focal-r") != before


def test_another_loss_is_another_run_where_its_usual_options_change(monkeypatch):
    """A name does not have them."""
    before = code_of("focal-r")
    monkeypatch.setitem(OPTIONS, "focal-r", {**FOCAL_R, "beta": 0.3})
    parsed.cache_clear()
    try:
        assert code_of("focal-r") != before
    finally:
        parsed.cache_clear()


@pytest.fixture(params=TASKS)
def prints_of(request, params):
    """A method -> the fingerprint of its run, with the code as it is now."""
    kind = request.param
    dataset = next(name for name in params.datasets if params.task(name) == kind)
    result_code = import_module(f"regcls.tasks.{kind}.code").result_code.__wrapped__

    def print_of(method):
        spec = task_named(kind).single_spec(params.datasets[dataset], dataset, parse_options(kind, {"method": method}))
        return fingerprint(spec, data_digest="d", code_digest=result_code())

    return print_of


def test_a_run_of_reg_stays_what_it_was_when_another_loss_is_changed_or_added(prints_of, source):
    before = [prints_of(name) for name in ("reg", "reg+cls", "focal-r", "focal-r+cls")]
    assert len(set(before)) == 4
    append(source / "methods" / "__init__.py", '\nOPTIONS = {**OPTIONS, "another": {"width": 1.0}}\n')
    assert [prints_of(name) for name in ("reg", "reg+cls", "focal-r", "focal-r+cls")] == before
    append(source / "methods" / "focal_r.py", "\nmore = 1\n")
    after = [prints_of(name) for name in ("reg", "reg+cls", "focal-r", "focal-r+cls")]
    assert after[:2] == before[:2] and not set(after[2:]) & set(before)


def test_a_report_explains_each_loss_but_reg_once():
    assert meanings(["reg", "reg+cls", "random"]) == []
    assert meanings(["reg", "focal-r", "focal-r(beta=1)+cls"]) == [
        "focal-r: large errors weigh more in the regression loss (Yang et al., ICML 2021)."
    ]
    assert MEANINGS.keys() == set(LOSSES) - {"reg"}
