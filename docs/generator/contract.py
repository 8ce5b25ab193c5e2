"""The reference of the names in `dws_core.plugin`, from their definitions and docstrings."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from dws_core import plugin as plugin_door
from generator.text import WIDTH, wrap

GROUPS: Final = {
    "Register a plugin": (
        "hookimpl API_VERSION BrokerSpec CodecSpec TopicMatcherSpec AuthenticatorSpec PluginRegistry",
        "The functions that a plugin implements are on the page [Hooks](hooks.md).",
    ),
    "Plain brokers": (
        "BrokerInterface BrokerCapabilities Delivery",
        "[Write a plain broker](../plugins/write-a-plain-broker.md) is the guide.",
    ),
    "Log brokers": (
        "LogBroker LogCapabilities TailSink Record Receipt Head History Layout ReadSpan ReadResult GapReason "
        "BrokerState Offset TopicMatch WantedTopics",
        "[Which kind of broker do I write?](../plugins/write-a-broker.md) explains the difference to a plain broker.",
    ),
    "Stream brokers": (
        "StreamLogBroker StreamWire WireInfo StreamBounds Start StreamSettings WireError WireLost WireRefused "
        "WireBlocked WireOutOfRange WireUnusable",
        "[Write a stream broker](../plugins/write-a-stream-broker.md) is the guide. The author writes only the wire.",
    ),
    "Helpers": (
        "BrokerURL partition_of TailState Advance Lost TailEvent SeqFilter Coalescer Watchdog Backoff",
        "They are optional. They contain no I/O and read no clock, so that they are easy to test.",
    ),
    "Codecs": ("Codec JSON Message", "[Write a codec](../plugins/write-a-codec.md) is the guide."),
    "Topic matchers": (
        "TopicMatcher TopicIndex",
        "[Write a topic matcher](../plugins/write-a-topic-matcher.md) is the guide.",
    ),
    "Authenticators": (
        "Authenticator TokenAuthenticator AuthenticatorFactory TokenVerifier Handshake Principal",
        "[Write an authenticator](../plugins/write-an-authenticator.md) is the guide.",
    ),
    "Errors": (
        "ConfigurationError InvalidBrokerURL BrokerError BrokerUnavailable BrokerOverloaded BrokerClosed "
        "BrokerMisconfigured LayoutMismatch PublishOutcomeUnknown PayloadTooLarge CodecError InvalidTopic "
        "InvalidFilter AuthenticationFailed",
        "[Errors](errors.md) has the cause and the remedy of each.",
    ),
}
"""The names of `dws_core.plugin` by section, and the first sentence of the section."""

UNDOCUMENTED: Final = {
    "hookimpl": "Marks a function of a plugin as the implementation of a hook. Use it as a decorator."
}
"""Names whose value is an object of another library."""

SECTION: Final = re.compile(r"^(Args|Attributes|Returns|Yields|Raises(?: \([^)]+\))?|Example):$")


def contract() -> str:
    """Return the reference of all names in `dws_core.plugin`, in sections."""
    return "\n\n".join(
        f"## {title}\n\n{wrap(first)}\n\n" + "\n\n".join(_reference(name) for name in names.split())
        for title, (names, first) in GROUPS.items()
    )


def _reference(name: str) -> str:
    node, text = _definition(name)
    parts = [f"### `{name}`", f"```\n{_signature(node)}\n```", UNDOCUMENTED.get(name) or _prose(text)]
    if isinstance(node, ast.ClassDef):
        for method in _methods(node):
            if found := ast.get_docstring(method):
                parts += [f"#### `{name}.{method.name}`", _prose(found)]
    return "\n\n".join(part for part in parts if part)


def _definition(name: str) -> tuple[ast.stmt, str]:
    """Return the statement that defines a public name, and its docstring."""
    module = next(
        node.module
        for node in ast.parse(inspect.getsource(plugin_door)).body
        if isinstance(node, ast.ImportFrom) and node.module and any(alias.name == name for alias in node.names)
    )
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node, ast.get_docstring(node) or ""
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
            return node, _constant(following)
    raise LookupError(f"{module} does not define {name}")


def _constant(node: ast.stmt | None) -> str:
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return inspect.cleandoc(str(node.value.value)) if is_text else ""  # type: ignore[union-attr]  # as checked


def _signature(node: ast.stmt) -> str:
    if isinstance(node, ast.ClassDef):
        arguments = [*map(ast.unparse, node.bases), *(f"{k.arg}={ast.unparse(k.value)}" for k in node.keywords)]
        bases = f"({', '.join(arguments)})" if arguments else ""
        members = [*_class_fields(node), *(_function(method) for method in _methods(node, "__init__"))]
        head = "".join(f"@{ast.unparse(found)}\n" for found in node.decorator_list) + f"class {node.name}{bases}:"
        return head + "".join(textwrap.indent(f"\n{member}", "    ") for member in members or ["..."])
    if isinstance(node, ast.FunctionDef):
        return _function(node)
    if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
        return f"{ast.unparse(node.target)} = {ast.unparse(node.value or node.target)}"
    return f"{ast.unparse(node.target)}: {ast.unparse(node.annotation)}" if isinstance(node, ast.AnnAssign) else ""


def _class_fields(node: ast.ClassDef) -> Iterator[str]:
    for entry in node.body:
        if isinstance(entry, ast.AnnAssign | ast.Assign):
            target = entry.target if isinstance(entry, ast.AnnAssign) else entry.targets[0]
            if not ast.unparse(target).startswith("_"):
                yield ast.unparse(entry)


def _methods(node: ast.ClassDef, *more: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    functions = [entry for entry in node.body if isinstance(entry, ast.FunctionDef | ast.AsyncFunctionDef)]
    names = ("__len__", *more)
    return [function for function in functions if not function.name.startswith("_") or function.name in names]


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    decorators = "".join(f"@{ast.unparse(found)}\n" for found in node.decorator_list)
    word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    line = f"{word} {node.name}({ast.unparse(node.args)}){returns}"
    if len(line) > WIDTH - 4:
        line = f"{word} {node.name}(\n{textwrap.indent(_split(ast.unparse(node.args)), '    ')}\n){returns}"
    return decorators + line


def _split(arguments: str) -> str:
    """Return arguments one per line, each with a comma."""
    lines, depth = [""], 0
    for character in arguments:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth:
            lines.append("")
        else:
            lines[-1] += character
    return "\n".join(f"{line.strip()}," for line in lines)


def _prose(docstring: str) -> str:
    """Return a docstring as Markdown: sections become lists, paragraphs are wrapped again."""
    parts: list[str] = []
    title = ""
    for block in _blocks(docstring):
        lines = block.splitlines()
        if found := SECTION.match(lines[0]):
            title = found[1]
            lines = textwrap.dedent("\n".join(lines[1:])).splitlines()
            if title in ("Returns", "Yields"):
                lines[0] = f"{title}: {lines[0]}"
            else:
                parts.append(f"{title}:")
        elif not block.startswith(" "):
            title = ""
        if not lines:
            continue
        if title == "Example":
            parts.append(f"<!-- not run: example of a docstring -->\n{textwrap.dedent(block.partition(chr(10))[2])}")
        elif title and not title.startswith(("Returns", "Yields")):
            parts.append("\n".join(_entries(lines)))
        elif lines[0].startswith("- "):
            parts.append("\n".join(_items(lines)))
        else:
            parts.append(wrap(" ".join(line.strip() for line in lines)))
    return "\n\n".join(parts)


def _blocks(docstring: str) -> list[str]:
    return [block for block in re.split(r"\n\n+(?![^`]*\n *```\n)", docstring) if block.strip()]


def _entries(lines: Sequence[str]) -> Iterator[str]:
    """Yield list items for entries `name: text`, whose further lines are indented."""
    joined = re.sub(r"\n +", " ", "\n".join(lines))
    for line in joined.splitlines():
        name, _, text = line.partition(": ")
        yield wrap(f"- `{name}`: {text}", "  ")


def _items(lines: Sequence[str]) -> Iterator[str]:
    for line in re.sub(r"\n {2,}", " ", "\n".join(lines)).splitlines():
        yield wrap(line, "  ")
