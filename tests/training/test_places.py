"""Places to train at: one for each GPU or core, and no process sees the GPU of another."""

import os
from dataclasses import replace
from multiprocessing import get_context

import pytest
import torch

from conftest import ROOT
from regcls.params import load_params
from regcls.training.device import VISIBLE, Gpu, Place
from regcls.training.places import call_at, places_for, pool_at, smallest
from training.fake_gpus import plug_in

COMPUTE = replace(load_params(ROOT / "params.yaml").compute, device="auto", gpus="auto")


def test_all_that_trains_must_fit_into_the_smallest_gpu():
    large, small = (Place(device="cuda", threads=1, gpu=Gpu(id=gpu, memory=size)) for gpu, size in (("0", 2e9), ("1", 1e9)))
    assert smallest([large, small, large]) == small


def test_there_is_a_place_for_each_gpu_and_they_share_the_cores(monkeypatch):
    monkeypatch.setattr(type(COMPUTE), "cores", 16)
    plug_in(monkeypatch, "a", "b", "c")
    places = places_for(COMPUTE, ROOT)
    assert [(place.device, place.threads, place.gpu.id, place.here) for place in places] == [("cuda", 5, gpu, False) for gpu in "abc"]
    assert places_for(replace(COMPUTE, gpus=2), ROOT)[1] == replace(places[1], threads=8)
    (alone,) = places_for(replace(COMPUTE, gpus=1), ROOT)
    assert alone == replace(places[0], threads=16, here=True)


@pytest.mark.parametrize("compute", [replace(COMPUTE, device="cpu", gpus=9, processes=3), replace(COMPUTE, gpus=9, processes=3)])
def test_places_on_the_cpu_do_not_depend_on_gpus(compute, monkeypatch):
    monkeypatch.setattr(type(COMPUTE), "cores", 16)
    plug_in(monkeypatch, *("ab" if compute.device == "cpu" else ""))
    assert places_for(compute, ROOT) == [Place(device="cpu", threads=5)] * 3


def what_it_sees(*_):
    return os.getpid(), os.environ.get(VISIBLE), torch.get_num_threads()


@pytest.mark.slow
def test_a_place_that_is_not_here_is_in_a_process_that_sees_its_gpu_only(monkeypatch):
    monkeypatch.setenv(VISIBLE, "7,GPU-01bc")
    before = what_it_sees()
    away = Place(device="cuda", threads=3, gpu=Gpu(id="GPU-01bc", memory=1.0), here=False)
    process, gpu, threads = call_at(away, what_it_sees)
    assert process != os.getpid() and (gpu, threads) == ("GPU-01bc", 3)
    assert call_at(replace(away, here=True, threads=2), what_it_sees) == (os.getpid(), "7,GPU-01bc", 2)
    assert what_it_sees() == before


def both_started(barrier):
    global both
    both = barrier


def what_both_see():
    both.wait(60)  # a process cannot answer twice
    return what_it_sees()


@pytest.mark.slow
def test_no_two_processes_of_a_pool_have_the_same_place():
    places = [Place(device="cuda", threads=1, gpu=Gpu(id=gpu, memory=1.0), here=False) for gpu in ("0", "MIG-2222")]
    with pool_at(places, both_started, get_context("spawn").Barrier(2)) as pool:
        answers = [future.result() for future in [pool.submit(what_both_see, name="") for _ in range(2)]]
    assert len({process for process, _, _ in answers}) == 2
    assert sorted(gpu for _, gpu, _ in answers) == ["0", "MIG-2222"]
