"""The countable rules of plain English, over all docstrings and all pages."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("dws_core", "plugins/*/src", "examples", "benchmarks", "tests")
PAGES = ("docs/**/*.md", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "changelog.d/*.md", "*/*/README.md")

HEADLESS = re.compile(
    r"(?:^|[.:;,(]\s+|\b(?:of|to|for|by|from|with|that|and|or|is|are)\s+)(?:what|who|whoever|whatever)\s+\w+",
    re.IGNORECASE,
)
"""A relative clause without a noun, such as "what waits is dropped"."""

ARCHAIC = re.compile(r"\b(?:anew|heeds?|meanwhile|for ever|whoever|an own)\b", re.IGNORECASE)

MAX_SEMICOLONS = 4
MAX_HEADLESS = 2
"""Per 1,000 words."""


def _docstrings() -> Iterator[tuple[str, str]]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for folder in (found for pattern in SOURCES for found in ROOT.glob(pattern)):
        for path in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, documented) and (text := ast.get_docstring(node)):
                    yield f"{path.relative_to(ROOT)}:{node.body[0].lineno}", text


def _prose() -> Iterator[tuple[str, str]]:
    for path in {found for pattern in PAGES for found in ROOT.glob(pattern)}:
        text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
        lines = [line for line in text.splitlines() if not line.startswith("|")]
        yield str(path.relative_to(ROOT)), "\n".join(lines)


TEXTS = [*_docstrings(), *_prose()]
WORDS = sum(len(text.split()) for _, text in TEXTS)


def _found(pattern: re.Pattern[str]) -> list[str]:
    return [f"{where}: {match[0].strip()}" for where, text in TEXTS for match in pattern.finditer(text)]


def test_texts_were_read() -> None:
    assert WORDS > 30_000


def test_semicolons_are_rare() -> None:
    found = _found(re.compile(r"[^;\n]*;"))
    assert len(found) / WORDS * 1000 <= MAX_SEMICOLONS, "\n".join(found)


def test_relative_clauses_have_a_noun() -> None:
    found = _found(HEADLESS)
    assert len(found) / WORDS * 1000 <= MAX_HEADLESS, "\n".join(found)


def test_archaic_words_are_absent() -> None:
    assert _found(ARCHAIC) == []
