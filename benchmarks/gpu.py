"""What this project's work costs on a GPU, each figure beside what it is compared with: results/gpu/<card>/report.md and report.json.

    python benchmarks/gpu.py                                        # within eight minutes; also: make gpu-report
    python benchmarks/gpu.py --parts ensemble video --minutes 3     # some parts only
    python benchmarks/gpu.py --device cpu --tiny                    # try it without a GPU; its figures mean nothing

Needs PyTorch, pandas with pyarrow, albumentations, rich, pydantic and jaxtyping; regcls need not be installed. Every part is a process with
a limit of its own, so that none is lost to another's failure: the report is written after each, with the figures that a part had made when
it failed or its time was up. Data are random. A measured figure is the median of `n` rounds after a warm-up (least to greatest). Exit code:
1 if a part has failed, was stopped or had no time, 2 without a GPU.
"""

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from parts import RESERVED, ROOT, Found, Part, Row, figure, known, measure_all, note

# What a part measures is imported in it: a package that one lacks stops no other.
PAPER: dict[str, Any] = {
    "rounds": 3, "repeats": 10, "copied": 2**28, "square": 8192,
    "networks": 2000, "epochs": 5, "bare_steps": 100,
    "model": "resnet50", "width": 64, "pixels": 224, "batch": 128, "steps": 15, "feed_steps": 30, "compile_seconds": 75,
    "depth": "nyud2", "depth_batch": 16, "depth_steps": 10, "classes": (0, 10, 100),
    "head": {"batch": 16, "height": 228, "width": 304, "features": 128, "hidden": 256, "precision": "bf16"},
    "frames": 40_000, "plain_steps": 400,
}  # fmt: skip
TINY: dict[str, Any] = {
    "rounds": 2, "repeats": 2, "copied": 2**16, "square": 64,
    "networks": 2, "epochs": 1, "bare_steps": 2,
    "model": "resnet18", "width": 4, "pixels": 32, "batch": 4, "steps": 2, "feed_steps": 2, "compile_seconds": 1e9,
    "depth": "rooms", "depth_batch": 2, "depth_steps": 2, "classes": (0, 10, 100),
    "head": {"batch": 1, "height": 16, "width": 16, "features": 8, "hidden": 8, "precision": "float32"},
    "frames": 2400, "plain_steps": 5,
}  # fmt: skip
FACES, PAIRS = 191_509, 50_688 * 4 // 5  # training images of the published splits of IMDB-WIKI-DIR and, roughly, NYUD2-DIR


def timed(work: Callable[[], object], size: Namespace) -> list[float]:
    """Seconds of `work`, for each round."""
    seconds = []
    for round_ in range(1 + size.rounds):  # the first is the warm-up
        if size.device == "cuda":
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            began.record()
            for _ in range(size.repeats):
                work()
            ended.record()
            torch.cuda.synchronize()
            lasted = began.elapsed_time(ended) / 1000
        else:
            started = time.perf_counter()
            for _ in range(size.repeats):
                work()
            lasted = time.perf_counter() - started
        if round_:
            seconds.append(lasted / size.repeats)
    return seconds


