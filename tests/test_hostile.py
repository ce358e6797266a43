"""Malicious files: opening them fails and does nothing else."""

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch

from regcls.cli import main
from regcls.errors import UserError
from regcls.params import load_params
from regcls.provenance import dvc_md5
from regcls.tracking.tracker import Tracker
from regcls.training.checkpoint import Checkpoints, read_weights


class Bomb:
    """Creates the given file when unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.fixture
def went_off(tmp_path):
    return tmp_path / "went off"


@pytest.fixture(params=["torch", "pickle"])
def bomb(request, tmp_path, went_off):
    """A checkpoint file that would run code."""
    file = tmp_path / "state.pt"
    if request.param == "torch":
        torch.save({"weights": Bomb(went_off), "best": {"epoch": 0}}, file)
    else:
        file.write_bytes(pickle.dumps({"weights": Bomb(went_off), "best": {"epoch": 0}}))
    return file


def test_the_bomb_explodes_when_loaded_unsafely(bomb, went_off):
    (torch.load(bomb, weights_only=False) if bomb.read_bytes()[:2] == b"PK" else pickle.loads(bomb.read_bytes()))
    assert went_off.exists()


def test_weights_from_a_store_cannot_run_code(bomb, went_off):
    with pytest.raises(UserError, match="damaged or not a regcls checkpoint"):
        read_weights(bomb, device="cpu")
    assert not went_off.exists()


def test_a_state_from_a_store_cannot_run_code_despite_its_checksum(bomb, went_off, tmp_path):
    about = {"name": "state-00003-0000000", "sha256": hashlib.sha256(bomb.read_bytes()).hexdigest(), "fingerprint": "f"}
    (tmp_path / "state.json").write_text(json.dumps(about))
    assert Checkpoints(tmp_path / "own", fingerprint="f").restore([tmp_path]) is None
    assert not went_off.exists() and not (tmp_path / "own").exists()


@pytest.mark.parametrize("name", ["../../outside", "state-00003-0000000/../../outside", "/tmp/outside", "best"])
def test_a_state_from_a_store_cannot_choose_where_it_is_written(name, tmp_path):
    torch.save({"best": {"val": {"epoch": 0}}}, tmp_path / "state.pt")
    about = {"name": name, "sha256": hashlib.sha256((tmp_path / "state.pt").read_bytes()).hexdigest(), "fingerprint": "f"}
    (tmp_path / "state.json").write_text(json.dumps(about))
    before = sorted(tmp_path.rglob("*"))
    assert Checkpoints(tmp_path / "own", fingerprint="f").restore([tmp_path]) is None
    assert sorted(tmp_path.rglob("*")) == before


WRITES = "\x1b]0;mine\x07\x9b2J\r\u202e"  # a window's title, a cleared screen, an overwritten line, letters from right to left


@pytest.mark.usefixtures("signals")
def test_text_of_a_store_cannot_control_the_terminal(make_project, monkeypatch, capsys):
    root = make_project()
    monkeypatch.chdir(root)
    tracker = Tracker(root, experiment="regcls")
    commit = {"git_commit": f"c{WRITES}", "git_dirty": f"{WRITES}", "host": f"h{WRITES}", "mlflow.user": f"u{WRITES}"}
    about = {"stopped": f"s{WRITES}", "gpu": WRITES, "data_md5": f"d{WRITES}", "mlflow.source.name": f"regcls{WRITES}\n"}
    tags = {"task": "functions", "dataset": "functions", "data_digest": "0123abcd", "fingerprint": "f" * 32, **commit, **about}
    ids = []
    for _ in range(2):
        run_id = tracker._client.create_run(tracker.experiment_id, run_name=f"λ1 · é{WRITES}\n", tags=tags).info.run_id
        for name in ("dataset", "method", "optimizer"):
            tracker._client.log_param(run_id, name, {"dataset": "functions"}.get(name, f"p{WRITES}\n"))
        ids.append(run_id)
    capsys.readouterr()
    printed = []
    for command in (["show", ids[0]], ["show", "--data", "functions"], ["show", "--data", "0123abcd"], ["show", ""], ["rerun", ids[0]]):
        main(command)
        printed.append("".join(capsys.readouterr()))
        assert [line for line in printed[-1].split("\n") if not line.isprintable()] == []
    escaped = r"\x1b]0;mine\x07\x9b2J\r\u202e"
    assert f"λ1 · é{escaped}" in printed[0] and f"p{escaped}" in printed[0] and f"u{escaped}" in printed[0]
    assert all(f"λ1 · é{escaped}" in text for text in printed[1:3])


def test_a_params_file_cannot_run_code(make_project, went_off):
    root = make_project()
    (root / "params.yaml").write_text(
        f"datasets: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{went_off}']]\n"
    )
    with pytest.raises(UserError, match=r"params\.yaml"):
        load_params(root / "params.yaml")
    assert not went_off.exists()


def test_a_dvc_lock_cannot_run_code(tmp_path, went_off):
    (tmp_path / "dvc.lock").write_text(
        f"stages: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{went_off}']]\n"
    )
    assert dvc_md5(tmp_path, Path("data/x/prepared")) == "unknown"
    assert not went_off.exists()
