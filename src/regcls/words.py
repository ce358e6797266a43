"""Numbers with nouns, suggestions, and text from elsewhere, for sentences."""

import difflib
from collections.abc import Iterable


def counted(number: int, thing: str, things: str = "") -> str:
    """`1 seed`, `3 seeds`, `1,000 seeds`; `things`: an irregular plural."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def duration(seconds: float) -> str:
    """A time for readers: `45 s`, `12 min` or `2.5 h`."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def suggestion(word: str, among: Iterable[str]) -> str:
    """`; did you mean epochs?`, with the most similar of some words; empty if none is similar."""
    matches = difflib.get_close_matches(word, list(among), n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def printable(text: str, *, keep: str = "") -> str:
    """`text` with control and other invisible characters escaped, as in \\x1b, except those to keep: a terminal would obey them."""
    return "".join(char if char.isprintable() or char in keep else char.encode("unicode_escape").decode() for char in text)
