"""Raw archives: bringing them, and generating stand-ins to look at."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from regcls.datasets import portraits, rooms, walks
from regcls.datasets.download import fetch as fetch_file
from regcls.datasets.unpacking import extract
from regcls.errors import UserError
from regcls.files import explain_os_errors
from regcls.params import KINDS, Kind, Params
from regcls.progress import say


def fetch(params: Params, root: Path, dataset: str, sources: Sequence[str], *, unpack: bool) -> None:
    """Bring archives into data/<dataset>/raw: `sources`, or those that params.yaml names. Preparing reads them as they are.

    Raises:
        UserError: no source is known, one cannot be reached or is not what it was, or the disk is full.
    """
    home = root / "data" / dataset
    archives = sources or params.raw_data(dataset).archives
    if not archives:
        raise UserError(
            f"{dataset} has no public address: say where its archive is (regcls data fetch {dataset} /path/or/s3://…), or put its files "
            f"into {home / 'raw'} ({home / 'README.md'})"
        )
    for url in archives:
        file = fetch_file(url, home / "raw", checksums=home / "checksums.json")
        if unpack:
            say(f"{extract(file, home / 'raw')} files in {home / 'raw'}")
    say(f"Next: regcls prepare {dataset}, or dvc exp run -S scale=paper")


def samples(params: Params, dataset: str, folder: Path) -> None:
    """Write the stand-in archives that scale demo prepares into `folder`.

    Raises:
        UserError: there are files of such names already, which might be real ones, or the folder cannot be written.
    """
    with explain_os_errors(folder):
        if there := sorted(file for pattern in ("*.tar", "*.zip") for file in folder.glob(pattern)):
            raise UserError(f"{there[0]} is there already. Choose another folder, or remove it.")
        folder.mkdir(parents=True, exist_ok=True)
        what = SAMPLES[KINDS[dataset]](params, dataset, folder)
    say(f"stand-in archives of {what} in {folder}")


def _portraits(params: Params, dataset: str, folder: Path) -> str:
    data = params.faces(dataset).data
    portraits.write_archives(folder, data.stand_in, size=data.size, processes=params.compute.process_count)
    return f"{data.stand_in.images} portraits"


def _rooms(params: Params, dataset: str, folder: Path) -> str:
    data = params.nyud2.data
    rooms.write_archive(folder, data.stand_in, short_side=data.short_side, processes=params.compute.process_count)
    return f"{data.stand_in.images} views of {data.stand_in.scenes} rooms, and {data.stand_in.test_images} for the test"


def _walks(params: Params, dataset: str, folder: Path) -> str:
    data = params.breakfast.data
    walks.write_archive(folder, data.stand_in)
    return f"videos of {data.stand_in.persons} persons"


SAMPLES: Mapping[Kind, Callable[[Params, str, Path], str]] = {"faces": _portraits, "depth": _rooms, "video": _walks}
