"""Reads YAML strictly: refuses double keys, and numbers that differ between YAML 1.1 (PyYAML) and YAML 1.2 (DVC)."""

import re
from pathlib import Path
from typing import Any

import yaml

from regcls.errors import UserError

DEEPEST = 30  # nested lists and mappings
LONGEST = 100  # characters of a number
MOST = 100_000  # values, those of repeated aliases included
AMBIGUOUS = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")  # octal, or to the base of 60, in YAML 1.1 only


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        UserError: it cannot be read, is not YAML, or has a key twice in a mapping, an ambiguous number, or too many values.
        FileNotFoundError: it does not exist.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not YAML: {error}") from None


def parse_yaml(text: str, path: Path) -> Any:
    """The content of a YAML text; `path` is its name in messages.

    Raises:
        UserError: as `read_yaml`.
    """
    try:
        return yaml.load(text, _Loader)
    except UserError as error:
        raise UserError(f"{path}, {error}") from None
    except Exception as error:  # PyYAML raises nearly anything on a value that does not fit its explicit tag
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


class _Loader(yaml.SafeLoader):
    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}  # id of a node -> number of values in it

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if self._depth == DEEPEST:
            raise _fault(event, f"lists and mappings are nested more than {DEEPEST} deep")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and not isinstance(event, yaml.AliasEvent):
            self._check(node)
        return node

    def _check(self, node: yaml.Node) -> None:
        keys = dict[str, yaml.Node]()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and keys.setdefault(key.value, key) is not key:
                raise _fault(key, f"the key {key.value} is there already in line {_line(keys[key.value])}: keep one of the two")
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        children = [part for entry in parts for part in (entry if isinstance(entry, tuple) else (entry,))]
        self._sizes[id(node)] = 1 + sum(self._sizes.get(id(child), 1) for child in children)
        if self._sizes[id(node)] > MOST:
            raise _fault(node, f"there are more than {MOST:,} values from here on")

    def _number(self, node: yaml.ScalarNode) -> int | float:
        if AMBIGUOUS.fullmatch(node.value):
            raise _fault(node, f"{node.value} is another number to PyYAML than to DVC: write it without leading zeros and colons")
        if len(node.value) > LONGEST:
            raise _fault(node, f"a number has {len(node.value)} characters: at most {LONGEST} are read")
        is_int = node.tag.endswith(":int")
        return super().construct_yaml_int(node) if is_int else super().construct_yaml_float(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader._number)


def _fault(at: yaml.Node | yaml.Event, what: str) -> UserError:
    return UserError(f"line {_line(at)}: {what}")


def _line(at: yaml.Node | yaml.Event) -> int:
    assert at.start_mark is not None
    return int(at.start_mark.line) + 1