def allow_tf32(allowed: bool) -> None:
    """In products and convolutions; PyTorch's default, which training keeps, allows it in convolutions only."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


def ceilings(size: Namespace, found: Found) -> Iterator[Row]:
    """What other parts are compared with."""
    source = torch.rand(size.copied, device=size.device)
    target = torch.empty_like(source)
    yield figure("copy on the device", [2 * source.nbytes / s / 1e9 for s in timed(lambda: target.copy_(source), size)], "GB/s")
    for name, dtype in (("float32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)):
        allow_tf32(name == "tf32")
        a, b = (torch.randn(size.square, size.square, device=size.device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        seconds = timed(lambda a=a, b=b, out=out: torch.matmul(a, b, out=out), size)  # type: ignore[misc]
        yield figure(f"product, {name}", [2 * size.square**3 / s / 1e12 for s in seconds], "TFLOP/s")


def ensemble(size: Namespace, found: Found) -> Iterator[Row]:
    """Networks of the 1D study, as many side by side as a study would train, but at most 2 000; 80 epochs."""
    from ensemble import CLASSES, SPEC, engine, limit, network

    from regcls.tasks.functions.networks import recipe
    from regcls.training.ensemble_study import most_together

    for classes in CLASSES:
        together = min(most_together(classes, recipe(SPEC), size.device, inputs=1), size.networks)
        nets = [network(index, classes) for index in range(together)]
        engine(nets[:2], SPEC, 1, size.device)  # warm up
        fast = [engine(nets, SPEC, size.epochs, size.device) for _ in range(size.rounds)]
        bare = statistics.median(limit(together, classes, SPEC, size.bare_steps, size.device) for _ in range(size.rounds))
        beside = (f"bare products and exponentials, {together} side by side", 1 / bare)
        yield figure(f"C = {classes}", [1 / seconds for seconds in fast], "networks/s", beside=beside)


def resnet(size: Namespace, found: Found) -> Iterator[Row]:
    """Training steps of the network for age: with one batch that lies on the device, and through the feed."""
    from step import FromTensor, Steps, feed_alone, multiplications, run, write_random

    options = Namespace(model=size.model, width=size.width, size=size.pixels, batch=size.batch, loaders=size.loaders, device=size.device)
    options.steps, work, tensor = size.steps, multiplications(options), dict[str, float]()
    with tempfile.TemporaryDirectory() as folder:
        file = write_random(Path(folder), options)
        for kind in ("float32", "tf32", "bf16"):
            allow_tf32(kind == "tf32")
            product = known(found, "ceilings", f"product, {kind}")
            beside = ("its convolutions at the rate of the product above", product and product * 1e12 / work)
            for last in (True,) if kind == "float32" else (False, True):
                name = f"{kind}{', channels last' * last}"
                clock, _ = run(FromTensor(file, options, channels_last=last, rounds=size.rounds), options, precision_of(kind), False)
                tensor[name] = statistics.median(clock.speeds)
                yield figure(f"{name}, from a tensor", clock.speeds, "images/s", beside=beside)
        options.steps = size.feed_steps
        for kind in ("tf32", "bf16"):
            allow_tf32(kind == "tf32")
            name = f"{kind}, channels last"
            task = Steps(file, options, channels_last=True, rounds=size.rounds)
            clock, waiting = run(task, options, precision_of(kind), False)
            beside = ("from a tensor", tensor[name])
            yield figure(f"{name}, through the feed", clock.speeds, "images/s", beside=beside, aim="ratio >= 0.95")
            yield figure(f"{name}, waiting for data", [100 * waiting], "%", aim="< 2")
        alone = feed_alone(Steps(file, options, channels_last=True, rounds=size.rounds))
        beside = (f"{name}, from a tensor", tensor[name])
        yield figure(f"the feed alone, {size.loaders} loaders", alone, "images/s", beside=beside)
        if size.deadline - time.monotonic() < size.compile_seconds:
            yield note("compiled", "not measured: too little time is left")
            return
        options.steps = size.steps
        task = FromTensor(file, options, channels_last=True, rounds=size.rounds)
        clock, _ = run(task, options, "bf16", True)
        yield figure(f"{name}, compiled, from a tensor", clock.speeds, "images/s", beside=("not compiled", tensor[name]))
        yield figure("compiling, with the first step", [clock.first], "s")


def precision_of(kind: str) -> str:
    """The trainer's name for it."""
    return "bf16" if kind == "bf16" else "float32"


