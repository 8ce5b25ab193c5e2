"""A skipped test names the command that enables it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("tests", "plugins/*/tests", "examples/*/tests")
COMMANDS = ("pip install", "apt install", "apt-get install", "nox -s")
PLATFORM = "sys.platform"
"""No command provides another operating system."""


def _files() -> list[Path]:
    return sorted({path for folder in FOLDERS for root in ROOT.glob(folder) for path in root.rglob("*.py")})


def _skips(path: Path) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("importorskip", "pytest.skip", "skipif")):
            yield node


def _texts(call: ast.Call) -> str:
    """Return the arguments, and the assignments of the names among them."""
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    return " ".join(map(ast.unparse, arguments))


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_skip_names_the_command_that_enables_it(path: Path) -> None:
    source = path.read_text()
    for call in _skips(path):
        text = _texts(call)
        if text in ("text", "found.why"):  # made in the same file
            assert any(command in source for command in COMMANDS), f"{path.name}:{call.lineno}"
        elif PLATFORM not in text:
            assert any(command in text for command in COMMANDS), f"{path.name}:{call.lineno} skips with {text!r}"
