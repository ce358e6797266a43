"""Raw data -> prepared data set."""

from pathlib import Path

from regcls.datasets import synthetic
from regcls.datasets.store import prepared_folder
from regcls.params import Params
from regcls.progress import tracked


def prepare(params: Params, root: Path, dataset: str) -> None:
    """Write data/<dataset>/prepared and print its counts. The 1D study has no raw data: it is drawn."""
    table = synthetic.prepare(
        params.synthetic.data, prepared_folder(root, dataset), processes=params.compute.process_count, progress=tracked
    )
    for (data, split), samples in table.groupby(["data", "split"], sort=False)["samples"]:
        print(f"{data:12s} {split:5s} {len(samples):5d} sets of {samples.min()} to {samples.max()} samples")
