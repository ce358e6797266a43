"""What the networks of a video run see, and what is reported about them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import ROOT
from regcls.classes import equalised, uniform_ranges
from regcls.models.mlp import MLP, initial_weights
from regcls.params import load_params
from regcls.tasks.sequences.networks import PREDICTIONS, mean_rmse_of_blocks
from regcls.tasks.sequences.runs import make_spec
from regcls.training.ensemble import train
from regcls.training.ensemble_networks import Member
from tasks.sequences.made_up_videos import made_up_videos
from training.reference import train_plainly

VIDEO = load_params(ROOT / "params.yaml").datasets["walks"]


@pytest.fixture(scope="module")
def kind(tmp_path_factory):
    return made_up_videos(tmp_path_factory.mktemp("videos") / "prepared")


def spec(method="reg+cls", unit="percent", **changes):
    result = make_spec(VIDEO, "breakfast", method=method, classes=10, lam=None, unit=unit, split="s2", seed=0, held_out=False)
    changes = {"epochs": 2, "milestones": (1,)} | changes if method != "random" else changes
    return replace(result, **changes)


def network(kind, spec, part="coffee"):
    return kind.networks([Member(spec=spec, part=part)])[0]


def trained(kind, spec):
    members = [Member(spec=spec, part=part) for part in kind.parts]
    networks = kind.networks(members)
    return dict(zip(kind.parts, train(networks, kind.recipe(spec), predict=kind.predict), strict=True))


def test_training_uses_all_but_the_test_persons(kind):
    net, table = network(kind, spec()), kind.videos.table
    rows = table[(table["activity"] == "coffee") & ~table["person"].isin([16, 17])]
    frames = np.concatenate([kind.videos.features[start : start + n] for start, n in zip(rows["start"], rows["frames"], strict=True)])
    assert np.array_equal(net.x, frames.T)
    assert net.evaluate["test"][1].size == table[(table["activity"] == "coffee") & table["person"].isin([16, 17])]["frames"].sum()


def test_the_target_is_the_frame_index_or_its_percentage(kind):
    percent, frames = (network(kind, spec(unit=unit)).y for unit in ("percent", "frames"))
    assert frames[:57].tolist() == [*range(55), 0, 1]
    assert percent[:55] == pytest.approx(np.arange(55) / 55)


def test_classes_cover_100_percent_or_the_longest_training_video(kind):
    assert network(kind, spec()).classes.edges == pytest.approx(np.linspace(0, 1, 11))
    assert network(kind, spec(unit="frames")).classes.edges == pytest.approx(np.linspace(0, 55 + 7 * 7, 11))


def test_balanced_classes_are_equalised_over_the_training_targets(kind):
    balanced = spec("reg+cls-bal", "frames")
    net, member = network(kind, balanced), Member(spec=balanced, part="coffee")
    assert net.classes.keep.min() < 1
    assert kind.head_classes(member) == len(net.classes) < net.head_rows == 10
    assert kind.head_classes(Member(spec=spec("reg"), part="coffee")) == 0


def test_balanced_classes_follow_the_rounding_of_a_run(kind):
    nets = {r: network(kind, spec("reg+cls-bal", "frames", rounding=r)) for r in ("ceil", "round", "floor")}
    edges = {r: net.classes.edges.tolist() for r, net in nets.items()}
    for rounding, net in nets.items():
        uniform = uniform_ranges(10, 0.0, 55 + 7 * 7)
        assert edges[rounding] == equalised(uniform, net.y, rounding=rounding).edges.tolist()
    assert len({tuple(found) for found in edges.values()}) > 1 and edges["ceil"] != edges["round"]


def test_held_out_videos_are_not_used_for_training(kind):
    whole, part = network(kind, spec()), network(kind, spec(held_out=True))
    assert set(whole.evaluate) == {"test"} and set(part.evaluate) == {"val", "test"}
    assert part.y.size + part.evaluate["val"][1].size == whole.y.size
    assert kind.samples(Member(spec=spec(held_out=True), part="coffee")) == part.y.size


def test_networks_with_the_same_frames_share_them(kind):
    one, other = spec(), spec("reg", "frames", seed=1)
    first, second, elsewhere = kind.networks([Member(spec=s, part=part) for s, part in ((one, "tea"), (other, "tea"), (one, "coffee"))])
    assert np.shares_memory(first.x, second.x) and not np.shares_memory(first.x, elsewhere.x)


@pytest.mark.parametrize("method", ["kukleva", "reg", "reg+cls", "reg+cls-bal"])
def test_a_network_agrees_with_plain_pytorch(kind, method):
    with_precision = spec(method, precision="float64")
    net, recipe = network(kind, with_precision), kind.recipe(with_precision)
    ours, (plain, *_) = train([net], recipe)[0], train_plainly(net, recipe)
    assert all(np.allclose(ours.weights[name], value.detach().numpy(), atol=1e-10) for name, value in plain.state_dict().items())
    assert (recipe.activation, recipe.initialisation) == (("sigmoid", "normal") if method == "kukleva" else ("relu", "pytorch"))
    assert recipe.loss_over_batch == "sum" and not recipe.drop_last


def test_a_result_has_every_activity_with_mean_and_deviation(kind):
    networks = trained(kind, spec())
    metrics = kind.result(spec(), networks, started=1.0, ended=2.0).metrics
    for part in kind.parts:
        errors = networks[part].predicted["test"] - network(kind, spec(), part).evaluate["test"][1]
        assert metrics[f"test/rmse/{part}"] == pytest.approx(np.sqrt(np.mean(errors**2)))
        assert metrics[f"test/rmse/{part}"] == pytest.approx(np.sqrt(networks[part].evaluated["test"][0]), rel=1e-5)
    for name in ("test/rmse", "test/rmse_batch40"):
        values = [metrics[f"{name}/{part}"] for part in kind.parts]
        assert metrics[f"{name}/all"] == pytest.approx(np.mean(values))
        assert metrics[f"{name}/std"] == pytest.approx(np.std(values, ddof=1))
    assert metrics["train/mse/all"] == pytest.approx(np.mean([metrics[f"train/mse/{part}"] for part in kind.parts]))
    assert metrics["head_classes"] == 10
    for name, split in (("train/accuracy", "train"), ("test/accuracy/all", "test")):
        assert metrics[name] == pytest.approx(np.mean([networks[part].accuracy[split] for part in kind.parts]))
    assert not any(name.startswith("val/") for name in metrics)


def test_without_a_class_head_there_is_no_accuracy(kind):
    assert not any("accuracy" in name for name in kind.result(spec("reg"), trained(kind, spec("reg")), started=1.0, ended=2.0).metrics)


def test_the_published_rmse_averages_blocks_of_forty_frames():
    errors = np.concatenate([np.full(40, 3.0), np.full(40, -1.0), np.full(5, 2.0)])
    assert mean_rmse_of_blocks(errors) == pytest.approx((3 + 1 + 2) / 3)


def test_held_out_videos_are_measured(kind):
    held_out = spec(held_out=True)
    networks = trained(kind, held_out)
    metrics = kind.result(held_out, networks, started=1.0, ended=2.0).metrics
    roots = [networks[part].evaluated["val"][0] ** 0.5 for part in kind.parts]
    assert metrics["val/rmse/all"] == pytest.approx(np.mean(roots))
    assert metrics["val/rmse/tea"] == pytest.approx(roots[1])


def test_predictions_name_activity_video_and_frame(kind):
    networks = trained(kind, spec())
    result = kind.result(spec(), networks, started=1.0, ended=2.0)
    table, videos = result.tables[PREDICTIONS], kind.videos.videos("tea", "s2", "test", held_out=False)
    assert table.dtypes.astype(str).tolist() == ["category", "category", "int32", "float32"]
    tea = table[table["activity"] == "tea"]
    assert np.array_equal(tea["prediction"], networks["tea"].predicted["test"])
    assert tea.groupby("video", observed=True)["frame"].max().add(1).to_dict() == dict(zip(videos["video"], videos["frames"], strict=True))
    weights = {name.split("/")[0] for name in result.weights}
    assert weights == set(kind.parts)


def test_the_random_baseline_is_the_untrained_network_with_sigmoids(kind):
    random = spec("random", "frames")
    networks = trained(kind, random)
    result = kind.result(random, networks, started=1.0, ended=2.0)
    with torch.no_grad():
        model = MLP(64, random.hidden, activation="sigmoid")
        model.load_state_dict(initial_weights(64, random.hidden, 0, random.seed, "normal"))
        x, y = network(kind, random, "tea").evaluate["test"]
        error = float(((model(torch.tensor(x.T)) - torch.tensor(y)) ** 2).mean().sqrt())
    assert result.metrics["test/rmse/tea"] == pytest.approx(error, rel=1e-5)
    assert not any("train" in name for name in result.metrics) and not result.history


def test_another_process_opens_the_same_data(kind):
    again = kind.reopened()()
    assert again.dataset == "breakfast" and again.parts == kind.parts == ("coffee", "tea")
    assert again.digest(spec()) == kind.digest(spec())
