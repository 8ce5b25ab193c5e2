"""The import rules, checked on the syntax tree."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "dws_core"

LAYERS: dict[str, int] = {
    "_errors": 0,
    "_options": 0,
    "_reason": 0,
    "_tasks": 0,
    "_url": 0,
    "_wire": 1,
    "_limits": 1,
    "_topics": 1,
    "_log": 1,
    "_auth.interface": 1,
    "_auth.origin": 1,
    "_auth.permissions": 1,
    "_auth.tokens": 1,
    "_plugins": 2,
    "hookspecs": 2,
    "plugin": 2,
    "_builtin": 2,
    "client._events": 1,
    "client._members": 1,
    "client._replays": 1,
    "client._state": 1,
}
"""The layers of modules. All modules that are not listed are in layer 3."""

NODE_ORDER = [
    {"manager"},
    {"publish_methods", "request_methods", "user_methods"},
    {"runtime"},
    {"tail_sink", "requests"},
    {"recovery", "asking"},
    {"connection"},
    {"sending"},
    {"publisher"},
    {"stats", "pacing", "broker", "pending_publish", "arguments", "not_started", "notices"},
]
"""The parts of `_node`. Each imports only from its own group or from a later one."""

MAX_POSITIONAL = 5
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 36
MAX_FUNCTION_P90 = 12

FRAMEWORK = {"starlette", "fastapi", "uvicorn"}
MAY_USE_FRAMEWORK = ("_node", "_auth", "_proxy", "_uvicorn", "server", "testing", "_errors")
MAY_IMPORT = {("_plugins.slow", "time"), ("_errors", "starlette")}
"""The clock for slow plugins, and the exception that Starlette handles."""
MAY_USE_LOOP = ("_tasks", "_log.stream.io")
"""The I/O around the state machines of `_log.stream` is part of the public base class, so it is in a low layer."""
IMPURE = FRAMEWORK | {"asyncio", "time", "anyio", "websockets", "threading", "socket"}


def _modules(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def _name(path: Path) -> str:
    parts = path.relative_to(CORE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _layer(module: str) -> int:
    while module:
        if module in LAYERS:
            return LAYERS[module]
        module = module.rpartition(".")[0]
    return 3


def _imports(path: Path) -> Iterator[tuple[str, bool, bool]]:
    """Yield each imported module, whether it is for type checking only, and whether it is inside a function."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    inside = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in typing_only, id(node) in inside
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module), id(node) in typing_only, id(node) in inside


def _core_modules() -> list[Path]:
    return [path for path in _modules(CORE) if "testing" not in path.parts]


@pytest.mark.parametrize("path", _core_modules(), ids=_name)
def test_module_imports_only_its_layer_or_lower(path: Path) -> None:
    own = _layer(_name(path))
    for imported, _, inside in _imports(path):
        if imported.startswith("dws_core.") and not inside:
            assert _layer(imported.removeprefix("dws_core.")) <= own, f"{path.name} imports {imported}"


@pytest.mark.parametrize("path", _core_modules(), ids=_name)
def test_core_never_imports_a_plugin(path: Path) -> None:
    for imported, _, _ in _imports(path):
        assert not imported.startswith(("dws_memory", "dws_redis", "dws_kafka", "dws_amqp", "dws_sqlite")), imported


@pytest.mark.parametrize("path", _core_modules(), ids=_name)
def test_only_outer_layer_imports_framework_and_loop(path: Path) -> None:
    name = _name(path)
    for imported, typing_only, _ in _imports(path):
        top = imported.partition(".")[0]
        if _layer(name) < 3 and not name.startswith(MAY_USE_LOOP) and not (typing_only and top == "asyncio"):
            assert top not in IMPURE or (name, top) in MAY_IMPORT, f"{name} imports {imported}"
        if top in FRAMEWORK:
            assert name.startswith(MAY_USE_FRAMEWORK), f"{name} imports {imported}"
        if top == "websockets":
            assert name.startswith("_proxy") or name in {
                "server",
                "client._endpoint",
                "client._link",
                "client._client",
            }, f"{name} imports {imported}"
        if top == "pluggy":
            assert name in {"_plugins.hooks", "_plugins.markers"}, f"{name} imports {imported}"


def _plugin_sources() -> list[Path]:
    folders = [*ROOT.glob("plugins/*/src"), *ROOT.glob("examples/*/src")]
    return [path for folder in folders for path in _modules(folder)]


