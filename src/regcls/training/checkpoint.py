"""Checkpoints of one run in a folder: the last two states, and the best weights of each selection.

A checkpoint is <name>.pt with <name>.json, which is written after it and holds its size, SHA-256 and the run's fingerprint. Without a
matching .json a .pt file does not count: PyTorch itself loads flipped bits without an error.
"""

import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from regcls.errors import UserError
from regcls.files import write_atomically, write_json
from regcls.models.distribution import build_distribution
from regcls.models.predictor import Predictor
from regcls.models.standardised import build_scaled

NetworkT = TypeVar("NetworkT", bound=nn.Module)

STATES = 2  # the last one, and one to fall back to
NAME = re.compile(r"(state|best)-(\d{5})-(\d{7})")


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A loaded checkpoint."""

    content: dict[str, Any]
    file: Path
    damaged: tuple[str, ...]  # newer unusable checkpoints, with the reason


class DamagedError(UserError):
    """No checkpoint of the run is usable."""


class Checkpoints:
    """The checkpoints of the run `fingerprint`, in `folder`."""

    def __init__(self, folder: Path, *, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint

    def save(self, state: Mapping[str, Any], *, epoch: int, batch: int) -> None:
        """Write the state after `batch` batches of `epoch` (from 0), atomically; remove all older states but one, and unused best weights.

        `state["best"]` says after which epochs the best weights were saved: {selection: {"epoch": from 1, or 0 for none yet}}.

        Raises:
            UserError: the disk is full or the folder is not writable; existing checkpoints are unchanged.
        """
        newest = f"state-{epoch:05d}-{batch:07d}"
        self._write(newest, state, {"best_epochs": _best_epochs(state)})
        self.prune(newest)

    def prune(self, newest: str) -> None:
        """Remove all states but `newest` (a file's name without suffix) and the one before it, and the best weights that neither needs."""
        states = self._names("state")
        kept = [name for name in states if name <= newest][-STATES:]  # a later one is damaged: training has resumed from before it
        needed = {epoch for name in kept for epoch in self._about(name).get("best_epochs", [])}
        best = [name for name in self._names("best") if int(name.split("-")[1]) not in needed]
        for name in [*(name for name in states if name not in kept), *best]:
            for suffix in (".json", ".pt"):  # in this order: a .pt without .json does not count
                (self.folder / f"{name}{suffix}").unlink(missing_ok=True)

    def save_best(self, weights: Mapping[str, Any], *, epoch: int) -> None:
        """Write the weights after `epoch` (from 1), the best so far for some selection. Raises as `save` does."""
        self._write(_best_name(epoch), {"weights": dict(weights), "epoch": epoch}, {})

    def load(self, *, device: torch.device | str) -> Loaded | None:
        """The newest intact state; None if none was ever completed.

        Raises:
            DamagedError: there are states, but none is intact.
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
            raise DamagedError(f"no intact checkpoint in {self.folder} ({'; '.join(damaged)})")
        return None

    def newest(self) -> dict[str, Path]:
        """The newest state after its best weights, to back up elsewhere: backup name -> file. `restore` reads such a backup."""
        if not (states := self._names("state")):
            return {}
        best = map(_best_name, self._about(states[-1]).get("best_epochs", []))
        names = {f"best-{index}": name for index, name in enumerate(best)} | {"state": states[-1]}
        return {f"{backup}{suffix}": self.folder / f"{name}{suffix}" for backup, name in names.items() for suffix in (".pt", ".json")}

    def restore(self, backups: Iterable[Path]) -> str | None:
        """Copy the newest intact state from folders with files as named by `newest`; return its name, None if there is none.

        Raises:
            UserError: the disk is full or the folder is not writable.
        """
        candidates = list[tuple[str, dict[str, str], Path]]()
        for folder in backups:
            backup = Checkpoints(folder, fingerprint=self.fingerprint)
            name = str(backup._about("state").get("name"))
            try:
                needed = [_best_name(epoch) for epoch in _best_epochs(backup._read("state", "cpu"))]
                backup_names = {backup._about(f"best-{index}").get("name"): f"best-{index}" for index in range(len(needed))}
                best = {own: backup_names[own] for own in needed}
                for backup_name in best.values():
                    backup._check(backup_name)
                if NAME.fullmatch(name):
                    candidates.append((name, best, folder))
            except (ValueError, KeyError, TypeError, AttributeError):  # an incomplete upload, or another run's
                continue
        if not candidates:
            return None
        newest, best, folder = max(candidates, key=lambda candidate: candidate[0])
        for source, name in [*((backup_name, name) for name, backup_name in best.items()), ("state", newest)]:
            for suffix in (".pt", ".json"):  # in this order: a .pt without .json does not count
                write_atomically(self.folder / f"{name}{suffix}", partial(shutil.copyfile, folder / f"{source}{suffix}"))
        return newest

    def clear(self) -> None:
        """Remove all checkpoints."""
        for name in [*self._names("state"), *self._names("state", ".pt"), *self._names("best"), *self._names("best", ".pt")]:
            for suffix in (".json", ".pt"):
                (self.folder / f"{name}{suffix}").unlink(missing_ok=True)

    def load_best(self, epoch: int, *, device: torch.device | str) -> dict[str, Any]:
        """The best weights saved after `epoch`.

        Raises:
            UserError: they are damaged.
        """
        name = _best_name(epoch)
        try:
            return dict(self._read(name, device)["weights"])
        except ValueError as error:
            raise UserError(f"{self.folder / name}.pt is damaged: {error}. Remove the folder to train this run from scratch.") from error

    def best_file(self, epoch: int) -> Path:
        """The file of the best weights saved after `epoch`."""
        return self.folder / f"{_best_name(epoch)}.pt"

    def last_file(self) -> Path:
        """The newest state's file."""
        return self.folder / f"{self._names('state')[-1]}.pt"

    def _names(self, kind: str, suffix: str = ".json") -> list[str]:
        """Earliest first."""
        stems = (path.stem for path in self.folder.glob(f"{kind}-*{suffix}"))
        return sorted(name for name in stems if NAME.fullmatch(name))

    def _write(self, name: str, content: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        file = self.folder / f"{name}.pt"
        (self.folder / f"{name}.json").unlink(missing_ok=True)  # an old one must not vouch for an incomplete new file
        buffer = io.BytesIO()  # torch.save to a file does not report a full disk
        torch.save({**content, "fingerprint": self.fingerprint}, buffer)
        data = buffer.getbuffer()
        write_atomically(file, lambda aside: aside.write_bytes(data))
        digest = hashlib.sha256(data).hexdigest()
        record = {"name": name, "sha256": digest, "bytes": len(data), "fingerprint": self.fingerprint}
        write_json(self.folder / f"{name}.json", {**record, **about})

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
            raise ValueError("its checksum does not match")
        return content

    def _read(self, name: str, device: torch.device | str) -> dict[str, Any]:
        buffer = io.BytesIO(self._check(name))
        try:
            content: dict[str, Any] = torch.load(buffer, map_location=device, weights_only=True)
        except Exception as error:  # written by another version of PyTorch, or not by this project
            raise ValueError(f"it cannot be read ({type(error).__name__})") from error
        return content


def _best_name(epoch: int) -> str:
    return f"best-{epoch:05d}-0000000"


def _best_epochs(state: Mapping[str, Any]) -> list[int]:
    """Epochs (from 1) of the best weights that a state needs; several selections may share an epoch."""
    return sorted({int(best["epoch"]) for best in state["best"].values()} - {0})


def load_weights(network: nn.Module, weights: Mapping[str, Any], *, file: Path) -> None:
    """Load the weights of a checkpoint into `network`.

    Raises:
        UserError: they belong to another network; the message names the first mismatch.
    """
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    loaded = {name: tuple(value.shape) for name, value in weights.items()}
    for name in [*own, *loaded]:
        if own.get(name) != loaded.get(name):
            raise UserError(
                f"{file} is a checkpoint of another network (model, width or number of classes): {name} has shape "
                f"{loaded.get(name, 'none')}, this network needs {own.get(name, 'none')}. Choose the checkpoint of this run, or remove it."
            )
    network.load_state_dict(weights)


def read_weights(file: Path, *, device: torch.device | str) -> dict[str, Any]:
    """The weights in a checkpoint file, best or state, in any folder.

    Raises:
        UserError: it is damaged, or not a checkpoint of this project.
    """
    try:
        content = torch.load(file, map_location=device, weights_only=True)
        return dict(content["weights"])
    except Exception as error:  # a damaged archive or pickle can raise anything
        raise UserError(f"{file} is damaged or not a regcls checkpoint: {type(error).__name__}: {error}".split("\n")[0]) from error


def load_predictor(file: Path, *, model: str, width: int, standardised: bool = False) -> Predictor:
    """The network of a checkpoint file as a predictor for new images, on the CPU, with no more than predictions need.

    `standardised`: it was trained on standardised targets.

    Raises:
        UserError: the file is damaged, or holds another network.
    """
    placeholder = (0.0, 1.0) if standardised else None  # the checkpoint has the scale

    def build(centres: Tensor | None) -> nn.Module:
        if centres is None:
            return build_scaled(model, width=width, classes=0, scale=placeholder)
        return build_distribution(model, width=width, centres=centres)

    return Predictor(for_prediction(build, file))


def for_prediction(build: Callable[[Tensor | None], NetworkT], file: Path) -> NetworkT:
    """A network with the weights of a checkpoint file, except those that only training uses: of loss, class head and features.

    `build` gets the class centres of a network that predicts by its class head, which it then keeps; None: it has a regression head.
    Raises as `load_predictor` does.
    """
    weights = read_weights(file, device="cpu")
    centres = weights.get("centres")
    training_only = ("loss_parameters", "feature_methods.", *(("classifier.",) if centres is None else ()))
    network = build(centres)
    load_weights(network, {name: value for name, value in weights.items() if not name.startswith(training_only)}, file=file)
    return network
