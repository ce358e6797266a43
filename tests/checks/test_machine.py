"""Checks of the machine, with a simulated driver and GPU."""

import errno
import fcntl
import shutil
import sys
import tempfile
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from network import free_port
from regcls.checks import Place, machine
from regcls.params import load_params
from regcls.pipeline.doctor import outcome_of


@pytest.fixture
def place(make_project):
    """Make a Place from changes to params.yaml."""

    def make(**changes):
        root = make_project(changes)
        return Place(root=root, params=load_params(root / "params.yaml"))

    return make


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Put a program nvidia-smi first on PATH that prints a text and ends with an exit code."""

    def make(text, code=0):
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\nprintf '{text}'\nexit {code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")

    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return make


H100 = "NVIDIA H100, 535.104.05\\n"


def test_packages_are_compared_with_the_lock_file(place, monkeypatch):
    where = place()
    assert machine.python(where).state == "note" and "no requirements.lock" in machine.python(where).text
    lock = where.root / "requirements.lock"
    lock.write_text(f"# a lock\nnumpy=={machine._version('numpy')}   # via regcls\ntorch=={torch.__version__.partition('+')[0]}\n")
    assert machine.python(where).text.endswith(f"{sys.prefix}; all 2 packages as in requirements.lock")
    lock.write_text("numpy==1.0  # via x\nno-such-package[extra]==2.0\n")
    found = machine.python(where)
    assert (found.state, found.remedy) == ("note", "pip install -r requirements.lock (make venv)")
    assert "1 packages of requirements.lock missing: no-such-package; 1 of another version: numpy" in found.text
    assert found.text.endswith("(locked: 1.0)")


def test_commands_from_another_environment_are_reported(place, monkeypatch, tmp_path):
    where = place()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "bin" / "python"))
    for folder in ("venv", "other"):
        (tmp_path / folder / "bin").mkdir(parents=True)
        for name in ("python", "regcls", "dvc", "mlflow"):
            (tmp_path / folder / "bin" / name).write_text("#!/bin/sh\n")
            (tmp_path / folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "venv" / "bin"))
    assert machine.commands(where).state == "good"
    monkeypatch.setenv("PATH", str(tmp_path / "other" / "bin"))
    assert f"{tmp_path}/other/bin/dvc" in machine.commands(where).text
    assert machine.commands(where).remedy == f"source {tmp_path}/venv/bin/activate"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "not on PATH: python, regcls, dvc, mlflow" in machine.commands(where).text


def test_the_torch_build_is_reported(place):
    assert machine.torch(place()).text.startswith(f"{torch.__version__}, built for C")


def test_a_missing_gpu_is_fine_unless_params_ask_for_one(place, driver):
    assert machine.gpu(place()).state == "note"
    requested = machine.gpu(place(compute={"device": "cuda"}))
    assert requested.state == "bad" and "set compute.device to auto" in requested.remedy
    driver("")  # a driver without a device
    assert machine.gpu(place()).state == "note"


def test_a_gpu_that_a_cpu_build_of_torch_cannot_use_is_bad(place, driver, monkeypatch):
    driver(H100)
    monkeypatch.setattr(torch.version, "cuda", None)
    found = machine.gpu(place())
    assert found.state == "bad" and found.text.startswith("NVIDIA H100 (driver 535.104.05), but PyTorch")
    assert found.remedy.startswith(f"pip install --force-reinstall torch=={torch.__version__.partition('+')[0]} ")


def test_a_driver_that_is_too_old_for_pytorch_is_bad(place, driver, monkeypatch):
    driver(H100)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    found = machine.gpu(place())
    assert found.state == "bad" and "built for CUDA 13.0, cannot use it" in found.text and "install a driver" in found.remedy


def test_a_failing_driver_is_reported_with_its_own_message(place, driver):
    driver("Failed to initialize NVML: Driver/library version mismatch", code=18)
    found = machine.gpu(place())
    assert found.state == "bad" and "Driver/library version mismatch" in found.text


@pytest.fixture
def a_gpu(driver, monkeypatch):
    """PyTorch reports a GPU; `ones` are made on the CPU."""
    device = SimpleNamespace(name="NVIDIA H100", total_memory=85e9, major=9, minor=0)
    ones = torch.ones
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch, "ones", lambda *shape, device: ones(*shape))


def test_a_gpu_is_reported_once_it_has_computed_something(place, a_gpu):
    found = machine.gpu(place())
    gpus = "2 × NVIDIA H100, 85 GB, compute capability 9.0"
    assert (found.state, found.text) == ("good", f"{gpus}; training uses none: compute.device = cpu in params.yaml")
    assert machine.gpu(place(compute={"device": "auto"})).text == f"{gpus}; training uses 2"
    assert machine.gpu(place(compute={"device": "cuda", "gpus": 1})).text == f"{gpus}; training uses 1"
    assert machine.gpu(Place(root=Path(), params=None)).text == gpus


def test_a_cluster_takes_the_place_of_gpus(place, monkeypatch):
    bridge = pytest.importorskip("regcls.training.cluster.bridge", reason="needs Ray, as in requirements.lock")
    monkeypatch.setattr(bridge, "connect", lambda address: [bridge.Node("a", 4, 0), bridge.Node("b", 16, 2)])
    found = machine.gpu(place(compute={"engine": "ray", "address": "head:6379"}))
    assert (found.state, found.text) == ("good", "the Ray cluster at head:6379 has 2 GPUs and 20 CPUs on 2 nodes")
    monkeypatch.undo()
    found = machine.gpu(place(compute={"engine": "ray", "address": f"127.0.0.1:{free_port()}"}))
    assert found.state == "bad" and "no answer (Connection refused)" in found.text and "ray status" in found.remedy


def test_more_gpus_than_there_are_is_bad(place, a_gpu):
    found = machine.gpu(place(compute={"device": "auto", "gpus": 3}))
    assert found.state == "bad" and "compute.gpus = 3, but PyTorch sees only 2 GPUs" in found.text


def test_gpus_of_several_kinds_are_told_apart(place, a_gpu, monkeypatch):
    kinds = [
        SimpleNamespace(name=name, total_memory=size, major=9, minor=0) for name, size in (("NVIDIA H100", 85e9), ("NVIDIA H200", 150e9))
    ]
    monkeypatch.setattr(torch.cuda, "get_device_properties", kinds.__getitem__)
    text = "1 × NVIDIA H100, 85 GB, compute capability 9.0; 1 × NVIDIA H200, 150 GB, compute capability 9.0; training uses 2"
    assert machine.gpu(place(compute={"device": "auto"})).text == text


def test_a_gpu_that_this_pytorch_does_not_support_is_bad(place, a_gpu, monkeypatch):
    def fail(*shape, device):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(torch, "ones", fail)
    found = machine.gpu(place())
    assert found.state == "bad" and "no kernel image is available" in found.text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_the_real_gpu_computes(place):
    found = machine.gpu(place())
    assert found.state == "good" and torch.cuda.get_device_name() in found.text


def test_a_full_disk_is_bad_and_says_what_is_stored_on_it(place, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "total used free")(10, 9, int(1.5e9)))
    found = machine.disk(place())
    assert found.state == "bad" and "1.5 GB free (project, .regcls, artifacts); a run needs about 2" in found.text


def test_a_disk_without_file_locks_is_bad(place, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    where = place()
    before = sorted(where.root.rglob("*"))
    assert machine.disk(where).state == "good" and sorted(where.root.rglob("*")) == before
    monkeypatch.setattr(fcntl, "flock", refuse)
    found = outcome_of(machine.disk, where)
    assert found.state == "bad" and f"the disk of {where.root} has no file locks" in found.text and "local_lock=all" in found.remedy


def test_the_folder_of_temporary_files_is_checked_too(place, monkeypatch, tmp_path):
    where, usage, free = place(), namedtuple("usage", "free"), {tempfile.gettempdir(): 10**6}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free.get(str(path), 10**12)))
    found = machine.disk(where)
    assert found.state == "bad" and f"0.0 GB free in {tempfile.gettempdir()}, the folder of temporary files" in found.text
    free.clear()
    monkeypatch.setenv("TMPDIR", f"{tmp_path}/none")
    assert f"TMPDIR={tmp_path}/none cannot be used" in machine.disk(where).text
    monkeypatch.setattr(machine, "temporary_home", lambda: None)
    found = machine.disk(where)
    assert found.state == "bad" and "no folder for temporary files can be written" in found.text


def test_an_invalid_address_of_the_store_is_not_a_fault_of_the_disk(place, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///mlruns")
    assert machine.disk(place()).state == "good"


def test_large_writable_disks_are_good(place, monkeypatch):
    where = place()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("usage", "total used free")(10, 9, int(5e10)))
    assert machine.disk(where).text == "50.0 GB free (project, .regcls, artifacts)"
    monkeypatch.setattr(machine.os, "access", lambda path, mode: False)
    found = machine.disk(where)
    assert found.state == "bad" and str(where.root) in found.text