@pytest.mark.parametrize("path", _plugin_sources(), ids=lambda p: f"{p.parent.name}.{p.stem}")
def test_plugin_imports_only_public_modules(path: Path) -> None:
    own = path.relative_to(ROOT).parts[3] if "src" in path.parts else ""
    for imported, _, _ in _imports(path):
        if imported.startswith("dws_"):
            assert imported in {"dws_core", "dws_core.plugin"} or imported.split(".")[0] == own, imported


def test_plugin_import_does_not_load_its_broker() -> None:
    import subprocess
    import sys

    code = "import sys, dws_memory; assert 'dws_memory._broker' not in sys.modules; dws_memory.InMemoryBroker"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("path", _modules(CORE / "testing"), ids=lambda p: p.stem)
def test_testing_kit_imports_only_public_modules(path: Path) -> None:
    for imported, _, _ in _imports(path):
        if imported.startswith("dws_core.") and not imported.startswith("dws_core.testing"):
            assert imported in {"dws_core.plugin", "dws_core.client"}, imported


def _node_rank(module: str) -> int:
    part = module.removeprefix("dws_core.").removeprefix("_node.").partition(".")[0]
    return next(rank for rank, parts in enumerate(NODE_ORDER) if part in parts)


@pytest.mark.parametrize("path", [p for p in _modules(CORE / "_node") if p.name != "__init__.py"], ids=_name)
def test_node_parts_import_only_to_the_right(path: Path) -> None:
    own = _node_rank(_name(path))
    for imported, _, _ in _imports(path):
        if imported.startswith("dws_core._node."):
            assert _node_rank(imported) >= own, f"{_name(path)} imports {imported}"


@pytest.mark.parametrize("path", _core_modules(), ids=_name)
def test_stream_io_is_imported_only_by_the_door(path: Path) -> None:
    """The state machines of a stream do not depend on the loop around them."""
    name = _name(path)
    if name != "plugin" and not name.startswith("_log.stream.io"):
        assert not [imported for imported, _, _ in _imports(path) if imported.startswith("dws_core._log.stream.io")]


def _import_graph() -> dict[str, set[str]]:
    """Return the imports between modules of the core, TYPE_CHECKING and function bodies included."""
    names = {_name(path) for path in _modules(CORE)}
    graph: dict[str, set[str]] = {}
    for path in _modules(CORE):
        imported = {name.removeprefix("dws_core.") for name, _, _ in _imports(path) if name.startswith("dws_core.")}
        graph[_name(path)] = imported & names - {""}
    return graph


def test_core_modules_have_no_import_cycle() -> None:
    graph = _import_graph()
    left = set(graph)
    while leaves := {name for name in left if not graph[name] & left}:
        left -= leaves
    assert not left, f"in or before a cycle: {sorted(left)}"


def _positional(function: ast.FunctionDef) -> int:
    return len(function.args.posonlyargs) + len(function.args.args) - 1


@pytest.mark.parametrize("path", _core_modules(), ids=_name)
def test_constructors_have_few_positional_arguments(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            assert _positional(node) <= MAX_POSITIONAL, f"{path.name}:{node.lineno}"


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_files_and_functions_are_short() -> None:
    lengths = []
    for path in [*_modules(CORE), *_plugin_sources()]:
        text = path.read_text()
        assert text.count("\n") <= MAX_FILE_LINES, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lengths.append(_body_lines(node))
                assert lengths[-1] <= MAX_FUNCTION_LINES, f"{path}:{node.lineno} has {lengths[-1]} lines"
    assert sorted(lengths)[int(len(lengths) * 0.9)] <= MAX_FUNCTION_P90


def test_folders_are_small() -> None:
    for folder in {path.parent for path in _modules(CORE)}:
        assert len(list(folder.glob("*.py"))) <= 16, f"{folder} wants rooms"


def test_architecture_page_shows_the_folders() -> None:
    """Each file and folder of the core and of the node is named on the page, and nothing else is."""
    page = (ROOT / "docs/explanation/architecture.md").read_text()
    blocks = dict(re.findall(r"^```\n(dws_core/\S*)\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    for folder in (CORE, CORE / "_node", CORE / "_log/stream"):
        block = blocks[f"{folder.relative_to(ROOT)}/"]
        assert set(re.findall(r"^[├└]── (\S+?)/?(?:\s|$)", block, re.MULTILINE)) == _shown(folder)
    assert set(re.findall(r"^    [├└]── (\S+)", block, re.MULTILINE)) == _shown(CORE / "_log/stream/io")


def _shown(folder: Path) -> set[str]:
    present = {path.name for path in folder.iterdir() if path.name not in ("__pycache__", "py.typed")}
    return present - ({"__init__.py"} if folder != CORE else set())
