"""Raw data -> prepared data set."""

import os
from pathlib import Path

from regcls.data.store import prepared_folder
from regcls.files import check_links, explain_os_errors, lock
from regcls.params import Params
from regcls.progress import say
from regcls.tasks import task_named
from regcls.tracking.store import project_root


def prepare(params: Params, root: Path, dataset: str, *, folder: Path | None = None) -> None:
    """Write data/<dataset>/prepared, or `folder`, and print its counts.

    Raises:
        UserError: raw files are missing, damaged or unexpected, or the disk is full; the folder is unchanged.
    """
    params.check_name(dataset)
    section, task = params.datasets[dataset], task_named(params.task(dataset))
    raw = show_raw(root, dataset)
    if getattr(section.data, "source", "") == "stand-in" and raw.is_dir() and any(not file.name.startswith(".") for file in raw.iterdir()):
        say(f"{raw} is not read: {dataset}.data.source in params.yaml is stand-in")
    with lock(root / ".regcls" / f"prepare-{dataset}.lock", on_wait=lambda holder: say(f"{holder} is preparing {dataset}; waiting")):
        target, processes = folder or prepared_folder(root, dataset), params.compute.process_count
        for line in task.prepare(section, target, raw=raw, dataset=dataset, processes=processes):
            print(line)


def show_raw(root: Path, dataset: str) -> Path:
    """The folder of a data set's raw files. In a workspace of `dvc exp run --temp` (or --queue), it gets links to those raw files of the
    project that git does not have: DVC records which files a data set was prepared from by what it finds there.

    If DVC tracks the folder (`dvc add`), it is left as it is: it may hold another version than the project's.

    Raises:
        UserError: the folder is a link that leads nowhere, or cannot be written.
    """
    ours, projects = (home / "data" / dataset / "raw" for home in (root.resolve(), project_root(root)))
    check_links(projects)
    if ours == projects or ours.with_name("raw.dvc").exists():
        return ours
    with explain_os_errors(ours):
        for folder, folders, names in os.walk(projects):
            here = ours / Path(folder).relative_to(projects)
            here.mkdir(parents=True, exist_ok=True)
            for name in (*names, *(name for name in folders if (Path(folder) / name).is_symlink())):
                if not os.path.lexists(here / name):
                    (here / name).symlink_to(Path(folder) / name)
    return ours