def depth(size: Namespace, found: Found) -> Iterator[Row]:
    """Training steps of the network for depth through the feed: reg, and reg+cls-bal with C classes. float32: convolutions in tf32."""
    from depth_step import PARAMS, batches, measure, write_random

    from regcls.params import load_params

    options = Namespace(device=size.device, dataset=size.depth, steps=size.depth_steps, loaders=size.loaders, batch=size.depth_batch)
    options.compile = False
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / size.depth / "prepared"
        images = size.depth_batch * batches(options, size.rounds) + 2
        write_random(load_params(PARAMS).datasets[size.depth], folder, images)
        for precision in ("float32", "bf16"):
            speed = memory = None  # with C = 0
            for classes in size.classes:
                options.classes, options.precision = [classes], [precision]
                one = measure(options, folder, size.rounds)
                name = f"C = {classes}, {precision}"
                yield figure(f"{name}, steps", one["speeds"], "images/s", beside=("C = 0", speed))
                yield figure(f"{name}, peak memory", [one["memory"]], "GB", beside=("C = 0", memory))
                yield figure(f"{name}, waiting for data", [100 * one["waiting"]], "%", aim="< 2")
                speed, memory = speed or statistics.median(one["speeds"]), memory or one["memory"]


def head(size: Namespace, found: Found) -> Iterator[Row]:
    """Loss and gradients of the class head for each pixel, all logits at once or in pieces; memory is that above the features'."""
    from depth_head import measure

    from regcls.tasks.depth.class_head import CHUNK

    options = Namespace(device=size.device, rounds=size.rounds, **size.head)
    features, _ = measure(options, 0, 0)
    for classes in size.classes[1:]:
        memory = seconds = None  # all at once
        for name, chunk in (("all at once", 0), ("in pieces", CHUNK[size.device])):
            peak, rounds = measure(options, classes, chunk)
            above, beside = (peak - features) / 1e6, ("all at once", seconds)
            yield figure(f"C = {classes}, {name}, time", [1000 * s for s in rounds], "ms", beside=beside, aim="ratio <= 1" * bool(chunk))
            beside, aim = ("all at once", memory), "ratio < 0.1" * (chunk > 0 and classes == 100)
            yield figure(f"C = {classes}, {name}, memory", [above], "MB", beside=beside, aim=aim)
            seconds, memory = 1000 * statistics.median(rounds), above


def video(size: Namespace, found: Found) -> Iterator[Row]:
    """Networks for video progress side by side in the engine, beside one network in a PyTorch loop on one core of the CPU."""
    from video import METHODS, engine, plain

    for method in METHODS:
        fast = [engine(method, size.frames, size.device) for _ in range(size.rounds)]
        alone = statistics.median(plain(method, size.frames, size.plain_steps) for _ in range(size.rounds))
        beside = (f"one at a time on the CPU; here {fast[0][1]} side by side", alone)
        yield figure(method, [us for us, _ in fast], "µs a network and step", beside=beside)


def gpu_tests(size: Namespace, found: Found) -> Iterator[Row]:
    """The tests marked gpu."""
    files = [str(file) for file in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in file.read_text(encoding="utf-8")]
    if not files or not find_spec("pytest"):
        yield note("tests", "not run, since pytest is not installed" if files else "there are none here")
        return
    # -v takes back the -q of pyproject.toml, which leaves out the counts. Other versions of PyTorch may warn.
    command = [sys.executable, "-m", "pytest", "-v", "-m", "gpu", "-p", "no:cacheprovider", "-W", "ignore", *files]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    missing = re.search(r"No module named '([\w.]+)'", result.stdout)
    if missing and result.returncode in (2, 4):  # nothing was collected
        yield note("tests", f"not run, since they need {missing[1]}")
        return
    last = result.stdout.strip().splitlines()[-1]
    counts = {name: int(count) for count, name in re.findall(r"(\d+) (passed|skipped|failed|error)", last)}
    yield from (figure(name, [count], "tests") for name, count in counts.items())
    if result.returncode:
        print(result.stdout)
        raise RuntimeError(next((line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))), last))


