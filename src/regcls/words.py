"""Numbers with nouns, suggestions, and text from elsewhere, for sentences."""

import difflib
from collections.abc import Iterable


def counted(number: int, thing: str, things: str = "") -> str:
    """`1 seed`, `3 seeds`, `1,000 seeds`; `things`: an irregular plural."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def suggestion(word: str, among: Iterable[str]) -> str:
    """`; did you mean epochs?`, with the most similar of some words; empty if none is similar."""
    matches = difflib.get_close_matches(word, list(among), n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def printable(text: str, *, keep: str = "") -> str:
    """`text` with control and other invisible characters escaped, as in \\x1b, except those to keep: a terminal would obey them."""
    return "".join(char if char.isprintable() or char in keep else char.encode("unicode_escape").decode() for char in text)
