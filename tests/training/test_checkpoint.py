"""Checkpoints are complete or ignored: damaged ones are never used, but the previous ones are."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from corruption import flip_bit
from regcls.errors import UserError
from regcls.models.distribution import build_distribution
from regcls.models.predictor import Predictor, build
from regcls.training.checkpoint import Checkpoints, load_predictor, load_weights, read_weights

PLACES = [(0, 0), (0, 7), (1, 0), (1, 7)]  # epoch, batch


def state(number, best_epoch=0):
    return {"weights": {"w": torch.full((3, 2), float(number))}, "number": number, "best": {"val": {"epoch": best_epoch, "score": 1.5}}}


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "run", fingerprint="f")


@pytest.fixture
def saved(checkpoints):
    """Checkpoints with two states of each of two epochs, numbered 1 to 4; the last two need the best weights of epoch 1."""
    for number, (epoch, batch) in enumerate(PLACES, 1):
        if (epoch, batch) == (1, 0):
            checkpoints.save_best({"w": torch.ones(2)}, epoch=1)
        checkpoints.save(state(number, best_epoch=epoch), epoch=epoch, batch=batch)
    return checkpoints


def files(checkpoints):
    return {file.name: file.read_bytes() for file in checkpoints.folder.iterdir()}


def newest(checkpoints, suffix):
    return checkpoints.folder / f"state-00001-0000007{suffix}"


def number(checkpoints):
    return checkpoints.load(device="cpu").content["number"]


def test_the_newest_state_is_loaded(saved):
    loaded = saved.load(device="cpu")
    assert loaded.content["number"] == 4 and loaded.content["best"] == {"val": {"epoch": 1, "score": 1.5}}
    assert torch.equal(loaded.content["weights"]["w"], torch.full((3, 2), 4.0))
    assert loaded.file == saved.last_file() == newest(saved, ".pt")
    assert loaded.damaged == ()


def test_best_weights_are_loaded(saved):
    assert torch.equal(saved.load_best(1, device="cpu")["w"], torch.ones(2))
    assert torch.equal(read_weights(saved.best_file(1), device="cpu")["w"], torch.ones(2))


def test_without_a_folder_there_is_no_checkpoint(checkpoints):
    assert checkpoints.load(device="cpu") is None


def test_only_two_states_and_their_best_weights_are_kept(saved):
    saved.save_best({"w": torch.ones(2)}, epoch=2)
    names = [f"{name}{suffix}" for name in ("best-00001-0000000", "best-00002-0000000") for suffix in (".json", ".pt")]
    states = [f"state-00001-000000{batch}{suffix}" for batch in (0, 7) for suffix in (".json", ".pt")]
    assert sorted(files(saved)) == names + states
    saved.save(state(5, best_epoch=2), epoch=2, batch=0)
    assert {name[:10] for name in files(saved)} == {"best-00001", "best-00002", "state-0000"}  # the one before still needs best-00001
    saved.save(state(6, best_epoch=2), epoch=2, batch=7)
    assert {name[:10] for name in files(saved)} == {"best-00002", "state-0000"}


DAMAGES = {
    "flipped bit": lambda pt, about: flip_bit(pt, 700),
    "first byte": lambda pt, about: flip_bit(pt, 0),
    "truncated": lambda pt, about: pt.write_bytes(pt.read_bytes()[:-100]),
    "empty": lambda pt, about: pt.write_bytes(b""),
    "no .pt": lambda pt, about: pt.unlink(),
    "no .json": lambda pt, about: about.unlink(),
    "empty .json": lambda pt, about: about.write_text(""),
    ".json of another kind": lambda pt, about: about.write_text("[1]"),
    "another's .pt": lambda pt, about: shutil.copy(pt.with_name("state-00001-0000000.pt"), pt),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_reported_and_the_previous_one_used(saved, damage):
    DAMAGES[damage](newest(saved, ".pt"), newest(saved, ".json"))
    loaded = saved.load(device="cpu")
    assert loaded.content["number"] == 3
    (problem,) = loaded.damaged
    assert problem.startswith("state-00001-0000007: ")


def test_every_flipped_bit_is_found(saved):
    whole = newest(saved, ".pt").read_bytes()
    for position in range(0, len(whole), 61):
        newest(saved, ".pt").write_bytes(whole)
        flip_bit(newest(saved, ".pt"), position)
        assert number(saved) == 3


def test_a_damaged_state_never_replaces_an_intact_one(saved):
    flip_bit(newest(saved, ".pt"), 700)
    assert number(saved) == 3
    saved.save(state(5, best_epoch=1), epoch=1, batch=3)  # training resumed from state 3
    saved.save(state(6, best_epoch=1), epoch=1, batch=5)
    flip_bit(saved.folder / "state-00001-0000005.pt", 700)
    assert number(saved) == 5


def test_damage_to_all_states_is_reported(saved):
    for file in saved.folder.glob("state*.pt"):
        flip_bit(file, 700)
    with pytest.raises(UserError, match=rf"no intact checkpoint in {saved.folder} \(state-00001-0000007: .*its checksum does not match"):
        saved.load(device="cpu")


def test_a_process_killed_while_writing_its_first_state_leaves_none(checkpoints):
    checkpoints.save(state(1), epoch=0, batch=7)
    (checkpoints.folder / "state-00000-0000007.json").unlink()  # the last to be written
    assert checkpoints.load(device="cpu") is None


def test_a_state_of_another_run_is_refused(saved):
    with pytest.raises(UserError, match="it belongs to a run with other parameters, data or code"):
        Checkpoints(saved.folder, fingerprint="g").load(device="cpu")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_state_whose_best_weights_are_damaged_is_not_used(checkpoints, damage):
    for epoch in (1, 2):
        checkpoints.save_best({"w": torch.full((500,), float(epoch))}, epoch=epoch)
        checkpoints.save(state(epoch, best_epoch=epoch), epoch=epoch, batch=0)
    if damage == "another's .pt":
        shutil.copy(checkpoints.best_file(1), checkpoints.best_file(2))
    else:
        DAMAGES[damage](checkpoints.best_file(2), checkpoints.best_file(2).with_suffix(".json"))
    loaded = checkpoints.load(device="cpu")
    assert loaded.content["number"] == 1 and len(loaded.damaged) == 1
    with pytest.raises(UserError, match=r"best-00002-0000000\.pt is damaged: .*Remove the folder"):
        checkpoints.load_best(2, device="cpu")


def test_a_full_disk_keeps_the_old_states(saved, full_disk):
    before = files(saved)
    with pytest.raises(UserError, match=r"no space left on the disk while writing .*state-00002-0000000\.pt"):
        saved.save(state(5, best_epoch=1), epoch=2, batch=0)
    with pytest.raises(UserError, match=r"no space left on the disk while writing .*best-00002-0000000\.pt"):
        saved.save_best({"w": torch.ones(100_000)}, epoch=2)
    assert files(saved) == before
    assert number(saved) == 4


def test_a_state_being_rewritten_is_ignored_until_complete(saved, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("regcls.training.checkpoint.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        saved.save(state(9), epoch=1, batch=7)
    assert number(saved) == 3


class Trap:
    """A pickle that writes a file when it is read."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_a_pickled_object_is_refused_and_not_executed(checkpoints, tmp_path):
    checkpoints.save(state(1), epoch=0, batch=1)
    checkpoints.save(state(2) | {"trap": Trap(tmp_path / "sprung")}, epoch=0, batch=2)
    assert number(checkpoints) == 1
    with pytest.raises(UserError, match=r"state-00000-0000002\.pt is damaged or not a regcls checkpoint"):
        read_weights(checkpoints.folder / "state-00000-0000002.pt", device="cpu")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"weights": Trap(tmp_path / "sprung")}))
    with pytest.raises(UserError, match=r"plain\.pt is damaged or not a regcls checkpoint"):
        read_weights(tmp_path / "plain.pt", device="cpu")
    assert not (tmp_path / "sprung").exists()


