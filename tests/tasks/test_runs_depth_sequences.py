"""Grids and specs of depth and video. For faces, the 1D study and what all have in common, see test_runs.py."""

from dataclasses import fields, replace

import pytest

from conftest import ROOT
from regcls.errors import UserError
from regcls.params import load_params, parse_options
from regcls.runs.search import lowest_lambdas, whole_search
from regcls.tasks.depth import runs as depth
from regcls.tasks.depth.params import DepthOptions
from regcls.tasks.sequences import runs as video
from regcls.tasks.sequences.params import SequenceOptions
from regcls.tracking.run_table import TrackedRun, run_table, typed

PAPER = load_params(ROOT / "params.yaml")


def depth_spec(**given):
    return depth.single_depth_spec(PAPER.datasets["nyud2"], "nyud2", parse_options("depth", given))


def video_spec(**given):
    return video.single_spec(PAPER.datasets["breakfast"], "breakfast", parse_options("sequences", given))


def found_in_a_table(spec):
    """The spec rebuilt from a tracked run."""
    row = TrackedRun(run_id="r", name=spec.name, status="FINISHED", started=0, ended=1, tags={}, params=spec.params(), metrics={})
    (found,) = run_table([row], type(spec)).to_dict("records")
    assert {name: found[name] for name in ("dataset", "method", "classes", "seed")} == {
        "dataset": spec.dataset, "method": spec.method, "classes": spec.classes, "seed": spec.seed,
    }  # fmt: skip
    return type(spec)(**typed(spec.params(), type(spec)))


def test_balanced_data_use_their_own_batch_size():
    plain, balanced = depth_spec(), depth_spec(balanced_data="true")
    assert (plain.batch_size, plain.accumulate, plain.balanced_bins) == (16, 2, 0)
    assert (balanced.batch_size, balanced.accumulate, balanced.balanced_bins) == (8, 4, 100)
    assert balanced.name == "reg+cls 100 λ1 s0 · nyud2 balanced"


def test_every_option_reaches_the_spec_of_a_depth_run():
    given = dict(
        method="reg+cls-bal", classes="7", balanced_data="true", seed="9", model="resnet18", width="8", weights="random", loss="huber", align_corners="false",
        depth_resampling="released", clip_colours="false", validation="released",
        huber_delta="0.5", loss_scaling="eq4", epochs="2", batch_size="4", accumulate="3", optimizer="sgd", learning_rate="0.5",
        weight_decay="0.0", precision="float32", rounding="floor", **{"lambda": "0.25"},
    )  # fmt: skip
    assert set(given) == {"lambda" if f.name == "lam" else f.name for f in fields(DepthOptions)}
    recorded = depth_spec(**given).params()
    assert {name: recorded[name] for name in given} == given


def test_the_initial_weights_of_an_encoder_are_tagged():
    assert depth_spec(weights="random").tags()["weights"] == "random"
    assert depth_spec().tags()["weights"].endswith("resnet50-0676ba61.pth")


def test_every_option_reaches_the_spec_of_a_video_run():
    given = dict(
        method="reg+cls-bal", classes="7", unit="frames", split="s3", seed="9", hidden="5x9", epochs="3", batch_size="32", optimizer="sgd",
        learning_rate="0.5", weight_decay="0.0", precision="float64", rounding="floor", activation="sigmoid", **{"lambda": "3.0"},
    )  # fmt: skip
    assert set(given) == {"lambda" if f.name == "lam" else f.name for f in fields(SequenceOptions)}
    recorded = video_spec(**given).params()
    assert {name: recorded[name] for name in given} == given


@pytest.mark.parametrize("spec", [depth_spec(), depth_spec(method="reg"), video_spec(), video_spec(method="kukleva")], ids=str)
def test_a_spec_is_rebuilt_from_its_tracked_parameters(spec):
    assert found_in_a_table(spec) == spec


