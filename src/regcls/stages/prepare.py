"""Raw data -> prepared data set."""

from collections.abc import Callable, Mapping
from pathlib import Path

from regcls.datasets import depth_prepare, faces, synthetic, video
from regcls.datasets.store import prepared_folder
from regcls.files import lock
from regcls.params import KINDS, Kind, Params
from regcls.progress import say, tracked
from regcls.tracking.store import project_root


def prepare(params: Params, root: Path, dataset: str) -> None:
    """Write data/<dataset>/prepared and print its counts.

    Raises:
        UserError: raw files are missing, damaged or not what they should be, or the disk is full; the folder is as it was.
    """
    with lock(root / ".regcls" / f"prepare-{dataset}.lock", waiting=lambda holder: say(f"{holder} prepares {dataset} already; waiting")):
        for line in BY_KIND[KINDS[dataset]](params, root, dataset):
            print(line)


def _synthetic(params: Params, root: Path, dataset: str) -> list[str]:
    """Has no raw data: it is drawn."""
    folder = prepared_folder(root, "synthetic")
    table = synthetic.prepare(params.synthetic.data, folder, processes=params.compute.process_count, progress=tracked)
    kind = table["sampling"].where(table["sampling"] == "uniform", "imbalanced")
    return [
        f"{data:12s} {split:6s} {sampling:11s} {len(samples):4d} sets of {samples.min()} to {samples.max()} samples"
        for (data, split, sampling), samples in table.groupby(["data", "split", kind], sort=False)["samples"]
    ]


def _faces(params: Params, root: Path, dataset: str) -> list[str]:
    section, folder = params.faces(dataset), prepared_folder(root, dataset)
    faces.prepare(
        section.data, folder, raw=_raw(root, dataset, section.data.source), dataset=dataset, processes=params.compute.process_count
    )
    return faces.counts(folder, many_above=section.shots.many_above, few_below=section.shots.few_below)


def _depth(params: Params, root: Path, dataset: str) -> list[str]:
    section, folder = params.nyud2, prepared_folder(root, dataset)
    depth_prepare.prepare(
        section.data, folder, raw=_raw(root, dataset, section.data.source), dataset=dataset, processes=params.compute.process_count
    )
    return depth_prepare.counts(folder, section.shots)


def _video(params: Params, root: Path, dataset: str) -> list[str]:
    section, folder = params.breakfast, prepared_folder(root, dataset)
    video.prepare(
        section.data, folder, raw=_raw(root, dataset, section.data.source), dataset=dataset, processes=params.compute.process_count
    )
    return video.counts(folder)


def _raw(root: Path, dataset: str, source: str) -> Path:
    """An experiment in a temporary workspace has no copy of it."""
    raw = project_root(root) / "data" / dataset / "raw"
    if source == "stand-in" and raw.is_dir() and any(not file.name.startswith(".") for file in raw.iterdir()):
        say(f"{raw} is not read: {dataset}.data.source is stand-in (at scale demo by {dataset}.demo.data.source in params.yaml)")
    return raw


BY_KIND: Mapping[Kind, Callable[[Params, Path, str], list[str]]] = {
    "synthetic": _synthetic,
    "faces": _faces,
    "depth": _depth,
    "video": _video,
}
