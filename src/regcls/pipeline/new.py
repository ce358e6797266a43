"""A data set of the user's own: looks at its files, and adds its section to params.yaml."""

import math
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.bar import Bar
from rich.console import Console
from rich.table import Table

from regcls.errors import UserError
from regcls.files import explain_os_errors, folder_written_aside, write_atomically, write_text
from regcls.metrics import SHOTS
from regcls.params import Params, origins, with_section
from regcls.progress import tracked
from regcls.reports.shot_subject import SHORT
from regcls.tasks import task_named
from regcls.tasks.task import Draft, NewFile
from regcls.words import counted, printable

COLOURS = {"many": "blue", "medium": "yellow", "few": "red"}
LINE = 110  # characters of a line in params.yaml, at most, that holds a whole mapping


def new(params: Params, root: Path, name: str, task: str, file: Path, given: Mapping[str, str], *, title: str, dry_run: bool) -> None:
    """Show what is in `file`, copy it and the files that it lists to data/<name>/raw, and write a README and the section in params.yaml.

    `given`: target, unit, split and group. Files that are in raw/ already stay as they are, and so does an existing README. params.yaml is
    written last. With `dry_run`, nothing is written.

    Raises:
        UserError: the name is taken or no name, the file cannot become a data set, other files are in raw/, or the disk is full.
    """
    params.check_new_name(name)
    home, path = root / "data" / name, root / "params.yaml"
    with explain_os_errors(home):
        if not file.is_file():
            raise UserError(f"{file} {'is not a file' if file.exists() else 'does not exist'}")
        like = root_of(params, path, task)
        wish = NewFile(name=name, file=file, raw=home / "raw", base=params.datasets[like], **given)
        others = [] if wish.in_place or not wish.raw.is_dir() else [one for one in wish.raw.iterdir() if not one.name.startswith(".")]
    if others:
        raise UserError(f"{wish.raw} has files already, such as {others[0].name}: remove them, or name a file that lies there")
    draft = task_named(task).draft(wish)
    if odd := [text for text in (title, *draft.columns, *given.values()) if not text.isprintable()]:
        raise UserError(f"{odd[0]!r} has characters that cannot be printed: rename the column, or write another text")
    if draft.training.min() == draft.training.max():
        raise UserError(f"{file}: {draft.target} is {draft.training[0]:g} for all training {draft.things}: there is nothing to learn")
    title = title or f"{draft.target[:1].upper()}{draft.target[1:]} of {name}"
    section = _block(name, {"like": like, "title": title, "published": None, **draft.section}, comment=f"{title}, from {file.name}.")
    text = with_section(path, name, section)
    copies = {to: source for to, source in draft.files.items() if not (wish.raw / to).exists()}
    readme = home / "README.md"
    _show(draft, name)
    print(f"\n{section}")
    size = sum(source.stat().st_size for source in copies.values()) / 1e6
    kept, has_readme = len(draft.files) - len(copies), readme.exists()
    if not dry_run:
        _copy(copies, wish)
        if not has_readme:
            write_text(readme, _readme(name, title, file, draft))
        write_text(path, text)
    would = "would be " if dry_run else ""
    stay = f", {kept:,} left there as they are" if kept else ""
    print(f"{counted(len(copies), 'file')} ({size:,.1f} MB) {would}copied to {wish.raw}{stay}")
    print(f"{readme} {'is kept' if has_readme else f'{would}written'}")
    print(f"params.yaml: {name} {would}added to `datasets`, and the section above at the end")
    if not dry_run:
        print(f"\nNext: dvc repro                     (all data sets in `datasets`; only this one: dvc exp run -S 'datasets=[{name}]')")
        print(f"or, for a first run: regcls run {name} --method reg")


def _copy(copies: Mapping[str, Path], wish: NewFile) -> None:
    if wish.in_place:
        for to, source in copies.items():  # the csv, under the name that prepare looks for
            write_atomically(wish.raw / to, partial(shutil.copyfile, source))
        return
    # Copies, no hard links: an edit of the original in place would change the data without a trace.
    with folder_written_aside(wish.raw.resolve()) as folder:
        for to, source in tracked(copies.items(), len(copies), "copying"):
            (folder / to).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / to)