def network(width=2, classes=10):
    torch.manual_seed(0)
    return build("resnet18", width=width, classes=classes)


@pytest.mark.parametrize(
    "other, expected",
    [
        ({"classes": 100}, r"classifier\.weight has shape \(100, 16\), this network needs \(10, 16\)"),
        ({"classes": 0}, r"classifier\.weight has shape none, this network needs \(10, 16\)"),
        ({"width": 3}, r"backbone\.conv1\.weight has shape \(3, 3, 7, 7\), this network needs \(2, 3, 7, 7\)"),
    ],
    ids=["more classes", "no classes", "wider"],
)  # fmt: skip
def test_weights_of_another_network_are_refused_without_side_effects(other, expected):
    own = network()
    before = {name: value.clone() for name, value in own.state_dict().items()}
    with pytest.raises(UserError, match=rf"mine\.pt is a checkpoint of another network .*{expected}"):
        load_weights(own, network(**other).state_dict(), file=Path("mine.pt"))
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())


def test_weights_of_a_larger_network_are_refused():
    with pytest.raises(UserError, match=r"classifier\.weight has shape \(10, 16\), this network needs none"):
        load_weights(network(classes=0), network().state_dict(), file=Path("mine.pt"))


def test_a_predictor_loads_weights_without_the_class_head(checkpoints):
    trained = network()
    nn.init.normal_(trained.regressor.bias)
    checkpoints.save_best(trained.state_dict(), epoch=1)
    images = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    predictor = load_predictor(checkpoints.best_file(1), model="resnet18", width=2)
    assert torch.equal(predictor(images), Predictor(trained)(images))
    assert not any(name.startswith("network.classifier") for name in predictor.state_dict())
    with pytest.raises(UserError, match="is a checkpoint of another network"):
        load_predictor(checkpoints.best_file(1), model="resnet34", width=2)


