"""Scripts beside the results that they make."""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType


def script(folder: Path, name: str) -> ModuleType:
    """The module `name` of a folder of scripts that import each other."""
    sys.path.insert(0, str(folder))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(folder))
