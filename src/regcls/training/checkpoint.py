"""Checkpoints of one run in a folder: the newest states, of which one before the last is kept, and the best weights of each selection.

A checkpoint is <name>.pt beside <name>.json, which is written after it and holds its size, SHA-256 and the run's fingerprint: without that
file, or where it does not fit, a checkpoint is not one. PyTorch itself reads flipped bits without a word.
"""

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from regcls.errors import UserError
from regcls.files import write_atomically, write_json
from regcls.models.predictor import Predictor, build

NetworkT = TypeVar("NetworkT", bound=nn.Module)

STATES = 2  # kept: the last one, and one to fall back to
NAME = re.compile(r"(state|best)-(\d{5})-(\d{7})")


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A checkpoint that was read."""

    content: dict[str, Any]
    file: Path
    damaged: tuple[str, ...]  # newer ones that could not be used, and why


class DamagedError(UserError):
    """No checkpoint can be gone on from."""


class Checkpoints:
    """The checkpoints of the run `fingerprint`, in `folder`."""

    def __init__(self, folder: Path, *, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint

    def save(self, state: Mapping[str, Any], *, epoch: int, batch: int) -> None:
        """Write the state after `batch` batches of `epoch` (from 0), whole or not at all; older ones go, but for one and its best weights.

        `state["best"]` says after which epochs these are saved: {selection: {"epoch": from 1, 0 if there are none yet}}.

        Raises:
            UserError: the disk is full or the folder is not writable; what was there is still there.
        """
        newest = f"state-{epoch:05d}-{batch:07d}"
        self._write(newest, state, {"best_epochs": _best_epochs(state)})
        states = self._names("state")
        kept = [name for name in states if name <= newest][-STATES:]  # a later one is damaged: training went on from before it
        needed = {epoch for name in kept for epoch in self._about(name).get("best_epochs", [])}
        best = [name for name in self._names("best") if int(name.split("-")[1]) not in needed]
        for name in [*(name for name in states if name not in kept), *best]:
            for suffix in (".json", ".pt"):  # in this order: without .json it is none
                (self.folder / f"{name}{suffix}").unlink(missing_ok=True)

    def save_best(self, weights: Mapping[str, Any], *, epoch: int) -> None:
        """Write the weights after epoch `epoch` (from 1), of some selection the best so far. Raises as `save` does."""
        self._write(_best_name(epoch), {"weights": dict(weights), "epoch": epoch}, {})

    def load(self, *, device: torch.device | str) -> Loaded | None:
        """The newest state that is whole; None if none was ever written to its end.

        Raises:
            DamagedError: there are states, but none of them is whole.
        """
        damaged, written = list[str](), self._names("state")
        for name in sorted({*written, *self._names("state", ".pt")}, reverse=True):
            try:
                content = self._read(name, device)
                for epoch in _best_epochs(content):
                    self._check(_best_name(epoch))
            except ValueError as error:
                damaged.append(f"{name}: {error}")
                continue
            return Loaded(content=content, file=self.folder / f"{name}.pt", damaged=tuple(damaged))
        if written:
            raise DamagedError(f"no checkpoint in {self.folder} is whole ({'; '.join(damaged)})")
        return None

    def newest(self) -> dict[str, Path]:
        """The newest state and its best weights, to be kept elsewhere too: name there -> file. `restore` takes them back."""
        if not (states := self._names("state")):
            return {}
        best = map(_best_name, self._about(states[-1]).get("best_epochs", []))
        names = {"state": states[-1]} | {f"best-{place}": name for place, name in enumerate(best)}
        return {f"{there}{suffix}": self.folder / f"{name}{suffix}" for there, name in names.items() for suffix in (".pt", ".json")}

    def restore(self, kept: Iterable[Path]) -> str | None:
        """Take the newest state that is whole from folders with the files that `newest` gives, and return its name; None if there is none.

        Raises:
            UserError: the disk is full or the folder is not writable.
        """
        found = list[tuple[str, dict[str, str], Path]]()
        for folder in kept:
            other = Checkpoints(folder, fingerprint=self.fingerprint)
            name = str(other._about("state").get("name"))
            try:
                needed = [_best_name(epoch) for epoch in _best_epochs(other._read("state", "cpu"))]
                there = {other._about(f"best-{place}").get("name"): f"best-{place}" for place in range(len(needed))}
                best = {own: there[own] for own in needed}
                for kept_as in best.values():
                    other._check(kept_as)
                if NAME.fullmatch(name):
                    found.append((name, best, folder))
            except (ValueError, KeyError, TypeError, AttributeError):  # half of an upload, or of another run
                continue
        if not found:
            return None
        newest, best, folder = max(found, key=lambda one: one[0])
        for source, name in [*((kept_as, name) for name, kept_as in best.items()), ("state", newest)]:
            for suffix in (".pt", ".json"):  # in this order: without .json it is none
                write_atomically(self.folder / f"{name}{suffix}", partial(shutil.copyfile, folder / f"{source}{suffix}"))
        return newest

    def clear(self) -> None:
        """Remove all of them."""
        for name in [*self._names("state"), *self._names("state", ".pt"), *self._names("best"), *self._names("best", ".pt")]:
            for suffix in (".json", ".pt"):
                (self.folder / f"{name}{suffix}").unlink(missing_ok=True)

    def load_best(self, epoch: int, *, device: torch.device | str) -> dict[str, Any]:
        """The best weights, saved after `epoch`.

        Raises:
            UserError: they are damaged.
        """
        name = _best_name(epoch)
        try:
            return dict(self._read(name, device)["weights"])
        except ValueError as error:
            raise UserError(
                f"{self.folder / name}.pt is damaged: {error}. Remove that folder to train this run from its beginning."
            ) from error

    def best_file(self, epoch: int) -> Path:
        """Where the best weights, saved after `epoch`, are."""
        return self.folder / f"{_best_name(epoch)}.pt"

    def last_file(self) -> Path:
        """The newest state's file."""
        return self.folder / f"{self._names('state')[-1]}.pt"

    def _names(self, kind: str, suffix: str = ".json") -> list[str]:
        """The earliest first."""
        found = (path.stem for path in self.folder.glob(f"{kind}-*{suffix}"))
        return sorted(name for name in found if NAME.fullmatch(name))

    def _write(self, name: str, content: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        file = self.folder / f"{name}.pt"
        (self.folder / f"{name}.json").unlink(missing_ok=True)  # of an earlier life: it must not vouch for half of a new file
        buffer = io.BytesIO()  # written to a file, torch.save does not say that the disk is full
        torch.save({**content, "fingerprint": self.fingerprint}, buffer)
        whole = buffer.getbuffer()
        write_atomically(file, lambda aside: aside.write_bytes(whole))
        digest = hashlib.sha256(whole).hexdigest()
        vouched = {"name": name, "sha256": digest, "bytes": len(whole), "fingerprint": self.fingerprint}
        write_json(self.folder / f"{name}.json", {**vouched, **about})

    def _about(self, name: str) -> dict[str, Any]:
        try:
            about = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return about if isinstance(about, dict) else {}

    def _check(self, name: str) -> bytes:
        about = self._about(name)
        if about.get("fingerprint") != self.fingerprint:
            raise ValueError("it belongs to a run with other parameters, data or code" if about else "its .json is missing or damaged")
        try:
            content = (self.folder / f"{name}.pt").read_bytes()
        except OSError as error:
            raise ValueError(f"its .pt cannot be read: {os.strerror(error.errno or 0)}") from error
        if hashlib.sha256(content).hexdigest() != about.get("sha256"):
            raise ValueError("its content is not what was written")
        return content

    def _read(self, name: str, device: torch.device | str) -> dict[str, Any]:
        whole = io.BytesIO(self._check(name))
        try:
            content: dict[str, Any] = torch.load(whole, map_location=device, weights_only=True)
        except Exception as error:  # of another version of PyTorch, or not by this project
            raise ValueError(f"it cannot be read ({type(error).__name__})") from error
        return content


def _best_name(epoch: int) -> str:
    return f"best-{epoch:05d}-0000000"


def _best_epochs(state: Mapping[str, Any]) -> list[int]:
    """After which the best weights that a state needs were saved; one epoch may be that of several selections."""
    return sorted({int(best["epoch"]) for best in state["best"].values()} - {0})


def load_weights(network: nn.Module, weights: Mapping[str, Any], *, file: Path) -> None:
    """Give `network` the weights of a checkpoint.

    Raises:
        UserError: they are of another network; the message names the first that does not fit.
    """
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    theirs = {name: tuple(value.shape) for name, value in weights.items()}
    for name in [*own, *theirs]:
        if own.get(name) != theirs.get(name):
            raise UserError(
                f"{file} is a checkpoint of another network (model, width or number of classes): {name} has shape "
                f"{theirs.get(name, 'none')}, this network needs {own.get(name, 'none')}. Choose the checkpoint of this run, or remove it."
            )
    network.load_state_dict(weights)


def read_weights(file: Path, *, device: torch.device | str) -> dict[str, Any]:
    """The weights in a checkpoint file, best or state, wherever it lies.

    Raises:
        UserError: it is damaged, or no checkpoint of this project.
    """
    try:
        content = torch.load(file, map_location=device, weights_only=True)
        return dict(content["weights"])
    except Exception as error:  # a damaged archive or pickle fails in every way there is
        raise UserError(f"{file} is damaged or no checkpoint of regcls: {type(error).__name__}: {error}".split("\n")[0]) from error


def load_predictor(file: Path, *, model: str, width: int) -> Predictor:
    """The network of a checkpoint file, for new images, on the CPU. Its class head, if any, is left out: it is for training only.

    Raises:
        UserError: the file is damaged, or holds another network.
    """
    return Predictor(with_weights(build(model, width=width, classes=0), file))


def with_weights(network: NetworkT, file: Path) -> NetworkT:
    """`network`, without class head and loss, with the weights of a checkpoint file. Raises as `load_predictor` does."""
    of_training = ("classifier.", "loss_parameters")
    weights = {name: value for name, value in read_weights(file, device="cpu").items() if not name.startswith(of_training)}
    load_weights(network, weights, file=file)
    return network
