"""Raw data -> prepared data set."""

from pathlib import Path

from regcls.datasets import faces, synthetic
from regcls.datasets.store import prepared_folder
from regcls.files import lock
from regcls.params import Params
from regcls.progress import say, tracked
from regcls.tracking.store import project_root


def prepare(params: Params, root: Path, dataset: str) -> None:
    """Write data/<dataset>/prepared and print its counts.

    Raises:
        UserError: raw files are missing, damaged or not what they should be, or the disk is full; the folder is as it was.
    """
    with lock(root / ".regcls" / f"prepare-{dataset}.lock", waiting=lambda holder: say(f"{holder} prepares {dataset} already; waiting")):
        for line in _synthetic(params, root) if dataset == "synthetic" else _faces(params, root, dataset):
            print(line)


def _synthetic(params: Params, root: Path) -> list[str]:
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
    raw = project_root(root) / "data" / dataset / "raw"  # an experiment in a temporary workspace has no copy of it
    faces.prepare(section.data, folder, raw=raw, dataset=dataset, processes=params.compute.process_count)
    return faces.counts(folder, many_above=section.shots.many_above, few_below=section.shots.few_below)
