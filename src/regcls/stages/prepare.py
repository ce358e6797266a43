"""Raw data -> prepared data set."""

from pathlib import Path

from regcls.datasets import faces, synthetic
from regcls.datasets.store import prepared_folder
from regcls.files import lock
from regcls.params import Params
from regcls.progress import say, tracked
from regcls.tracking_store import project_root


def prepare(params: Params, root: Path, dataset: str) -> None:
    """Write data/<dataset>/prepared and print its counts.

    Raises:
        UserError: raw files are missing, damaged or not what they should be, or the disk is full; the folder is as it was.
    """
    folder, processes = prepared_folder(root, dataset), params.compute.process_count
    with lock(root / ".regcls" / f"prepare-{dataset}.lock", waiting=lambda holder: say(f"{holder} prepares {dataset} already; waiting")):
        if dataset == "synthetic":  # has no raw data: it is drawn
            table = synthetic.prepare(params.synthetic.data, folder, processes=processes, progress=tracked)
        else:
            section = params.faces(dataset)
            # Of the project itself, which an experiment in a temporary workspace has no copy of.
            faces.prepare(section.data, folder, raw=project_root(root) / "data" / dataset / "raw", dataset=dataset, processes=processes)
            for line in faces.counts(folder, many_above=section.shots.many_above, few_below=section.shots.few_below):
                print(line)
            return
    kind = table["sampling"].where(table["sampling"] == "uniform", "imbalanced")
    for (data, split, sampling), samples in table.groupby(["data", "split", kind], sort=False)["samples"]:
        print(f"{data:12s} {split:6s} {sampling:11s} {len(samples):4d} sets of {samples.min()} to {samples.max()} samples")
