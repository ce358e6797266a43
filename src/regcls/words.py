"""Numbers of things in sentences."""


def counted(number: int, thing: str, things: str = "") -> str:
    """`1 seed`, `3 seeds`, `1,000 seeds`; `things` where the plural is not `thing` with an s."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"
