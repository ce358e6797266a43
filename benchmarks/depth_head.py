"""Cost of the class head per pixel, all logits at once or in pieces: peak memory and time of its loss and gradients.

    python benchmarks/depth_head.py                                              # on the CPU: two images of the paper's size
    python benchmarks/depth_head.py --device cuda --batch 16 --precision bf16    # the paper's batch, on a GPU

Every line is a process of its own, on features as the refinement gives them; 0 classes: those features and their gradient alone. Memory is
the process's peak (CPU) or that of the allocated tensors (GPU), above the line with 0 classes; time is the median of `--rounds` (least to
greatest). Aim: with 100 classes at batch 16 less than a tenth of the memory of all at once, and no more time.
"""

import argparse
import multiprocessing
import resource
import statistics
import time

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.nn import functional as F

from regcls.tasks.depth.class_head import ClassHead, dense_class_loss


def measure(options: argparse.Namespace, classes: int, chunk: int) -> tuple[int, list[float]]:
    """Peak bytes and seconds of each round; `chunk` 0: all logits at once."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if options.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    device, half = options.device, torch.bfloat16 if options.precision == "bf16" else torch.float32
    shape = (options.batch, options.features, options.height // 2, options.width // 2)
    features = torch.randn(shape, device=device, dtype=half).to(memory_format=torch.channels_last).requires_grad_()
    head = ClassHead(options.features, options.hidden, max(classes, 1)).to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    labels = torch.randint(0, max(classes, 1), (options.batch, options.height, options.width), device=device)

    def step() -> float:
        features.grad = None
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=half == torch.bfloat16):
            if not classes:
                loss = features.float().mean()
            elif chunk:
                loss, _ = dense_class_loss(head, features, labels, chunk=chunk)
            else:
                loss = F.cross_entropy(head(features), labels)
        loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    step()
    seconds = [step() for _ in range(options.rounds)]
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return peak, seconds


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--height", type=int, default=228, help="pixels of the input; features have half of them")
    parser.add_argument("--width", type=int, default=304)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--chunks", type=int, nargs="+", default=[512, 2048, 8192, 32768], help="positions at once")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    lines = [(0, 0)] + [(classes, chunk) for classes in options.classes for chunk in (0, *options.chunks)]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        found = [pool.apply(measure, (options, *line)) for line in track(lines, "measuring")]
    shape = f"{options.batch} × {options.height} × {options.width}"
    table = Table(title=f"class head of {options.hidden} channels, {shape}, {options.precision}, {options.device}")
    for column in ("classes", "positions at once", "memory, MB", "time, ms"):
        table.add_column(column, justify="right")
    for (classes, chunk), (peak, seconds) in zip(lines, found, strict=True):
        times = f"{1000 * statistics.median(seconds):.0f} ({1000 * min(seconds):.0f} to {1000 * max(seconds):.0f})"
        table.add_row(str(classes), str(chunk or "all") if classes else "", f"{(peak - found[0][0]) / 1e6:.0f}", times)
    Console().print(table)


if __name__ == "__main__":
    main()
