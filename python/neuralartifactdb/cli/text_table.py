"""Aligned plain-text tables for terminals: numbers to the right, text to the left, no colours, no lines.

Used by every subcommand of `nadb` and by the demo, so that their answers look alike.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["aligned_pairs", "aligned_table"]


def aligned_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[bool] | None = None, indent: int = 0
) -> str:
    """Rows under their column names, two spaces apart.

    Args:
        columns: the names.
        rows: as many cells each.
        right: which columns stand to the right; by default those whose every cell begins with a digit.
        indent: spaces before each line.

    Returns:
        Lines, each ended by a newline.

    Example:
        >>> print(aligned_table(["layer", "bytes"], [["a", "12"], ["longer", "9"]]), end="")
        layer   bytes
        a          12
        longer      9
    """
    if right is None:
        right = [bool(rows) and all(row[i][:1].isdigit() for row in rows) for i in range(len(columns))]
    widths = [max(len(line[i]) for line in (columns, *rows)) for i in range(len(columns))]
    lines = []
    for line in (columns, *rows):
        cells = [
            text.rjust(width) if aligned else text.ljust(width)
            for text, width, aligned in zip(line, widths, right, strict=True)
        ]
        lines.append((" " * indent + "  ".join(cells)).rstrip())
    return "\n".join(lines) + "\n"


def aligned_pairs(pairs: Sequence[tuple[str, str]], *, indent: int = 2) -> str:
    """Names and values in two columns.

    Example:
        >>> print(aligned_pairs([("inputs", "10"), ("created", "today")]), end="")
          inputs   10
          created  today
    """
    width = max((len(name) for name, _ in pairs), default=0)
    return "".join(f"{' ' * indent}{name.ljust(width)}  {value}".rstrip() + "\n" for name, value in pairs)
