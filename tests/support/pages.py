"""Code blocks of the documentation pages."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def block(page: str, language: str, containing: str) -> str:
    """Return the first block of a page in a language that contains a text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    found: list[str] = [text for text in blocks if containing in text]
    assert found, f"no {language} block with {containing!r} in {page}"
    return found[0]