def test_values_inapplicable_to_a_method_are_blank():
    random, kukleva = video_spec(method="random"), video_spec(method="kukleva")
    assert (random.classes, random.lam, random.epochs, random.milestones, random.activation) == (0, None, 0, (), "sigmoid")
    assert (kukleva.classes, kukleva.lam, kukleva.epochs, kukleva.activation) == (0, None, 40, "sigmoid")
    assert (video_spec().lam, video_spec(unit="frames").lam) == (100.0, 10.0)
    assert [video_spec(method=m).rounding for m in ("reg", "reg+cls", "reg+cls-bal")] == [None, None, "round"]
    assert video_spec(method="reg+cls-bal", rounding="ceil", activation="sigmoid").rounding == "ceil"
    assert video_spec(unit="frames", split="s2").name == "reg+cls 100 λ10 s0 · breakfast frames s2"


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"method": "random", "epochs": "3"}, "method random is not trained: leave out --epochs"),
        ({"method": "kukleva", "classes": "10"}, "method kukleva has no classes and no λ"),
        ({"method": "reg", "lambda": "10"}, "method reg has no classes and no λ"),
        ({"method": "reg+cls", "rounding": "floor"}, r"method reg\+cls has no balanced classes: leave out --rounding"),
        ({"method": "random", "activation": "relu"}, "method random always has sigmoids: leave out --activation"),
    ],
)
def test_an_option_that_would_be_ignored_is_an_error(given, expected):
    with pytest.raises(UserError, match=expected):
        video_spec(**given)


def searching(**changes):
    """The section with λ searched on two splits, and table5 on them."""
    grids = PAPER.datasets["breakfast"].grids
    search = replace(grids["lambda_search"], seeds=2, splits=("s1", "s2"), lambdas=(1.0, 10.0), **changes)
    table = replace(grids["table5"], lambdas="searched", splits=("s1", "s2"), units=("percent", "frames"), seeds=1)
    return replace(PAPER.datasets["breakfast"], grids={"table5": table, "lambda_search": search})


def test_the_search_comes_first_and_holds_out_videos():
    section = searching()
    first = video.all_specs(section, "breakfast", {})
    search = [spec for spec in first if spec.held_out]
    assert search == first[:16] == video.search_specs(section, "breakfast")
    assert {spec.method for spec in first[16:]} == {"random", "kukleva", "reg"} and video.needs_search(section)
    assert search[0].data_name == "breakfast/percent/s1/held-out" and search[0].tags()["held_out"] == "true"


def test_balanced_classes_use_the_best_lambda_of_reg_cls_by_split():
    section = searching()
    errors = {
        spec: (spec.lam if spec.unit == "percent" else -spec.lam) + 0.1 * spec.seed for spec in video.search_specs(section, "breakfast")
    }
    found = lowest_lambdas(errors, video.searched_for)
    assert found == {("reg+cls", 100, unit, split): lam for unit, lam in (("percent", 1.0), ("frames", 10.0)) for split in ("s1", "s2")}
    chosen = {(s.unit, s.lam) for s in video.expand(section, "breakfast", "table5", found) if s.classes}
    assert chosen == {("percent", 1.0), ("frames", 10.0)}
    assert len(video.expand(section, "breakfast", "table5", found)) == 2 * 2 * 5


def test_a_diverged_lambda_is_not_chosen():
    errors = {spec: float("nan") if spec.lam == 1.0 else 5.0 for spec in video.search_specs(searching(), "breakfast")}
    assert set(lowest_lambdas(errors, video.searched_for).values()) == {10.0}


def test_an_incomplete_search_chooses_nothing():
    wanted = dict.fromkeys(video.search_specs(searching(), "breakfast"))
    errors = dict.fromkeys(list(wanted)[1:], 1.0)
    assert set(whole_search(errors, wanted, video.searched_for)) == {video.searched_for(spec) for spec in wanted} - {
        video.searched_for(next(iter(wanted)))
    }


def test_an_untrained_method_does_not_depend_on_training_values():
    other = replace(
        PAPER.datasets["breakfast"],
        training=replace(PAPER.datasets["breakfast"].training, optimizer="sgd", learning_rate=0.5, weight_decay=0.0, epochs=3),
    )
    random = [video.single_spec(section, "breakfast", SequenceOptions(method="random")) for section in (PAPER.datasets["breakfast"], other)]
    assert random[0] == random[1]
