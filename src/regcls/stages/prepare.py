"""Raw data -> prepared data set."""

from pathlib import Path

from regcls.datasets import synthetic
from regcls.datasets.store import prepared_folder
from regcls.files import lock
from regcls.params import Params
from regcls.progress import say, tracked


def prepare(params: Params, root: Path, dataset: str) -> None:
    """Write data/<dataset>/prepared and print its counts. The 1D study has no raw data: it is drawn."""
    folder = prepared_folder(root, dataset)
    with lock(root / ".regcls" / f"prepare-{dataset}.lock", waiting=lambda holder: say(f"{holder} prepares {dataset} already; waiting")):
        table = synthetic.prepare(params.synthetic.data, folder, processes=params.compute.process_count, progress=tracked)
    kind = table["sampling"].where(table["sampling"] == "uniform", "imbalanced")
    for (data, split, sampling), samples in table.groupby(["data", "split", kind], sort=False)["samples"]:
        print(f"{data:12s} {split:6s} {sampling:11s} {len(samples):4d} sets of {samples.min()} to {samples.max()} samples")
