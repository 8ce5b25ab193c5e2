"""Markdown: table cells, tables and wrapped paragraphs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

WIDTH: Final = 100
"""Maximum length of a line of prose and of a signature."""


def cell(value: float | None, unit: str = "") -> str:
    """Return the text of a value. A capability that the broker does not have is None."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (f"{value:,}" if isinstance(value, int) else f"{value:g}") + unit


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with a head."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def wrap(text: str, indent: str = "") -> str:
    """Return a paragraph in lines of at most `WIDTH` characters. `indent` precedes all lines after the first."""
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