def test_a_predictor_of_a_network_that_predicts_by_classes_keeps_its_class_head(checkpoints):
    trained = build_distribution("resnet18", width=2, centres=torch.tensor([1.0, 5.0, 9.0]))
    checkpoints.save_best({**trained.state_dict(), "loss_parameters": torch.ones(1, 1)}, epoch=1)
    images = torch.randint(0, 256, (3, 32, 32, 3), dtype=torch.uint8)
    for standardised in (False, True):  # its classes have the target's unit either way
        predictor = load_predictor(checkpoints.best_file(1), model="resnet18", width=2, standardised=standardised)
        assert torch.equal(predictor(images), Predictor(trained)(images))
    with pytest.raises(UserError, match="is a checkpoint of another network"):
        load_predictor(checkpoints.best_file(1), model="resnet18", width=4)


def test_the_json_file_of_a_checkpoint_records_its_size_and_run(saved):
    about = json.loads(newest(saved, ".json").read_text())
    assert (about["bytes"], about["fingerprint"]) == (newest(saved, ".pt").stat().st_size, "f")


@pytest.fixture
def two_selections(checkpoints):
    """A state that needs the weights of epoch 1 for one selection and of epoch 2 for another."""
    for epoch in (1, 2):
        checkpoints.save_best({"w": torch.full((3,), float(epoch))}, epoch=epoch)
        best = {"val": {"epoch": epoch, "score": 1.0}, "test": {"epoch": 1, "score": 1.0}}
        checkpoints.save(state(epoch) | {"best": best}, epoch=epoch, batch=0)
    return checkpoints


def test_the_best_weights_of_every_selection_are_kept(two_selections):
    two_selections.save_best({"w": torch.full((3,), 3.0)}, epoch=3)
    for number in (3, 4):
        best = {"val": {"epoch": 3, "score": 1.0}, "test": {"epoch": 1, "score": 1.0}}
        two_selections.save(state(number) | {"best": best}, epoch=number, batch=0)
    assert [name for name in sorted(files(two_selections)) if name.startswith("best")] == [
        f"best-{epoch:05d}-0000000{suffix}" for epoch in (1, 3) for suffix in (".json", ".pt")
    ]
    assert two_selections.load_best(1, device="cpu")["w"].tolist() == [1.0] * 3


def test_a_state_with_one_selections_weights_damaged_is_not_used(two_selections):
    flip_bit(two_selections.best_file(2), 700)
    assert number(two_selections) == 1
    flip_bit(two_selections.best_file(1), 700)
    with pytest.raises(UserError, match="no intact checkpoint"):
        two_selections.load(device="cpu")


def stored_elsewhere(checkpoints, folder):
    folder.mkdir()
    for name, file in checkpoints.newest().items():
        shutil.copy(file, folder / name)
    return folder


def test_a_state_stored_elsewhere_is_restored_with_all_best_weights(two_selections, tmp_path):
    other = Checkpoints(tmp_path / "other machine", fingerprint="f")
    assert other.restore([stored_elsewhere(two_selections, tmp_path / "slot")]) == "state-00002-0000000"
    assert number(other) == 2
    assert [other.load_best(epoch, device="cpu")["w"][0].item() for epoch in (1, 2)] == [1.0, 2.0]


def test_a_state_stored_elsewhere_without_all_weights_is_not_used(two_selections, tmp_path):
    slot = stored_elsewhere(two_selections, tmp_path / "slot")
    (slot / "best-0.pt").unlink()
    other = Checkpoints(tmp_path / "other machine", fingerprint="f")
    assert other.restore([slot]) is None and other.load(device="cpu") is None


def test_a_state_stored_elsewhere_replaces_the_earlier_one(two_selections, tmp_path):
    before = set(two_selections.newest())
    two_selections.save_best({"w": torch.full((3,), 3.0)}, epoch=3)
    two_selections.save(state(3) | {"best": {"val": {"epoch": 3, "score": 0.5}, "test": {"epoch": 1, "score": 1.0}}}, epoch=3, batch=0)
    assert (
        set(two_selections.newest())
        == before
        == {f"{name}{suffix}" for name in ("state", "best-0", "best-1") for suffix in (".pt", ".json")}
    )
    other = Checkpoints(tmp_path / "other machine", fingerprint="f")
    other.restore([stored_elsewhere(two_selections, tmp_path / "slot")])
    assert [other.load_best(epoch, device="cpu")["w"][0].item() for epoch in (1, 3)] == [1.0, 3.0]
