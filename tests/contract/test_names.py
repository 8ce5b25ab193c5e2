"""Test names are short: `subject_behaviour`, with the details in the docstring."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("tests", "plugins/*/tests", "examples/*/tests", "dws_core/testing/suites")
LIMIT = 70
"""Maximum length of a test name, including `test_`. Aim for 60."""


def _test_names() -> Iterator[str]:
    for folder in FOLDERS:
        for path in (path for found in ROOT.glob(folder) for path in found.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                    yield node.name


def test_names_of_tests_are_short() -> None:
    names = list(_test_names())
    assert len(names) > 900, "the folders were read"
    too_long = [name for name in names if len(name) > LIMIT]
    assert not too_long, f"{too_long}. Fix: use at most {LIMIT} characters, and move the details to the docstrings"
