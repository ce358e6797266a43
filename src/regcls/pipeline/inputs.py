"""params.yaml and source code -> build/inputs: the dependencies of each data set's stages, so that DVC reruns only what has changed.

dvc.yaml cannot express that a section inherits values from another, or that moving or commenting code changes nothing.
"""

from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from regcls.files import folder_written_aside, write_json
from regcls.methods import code_of
from regcls.params import Params
from regcls.pipeline.prepare import show_raw
from regcls.provenance import code_digest


def write_inputs(params: Params, root: Path) -> None:
    """Write build/inputs/<dataset>/prepare.json and train.json for every section, and create missing folders data/<dataset>/raw.

    prepare.json: the section's `data`, and a digest of the code that prepares it. train.json: the whole section, a digest of the code that
    decides a result, and digests of the regression losses in its grids.

    Raises:
        UserError: the folder cannot be written, or the raw folder of a data set in `datasets` is a link that leads nowhere.
    """
    preparing = {task: code_digest(f"regcls.tasks.{task}.prepare", without_params=True) for task in set(map(params.task, params.datasets))}
    with folder_written_aside(root / "build" / "inputs") as folder:
        for dataset, section in params.datasets.items():
            task, values = params.task(dataset), asdict(section)
            deciding = import_module(f"regcls.tasks.{task}.code").result_code()
            write_json(folder / dataset / "prepare.json", {"task": task, "data": values["data"], "code": preparing[task]})
            losses = {method: code for grid in section.grids.values() for method in grid.methods if (code := code_of(method))}
            write_json(folder / dataset / "train.json", values | {"code": deciding} | ({"losses": losses} if losses else {}))
            if not (raw := root / "data" / dataset / "raw").is_symlink():
                raw.mkdir(parents=True, exist_ok=True)
            if dataset in params.chosen:
                show_raw(root, dataset)
