"""Cost per sample of feeding a network from prepared data, compared with decoding the original JPEG in every epoch.

    python benchmarks/feed.py [--original 250] [--size 224] [--samples 2000] [--rounds 5]

Both do the same for one sample in one process: an image of `size` pixels, padded by 16, cropped at random, flipped at random. The usual
way opens and decodes the JPEG, resizes with PIL and augments with albumentations; ours reads a row of the memory-mapped pixels and
augments it with its own seed. Rounds alternate between the two; medians are shown, least to greatest. Aim: at least 20 times as fast.
Memory is what this process itself holds (RssAnon) after reading all of a memory-mapped set through the feed, beside the set's size.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import albumentations
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from regcls.tasks.images.drawing import draw_portrait
from regcls.training.augment import for_faces  # first, since it silences albumentations
from regcls.training.feed import AugmentedBatches

PORTRAITS = 200


def jpegs(pixels: int) -> list[bytes]:
    """Portraits as JPEG files."""
    rng = np.random.default_rng(0)
    files = []
    for index in range(PORTRAITS):
        file = io.BytesIO()
        draw_portrait(rng, 20 + index % 60, female=bool(index % 2), width=pixels, height=pixels).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def usual(files: list[bytes], size: int, samples: int) -> None:
    """Decode, resize and augment for every sample."""
    augment = albumentations.Compose(
        [albumentations.Pad(padding=16), albumentations.RandomCrop(size, size), albumentations.HorizontalFlip()]
    )
    for sample in range(samples):
        with Image.open(io.BytesIO(files[sample % len(files)])) as image:
            pixels = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
        augment(image=pixels)


def prepared(batches: AugmentedBatches, rows: NDArray[np.int64]) -> None:
    """Batches of 128, each dropped before the next is made."""
    for start in range(0, len(rows), 128):
        batches[0, rows[start : start + 128]]


def seconds(work: Callable[[], object]) -> float:
    """Processor time: other work on the machine does not count."""
    before = time.process_time()
    work()
    return time.process_time() - before


def memory(kind: str) -> float:
    """MB, of this process."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(kind)) / 1024


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", type=int, default=250, help="pixels of a side of the JPEG (250)")
    parser.add_argument("--size", type=int, default=224, help="pixels of a side of the network's input (224)")
    parser.add_argument("--samples", type=int, default=2000, help="samples a round (2000)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    files, size, samples = jpegs(options.original), options.size, options.samples
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.npy"
        images = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=(samples, size, size, 3))
        for row in range(samples):
            with Image.open(io.BytesIO(files[row % len(files)])) as image:
                images[row] = np.asarray(image.convert("RGB").resize((size, size)))
        images.flush()
        del images
        rows = np.arange(samples)
        ours = AugmentedBatches({"image": file}, rows, partial(for_faces, pad=16, flip=0.5, seed=0))
        ours[0, rows[:64]]  # opens the file, imports albumentations
        before = memory("RssAnon")
        times: dict[str, list[float]] = {"usual": [], "ours": []}
        for _ in range(options.rounds):
            times["usual"].append(seconds(lambda: usual(files, size, samples)))
            times["ours"].append(seconds(lambda: prepared(ours, rows)))
        used = memory("RssAnon") - before
        megabytes = file.stat().st_size / 2**20
    table = Table(title=f"one process, {options.original} px JPEG -> {size} px, {samples} samples × {options.rounds} rounds")
    for column in ("", "ms a sample (least to greatest)", "samples/s"):
        table.add_column(column, justify="left" if not column else "right")
    for name, found in times.items():
        each = sorted(1000 * value / samples for value in found)
        middle = statistics.median(each)
        table.add_row(name, f"{middle:.3f} ({each[0]:.3f} to {each[-1]:.3f})", f"{1000 / middle:.0f}")
    console = Console()
    console.print(table)
    ratios = sorted(slow / fast for slow, fast in zip(times["usual"], times["ours"], strict=True))
    console.print(f"{statistics.median(ratios):.1f} times faster ({ratios[0]:.1f} to {ratios[-1]:.1f})")
    console.print(
        f"memory: {megabytes:.0f} MB of pixels were read {options.rounds} times; this process holds {used:.0f} MB more than before"
    )


if __name__ == "__main__":
    main()
