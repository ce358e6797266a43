"""Looks at a table of a user, and proposes a section of params.yaml."""

from dataclasses import replace

import numpy as np

from regcls.data.splits import split_column
from regcls.errors import UserError
from regcls.files import temporary_folder
from regcls.relevance import RARE, Relevance
from regcls.tasks.table.data import TableSet
from regcls.tasks.table.params import FORMATS, Tables
from regcls.tasks.table.prepare import column_of, prepare
from regcls.tasks.table.reading import read_table
from regcls.tasks.task import Draft, NewFile
from regcls.words import counted

TARGETS = ("target", "y", "label")  # taken in this order if none is named


def draft(new: NewFile) -> Draft:
    """See `Task.draft`. The table is prepared in a temporary folder, so that what stops `prepare` stops this."""
    base: Tables = new.base
    if not new.file.name.lower().endswith(FORMATS):
        raise UserError(f"{new.file} is not a table: write the name of a file that ends in {', '.join(FORMATS)}")
    data = replace(
        base.data, source="raw", file=new.file.name, target=new.target, unit=new.unit, split=new.split or None, group=new.group or None
    )
    table = read_table(new.file.parent, data)
    names = {name.casefold(): name for name in reversed(table.columns)}
    target = column_of(table, new.target, str(new.file)) if new.target else next(filter(None, map(names.get, TARGETS)), None)
    if target is None:
        more = " …" if len(table.columns) > 12 else ""
        raise UserError(f"{new.file}: name the target with --target; the columns are {', '.join(table.columns[:12])}{more}")
    split = column_of(table, new.split, str(new.file)) if new.split else split_column(table.drop(columns=target))
    group = column_of(table, new.group, str(new.file)) if new.group else None
    data = replace(data, target=target, split=split, group=group)
    with temporary_folder() as folder:
        remarks = prepare(data, folder / "prepared", raw=new.file.parent, dataset=new.name)
        prepared = TableSet(folder / "prepared")
        targets = np.array(prepared.targets)
        parts = {name: prepared.rows("split", name) for name in ("train", "test")} if split else {}
    training = targets[parts["train"]] if split else targets
    rare = int((Relevance.of(training)(targets) > RARE).sum())
    given = {"target": target, "unit": new.unit} | ({"split": split} if split else {}) | ({"group": group} if group else {})
    beside = [name for name in (target, split, group) if name] if new.file.suffix.lower() == ".npy" else []
    return Draft(
        section={"data": {"source": "raw", "file": new.file.name, **given}},
        files={new.file.name: new.file} | {f"{name}.npy": new.file.with_name(f"{name}.npy") for name in beside},
        columns={target: "the target"} | ({split: "train, val or test"} if split else {}) | ({group: "the group"} if group else {}),
        target=target,
        training=training,
        tested=targets[parts["test"]] if split else targets,
        things="rows",
        shots=base.shots,
        remarks=[*remarks, f"Rare, by the relevance of extreme targets: {counted(rare, 'row')}, {rare / len(targets):.0%}"],
    )