def root_of(params: Params, path: Path, task: str) -> str:
    """The section that defines all values of a task: the one from which a data set of the task inherits."""
    dataset = next((name for name in params.datasets if params.task(name) == task), None)
    if dataset is None:
        raise UserError(f"{path} has no data set of the task {task} to inherit values from. Restore one with: git checkout params.yaml")
    return next(source for key, _, source in origins(path, dataset) if key == "task")


def _block(name: str, section: Mapping[str, Any], *, comment: str) -> str:
    lines = [f"# {comment} `regcls params {name}` prints all values; docs/own-data.md explains them.", f"{name}:", *_lines(section, "  ")]
    return "\n".join(lines) + "\n"


def _lines(tree: Mapping[str, Any], indent: str) -> list[str]:
    """YAML: a key a line with its whole value, or with those of its keys below it if it is long."""
    lines = []
    for key, value in tree.items():
        flow = yaml.safe_dump({key: value}, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6).strip()[1:-1]
        short = not isinstance(value, dict) or len(indent) + len(flow) <= LINE
        lines += [f"{indent}{flow}"] if short else [f"{indent}{key}:", *_lines(value, indent + "  ")]
    return lines


def _show(draft: Draft, name: str) -> None:
    print(f"{name}: {draft.target}, {_range(draft)}")
    for remark in draft.remarks:
        print(f"- {printable(remark)}")
    groups = draft.shots.groups(draft.training)
    width = (draft.training.max() - draft.training.min()) / draft.shots.bins
    digits = max(0, 1 - math.floor(math.log10(width))) if width > 0 else 2
    console = Console(highlight=False, markup=False)
    histogram = Table(box=None, pad_edge=False)
    for title in (draft.target, f"training {draft.things}", "", "group"):
        histogram.add_column(title, justify="left" if title in ("", "group") else "right", no_wrap=True)
    most = max(groups.counts.values())
    for index in range(draft.shots.bins if width > 0 else 1):
        low, count = groups.low + index * width, groups.counts.get(index, 0)
        shot = next(name for name in SHOTS if name == groups.shot_of_counts(count))
        bar = Bar(most, 0, count, width=30, color=COLOURS[shot])
        histogram.add_row(f"{low:,.{digits}f} – {low + width:,.{digits}f}", f"{count:,}", bar, SHORT[shot])
    shares = Table(box=None, pad_edge=False)
    for title in ("group", f"training {draft.things}", f"test {draft.things}"):
        shares.add_column(title, justify="right" if " " in title else "left")
    trained, tested = groups.shot_of(draft.training), groups.shot_of(draft.tested)
    for shot in SHOTS[1:]:
        counts = [(int((of == shot).sum()), len(of)) for of in (trained, tested)]
        shares.add_row(SHORT[shot], *(f"{count:,} ({count / total:.0%})" for count, total in counts))
    print()
    console.print(histogram)
    print(f"\nThe fullest bin has {most / (len(draft.training) / draft.shots.bins):.1f} × the mean number of training {draft.things}.\n")
    console.print(shares)
    if absent := [SHORT[shot] for shot in SHOTS[1:] if not (tested == shot).any()]:
        print(f"No test {draft.things} in {' and '.join(absent)}: the report will have no errors there.")


def _range(draft: Draft) -> str:
    targets = np.concatenate([draft.training, draft.tested])
    return f"{targets.min():g} to {targets.max():g}, training median {np.median(draft.training):g}"


def _readme(name: str, title: str, file: Path, draft: Draft) -> str:
    listed = [path for path in draft.files if path not in (f"{name}.csv", file.name)]
    files = f", and {counted(len(listed), 'file')} that it lists, such as `raw/{listed[0]}`" if listed else ""
    main = file.name if file.name in draft.files else f"{name}.csv"
    columns = "\n".join(f"- `{column}`: {meaning}" for column, meaning in draft.columns.items())
    return f"""# {title}

Describe here what the data are, where they come from and under which terms they may be used.

Files: `raw/{main}`{files}. They come from `{file}`. `prepare` reads these, and `dvc repro` notices when they
change. git ignores them, so keep the originals.

Columns of `raw/{main}`:

{columns}

`{draft.target}` is from {_range(draft)}. The section `{name}` of params.yaml has the parameters.
"""
