"""Raw archives: fetches them, and writes stand-ins to look at."""

from collections.abc import Sequence
from pathlib import Path

from regcls.data.archives import missing_remedy
from regcls.data.download import fetch as fetch_file
from regcls.data.unpacking import extract
from regcls.errors import UserError
from regcls.files import explain_os_errors
from regcls.params import Params
from regcls.progress import say
from regcls.tasks import task_named


def fetch(params: Params, root: Path, dataset: str, sources: Sequence[str], *, unpack: bool) -> None:
    """Fetch archives into data/<dataset>/raw: `sources`, or those of params.yaml. `unpack` is optional: prepare reads archives too.

    Raises:
        UserError: no source is known, one cannot be reached or differs from its recorded checksum, or the disk is full.
    """
    home = root / "data" / dataset
    params.check_name(dataset)
    if not hasattr(params.datasets[dataset].data, "archives"):
        raise UserError(f"{dataset} is drawn from params.yaml alone: there is nothing to fetch. Next: regcls prepare {dataset}")
    archives = sources or params.datasets[dataset].data.archives
    if not archives:
        raise UserError(
            f"{dataset} has no public URL: say where its archive is (regcls data fetch {dataset} /path/or/s3://…), or put its files "
            f"into {home / 'raw'}: {missing_remedy(home / 'raw', dataset, ())}"
        )
    for url in archives:
        file = fetch_file(url, home / "raw", checksums=home / "checksums.json")
        if unpack:
            say(f"{extract(file, home / 'raw')} files in {home / 'raw'}")
    say(f"Next: regcls prepare {dataset}, or dvc exp run -S 'datasets=[{dataset}]'")


def samples(params: Params, dataset: str, folder: Path) -> None:
    """Write the generated stand-in for a data set's raw files into `folder`.

    Raises:
        UserError: the folder has archives already, which might be real ones, or cannot be written.
    """
    params.check_name(dataset)
    with explain_os_errors(folder):
        if archives := sorted(file for pattern in ("*.tar", "*.zip") for file in folder.glob(pattern)):
            raise UserError(f"{archives[0]} is there already. Choose another folder, or remove it.")
        section, task = params.datasets[dataset], task_named(params.task(dataset))
        content = task.write_stand_in(section, folder, processes=params.compute.process_count)
    say(f"stand-in archives of {content} in {folder}")
