"""Plain text in columns, and figures as people read them. A library for this takes longer to load than to ask."""

from collections.abc import Sequence

GAP = "   "
_STEPS = ("B", "KiB", "MiB", "GiB", "TiB")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Each column as wide as its widest cell; the last one as it is."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join(
        GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


def in_bytes(count: float) -> str:
    """`12.5MiB`."""
    step = 0
    while count >= 1024 and step < len(_STEPS) - 1:
        count, step = count / 1024, step + 1
    return f"{count:.4g}{_STEPS[step]}"


def readable(text: str) -> str:
    """What a terminal does not obey, and what can be written: a name or a command may hold anything."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
