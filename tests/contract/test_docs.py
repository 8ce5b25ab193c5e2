"""Checks of the docs: code blocks run, links resolve, and each error and each hook has its section."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path

import pytest

import dws_core
from dws_core import _errors, hookspecs
from dws_core._wire.client_errors import Refused

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("plugins/*/README.md"),
        *ROOT.glob("examples/*/README.md"),
    ]
)
BLOCK = re.compile(r"(<!-- not run: [^\n]+ -->\n+)?^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _id(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_python_blocks_of_page_run(page: Path) -> None:
    namespace: dict[str, object] = {"__name__": "docs"}
    text = page.read_text()
    for match in BLOCK.finditer(text):
        if match[1]:
            continue
        line = text.count("\n", 0, match.start(2))
        code = compile("\n" * line + match[2], str(page), "exec", dont_inherit=True)
        exec(code, namespace)
    for name, value in namespace.items():
        if name.startswith("test_") and inspect.iscoroutinefunction(value):
            asyncio.run(value())


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_links_of_page_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), target


def _code_lines(path: Path) -> int:
    """Return the number of lines that are not blank, a comment or a part of a docstring."""
    lines = path.read_text().splitlines()
    texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Expr)]
    docs = [node for node in texts if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    skipped = {line for node in docs for line in range(node.lineno, (node.end_lineno or 0) + 1)}
    code = [line for number, line in enumerate(lines, 1) if number not in skipped]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in code)


def test_sqlite_example_is_as_small_as_stated() -> None:
    assert "less than 150 lines of code" in " ".join((ROOT / "examples/dws_sqlite/README.md").read_text().split())
    assert sum(map(_code_lines, ROOT.glob("examples/dws_sqlite/src/**/*.py"))) < 150


def test_every_error_has_one_section() -> None:
    classes = [c for c in vars(_errors).values() if inspect.isclass(c) and issubclass(c, dws_core.DWSError)]
    slugs = {c.slug for c in [*classes, Refused]}
    sections = set(re.findall(r"^## `?([a-z-]+)`?$", (ROOT / "docs/reference/errors.md").read_text(), re.MULTILINE))
    assert slugs == sections


def test_every_hook_has_section_with_signature() -> None:
    text = (ROOT / "docs/reference/hooks.md").read_text()
    hooks = {name: f for name, f in vars(hookspecs).items() if name.startswith("dws_register_")}
    assert set(re.findall(r"^## `?(dws_\w+)`?$", text, re.MULTILINE)) == set(hooks)
    for name, function in hooks.items():
        signature = f"def {name}() -> {inspect.signature(function).return_annotation}"
        assert signature in text, signature
