"""Adds a data set to the text of params.yaml, in which all else, comments and order included, stays as it is."""

import yaml


def extended(text: str, name: str, section: str) -> str:
    """`text` with `section` at its end, and `name` as the last entry of its list `datasets`.

    Raises:
        ValueError: there is no such list, or it is an alias.
    """
    root = yaml.compose(text, yaml.SafeLoader)
    keys = {key.value: value for key, value in root.value} if isinstance(root, yaml.MappingNode) else {}
    listed = keys.get("datasets")
    if not isinstance(listed, yaml.SequenceNode) or not listed.value:
        raise ValueError("`datasets` is not a list")
    end = "\r\n" if "\r\n" in text else "\n"
    last = listed.value[-1]
    place, entry = last.end_mark.index, f", {name}"
    if not listed.flow_style:  # an entry a line: below the last one and its comment
        line = text.find("\n", place)
        place = len(text) if line < 0 else line - (text[line - 1] == "\r")
        entry = f"{end}{' ' * listed.start_mark.column}- {name}"
    whole = text[:place] + entry + text[place:]
    gap = end if whole.endswith("\n") else 2 * end
    return whole + gap + section.replace("\n", end)