def projections(size: Namespace, found: Found) -> Iterator[Row]:
    """From the figures above, for the published data sets of params.yaml: training steps alone, without validation and checkpoints."""
    from video import METHODS, table5_runs, table5_seconds

    from regcls.params import load_params
    from regcls.tasks.functions.runs import all_specs

    data = load_params(ROOT / "params.yaml").datasets
    counts = Counter(spec.classes for spec in all_specs(data["functions"], "functions"))  # runs of one network for each function
    each = len(data["functions"].data.functions)
    speeds = {classes: known(found, "ensemble", f"C = {classes}") for classes in counts}
    seconds = sum(each * count / (speeds[classes] or 1) for classes, count in counts.items())
    yield projected(f"section 2, {each * counts.total()} networks", seconds, *speeds.values(), aim="< 5")
    samples = data["imdb_wiki"].training.epochs * FACES
    for kind in ("tf32", "bf16"):
        speed = known(found, "resnet", f"{kind}, channels last, through the feed")
        yield projected(f"a run of Table 3, {samples} images, {kind}", samples / (speed or 1), speed)
    samples = data["nyud2"].training.epochs * PAIRS
    for precision, classes in itertools.product(("float32", "bf16"), size.classes):
        speed = known(found, "depth", f"C = {classes}, {precision}, steps")
        yield projected(f"a run of Table 2, {samples} images, C = {classes}, {precision}", samples / (speed or 1), speed)
    times = [known(found, "video", method) for method in METHODS]
    whole = table5_seconds(us or 0.0 for us in times)
    yield projected("a run of Table 5, ten networks, among as many as above", whole / table5_runs() / len(METHODS), *times)
    yield projected(f"Table 5, {table5_runs() * len(METHODS)} runs", whole, *times)


def projected(what: str, seconds: float, *steps: float | None, aim: str = "") -> Row:
    """A row with a computed figure, if all the steps that it is computed from were measured."""
    return figure(what, [seconds / 60], "min", aim=aim) if all(steps) else note(what, "not projected: its steps were not measured")


# The limits add up to more than the time in all: a part rarely takes all of its own. What may take longest comes last.
PARTS = {
    "ceilings": Part("Ceilings of the card", 40, ceilings),
    "tests": Part("Tests on the GPU", 80, gpu_tests),
    "ensemble": Part("1D study: networks side by side", 120, ensemble),
    "video": Part("Video progress", 60, video),
    "head": Part("Depth: the class head", 40, head),
    "resnet": Part("Age: training steps", 170, resnet),
    "depth": Part("Depth: training steps", 150, depth),
    "projections": Part("Projected times at the paper's scale", RESERVED, projections),
}


def measure_part(options: Namespace) -> None:
    """Append the figures of a part to `options.rows`, one a line, as they are made."""
    started, cores = time.monotonic(), len(os.sched_getaffinity(0))
    if options.device == "cpu":
        torch.set_num_threads(1)  # as in training: other networks have the other cores
    loaders = 0 if options.device == "cpu" else min(8, cores)
    size = Namespace(**(TINY if options.tiny else PAPER), device=options.device, loaders=loaders, deadline=started + options.seconds)
    found = {name: part["figures"] for name, part in json.loads(options.report.read_text(encoding="utf-8"))["parts"].items()}
    with options.rows.open("a", encoding="utf-8") as file:
        for row in PARTS[options.part].measure(size, found):
            print(json.dumps(row, ensure_ascii=False), file=file, flush=True)


def command(options: Namespace, name: str, seconds: float, report: Path, rows: Path) -> list[str]:
    """The command that measures a part."""
    words = [sys.executable, __file__, "--part", name, "--device", options.device, "--seconds", str(seconds)]
    return [*words, "--report", str(report), "--rows", str(rows), *["--tiny"] * options.tiny]


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that it runs")
    parser.add_argument("--minutes", type=float, default=8.0, help="in all (8)")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)} (all); in the report then"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gpu", help="folder of the card's folder (results/gpu)")
    for name, kind in (("part", str), ("seconds", float), ("report", Path), ("rows", Path)):  # of a part's process
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        measure_part(options)
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu.py: PyTorch sees no GPU; check nvidia-smi, or try the report on the CPU with: --device cpu --tiny", file=sys.stderr)
        return 2
    return measure_all(PARTS, options, partial(command, options))


if __name__ == "__main__":
    sys.exit(main())
