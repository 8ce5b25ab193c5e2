"""Rewrites the parts of the docs that are generated from the code: `python docs/generate.py`.

A page has a part named NAME between the lines `<!-- generated: NAME -->` and `<!-- end generated -->`. The sources are
`CloseCode`, `Limits` with `OVER_LIMIT`, the log calls, the capabilities that the broker plugins declare, the docstrings of
the public names in `dws_core.plugin`, and the skeletons of `python -m dws_core new`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Final

from dws_core import CloseCode, Limits
from dws_core import plugin as plugin_door
from dws_core._limits.limits import OVER_LIMIT
from dws_core._new import KINDS, Names, skeleton
from dws_core.plugin import BrokerCapabilities, BrokerSpec, LogCapabilities

ROOT: Final = Path(__file__).resolve().parents[1]
EXAMPLES: Final = ("examples/dws_sqlite/src",)
"""Folders of plugins that are not installed."""

sys.path[:0] = [str(ROOT / folder) for folder in EXAMPLES]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the tables say about a broker beside its capabilities.

    Attributes:
        page: Its page, relative to the root of the repository, or an empty text.
        best_for: When to choose it.
        publishes: Acknowledged publishes per second of 200 callers, with history, as measured on the page Performance.
        latency_ms: Median and 99th percentile from node to node at 1,000 messages a second, as measured there.
    """

    page: str
    best_for: str
    publishes: str = "-"
    latency_ms: str = "-"


BROKERS: Final = {
    "dws_memory": Choice(page="", best_for="one process, development and tests"),
    "dws_sqlite": Choice(page="examples/dws_sqlite/README.md", best_for="several processes of one machine"),
    "dws_redis": Choice(
        page="docs/plugins/redis.md",
        best_for="several machines, the lowest latency",
        publishes="82,000",
        latency_ms="0.2 and 1.5 ms",
    ),
    "dws_amqp": Choice(
        page="docs/plugins/amqp.md",
        best_for="several machines that share a RabbitMQ",
        publishes="57,000",
        latency_ms="16 and 35 ms",
    ),
    "dws_kafka": Choice(
        page="docs/plugins/kafka.md",
        best_for="messages that survive the loss of a server, days of history",
        publishes="36,000",
        latency_ms="7 and 62 ms (busy machine)",
    ),
}
"""The broker plugins, by module."""

SURVIVES: Final = {
    "none": "nothing",
    "process": "the end of a node's process",
    "disk": "a crash of the machine",
    "replicated": "the loss of a server",
}
"""The words for `LogCapabilities.durable`."""

BLOCK: Final = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end generated -->)", re.DOTALL)


def close_codes() -> str:
    """Return the table of close codes."""
    rows = []
    for code in CloseCode:
        meaning = code.meaning if code.is_sent else f"{code.meaning} (reserved)"
        reconnect = ", ".join(filter(None, ("yes", code.advice))) if code.reconnect else "no"
        rows.append((f"{code:d}", meaning, reconnect))
    return _table(("code", "meaning", "reconnect?"), rows)


def limits() -> str:
    """Return the table of the fields of `Limits`."""
    rows = [(f"`{f.name}`", _default(f.name, f.default), OVER_LIMIT[f.name]) for f in fields(Limits)]
    return _table(("field", "default", "over it"), rows)


def brokers() -> str:
    """Return the table that compares the brokers: a column for each plugin, a row for each capability."""
    columns = [broker_column(_record(module)) | _measured(choice) for module, choice in BROKERS.items()]
    rows = [(label, *(column[label] for column in columns)) for label in columns[0]]
    return _table(("", *(_heading(module, choice, "docs/plugins") for module, choice in BROKERS.items())), rows)


def choices() -> str:
    """Return the table of the README: a row for each broker, with the most important capabilities."""
    labels = ("stored messages survive", "gaps are exact", "connects several processes")
    rows = []
    for module, choice in BROKERS.items():
        spec = _record(module)
        column = broker_column(spec)
        schemes = ", ".join(f"`{scheme}://`" for scheme in spec.schemes)
        rows.append((_heading(module, choice, ""), schemes, choice.best_for, *(column[label] for label in labels)))
    return _table(("broker", "URL", "choose it for", *labels), rows)


def _measured(choice: Choice) -> dict[str, str]:
    return {
        "acknowledged publishes per second": choice.publishes,
        "from node to node (p50 and p99)": choice.latency_ms,
        "choose it for": choice.best_for,
    }


def _heading(module: str, choice: Choice, folder: str) -> str:
    name = module.replace("_", "-")
    return f"[{name}]({os.path.relpath(choice.page, folder or '.')})" if choice.page else name


def broker_column(spec: BrokerSpec) -> dict[str, str]:
    """Return the cells of a broker by row label. A broker without a log has no cells for the features of a log."""
    found, is_log = asdict(spec.capabilities), isinstance(spec.capabilities, LogCapabilities)
    if isinstance(spec.capabilities, BrokerCapabilities):
        found |= {"durable": "none", "recovery": False}
    return {
        "URL schemes": ", ".join(f"`{scheme}`" for scheme in spec.schemes),
        "stored messages survive": SURVIVES[found["durable"]],
        "clients recover missed messages": _cell(found["recovery"]),
        "gaps are exact": _cell(found.get("exact_gap")),
        "order of messages": "the same on all nodes, in each partition" if is_log else "-",
        "repeats with the same key are stored once": _cell(is_log),
        "messages between the nodes": _cell(is_log),
        "connects several processes": _cell(found["cross_process"]),
        "history size and TTL per topic": _cell(found.get("per_topic_retention")),
        "maximum payload": _cell(found["max_payload_bytes"], " bytes"),
        "maximum topic": _cell(found.get("max_topic_bytes"), " bytes"),
        "maximum requests of an idle node": _cell(found.get("idle_ops_per_s"), " per second"),
    }


def _record(module: str) -> BrokerSpec:
    (spec,) = importlib.import_module(module).dws_register_brokers()
    if not isinstance(spec, BrokerSpec) or not isinstance(spec.capabilities, BrokerCapabilities | LogCapabilities):
        raise TypeError(f"{module} offers {spec!r}, expected one BrokerSpec")
    return spec


def _default(name: str, value: Any) -> str:
    if value is None:
        return "no limit"
    if isinstance(value, str):
        return f"`{value}`"
    units = {"_per_s": " per second", "_bytes": " bytes", "_s": " s"}
    return _cell(value, next((unit for suffix, unit in units.items() if name.endswith(suffix)), ""))


def _cell(value: float | None, unit: str = "") -> str:
    """Return the text of a value. A capability that the broker does not have is None."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (f"{value:,}" if isinstance(value, int) else f"{value:g}") + unit


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


# -- the contract of plugins

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

WIDTH: Final = 100
SECTION: Final = re.compile(r"^(Args|Attributes|Returns|Yields|Raises(?: \([^)]+\))?|Example):$")


def contract() -> str:
    """Return the reference of all names in `dws_core.plugin`, in sections."""
    return "\n\n".join(
        f"## {title}\n\n{_wrap(first)}\n\n" + "\n\n".join(_reference(name) for name in names.split())
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
            parts.append(_wrap(" ".join(line.strip() for line in lines)))
    return "\n\n".join(parts)


def _blocks(docstring: str) -> list[str]:
    return [block for block in re.split(r"\n\n+(?![^`]*\n *```\n)", docstring) if block.strip()]


def _entries(lines: Sequence[str]) -> Iterator[str]:
    """Yield list items for entries `name: text`, whose further lines are indented."""
    joined = re.sub(r"\n +", " ", "\n".join(lines))
    for line in joined.splitlines():
        name, _, text = line.partition(": ")
        yield _wrap(f"- `{name}`: {text}", "  ")


def _items(lines: Sequence[str]) -> Iterator[str]:
    for line in re.sub(r"\n {2,}", " ", "\n".join(lines)).splitlines():
        yield _wrap(line, "  ")


def _wrap(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


# -- the files of the guides

GUIDES: Final = {
    "broker": "echo",
    "wire": "ledger",
    "codec": "reversed",
    "authenticator": "api-key",
    "matcher": "glob",
}
"""The plugin that the guide of each kind writes."""

LANGUAGES: Final = {".py": "python", ".toml": "toml"}
"""The files of a skeleton that its guide shows, by suffix."""


def guide_files(kind: str) -> str:
    """Return the files of a skeleton as blocks, each after a line with its path."""
    names = Names(GUIDES[kind])
    shown = {path: text for path, text in skeleton(kind, names).items() if Path(path).suffix in LANGUAGES}
    return "\n\n".join(
        f"`{names.distribution}/{path}`\n\n<!-- not run: tests/contract/test_guides.py runs this file -->\n"
        f"```{LANGUAGES[Path(path).suffix]}\n{text}```"
        for path, text in shown.items()
    )


# -- the loggers

LOGGERS: Final = {
    "dws": "The node: its broker, its connections, refused handshakes, plugins.",
    "dws.client": "The Python client.",
    "dws.kafka": "The Kafka broker. Its client library logs to `aiokafka`.",
    "dws.memory": "The memory broker.",
    "dws.proxy": "`WebSocketProxy`.",
    "dws.redis": "The Redis broker.",
    "dws.stream": "Brokers on streams, such as those of RabbitMQ and Kafka.",
}
"""The first sentence about each logger."""

LEVELS: Final = ("error", "warning", "info", "debug")

FROM_STATE: Final = "WARNING if it is degraded or blocked, otherwise INFO"
"""The level of the one line whose level depends on a value."""


@dataclass(frozen=True, slots=True, order=True)
class LogLine:
    """A line of a logger, with an ellipsis for each value.

    Attributes:
        logger: Name of the logger.
        level: Name of the level in lower case.
        text: The line. Empty if it consists only of the text of an error.
        traceback: Whether a traceback follows.
    """

    logger: str
    level: str
    text: str
    traceback: bool


def loggers() -> str:
    """Return a section for each logger, with its lines by level."""
    found = set(log_lines())
    parts = []
    for name in sorted({line.logger for line in found}):
        parts.append(f"## `{name}`\n\n{LOGGERS[name]}")
        for level in LEVELS:
            shown = sorted(line for line in found if (line.logger, line.level) == (name, level))
            if shown:
                parts.append(f"{level.upper()}:\n\n" + "\n".join(_line_item(line) for line in shown))
    return "\n\n".join(parts)


def _line_item(line: LogLine) -> str:
    mark = "``" if "`" in line.text else "`"
    text = f"{mark}{line.text}{mark}" if line.text else "the text of an error"
    note = f" ({FROM_STATE})" if line.text.startswith("broker is") else ""
    return _wrap(f"- {text}{note}{', with a traceback' if line.traceback else ''}", "  ")


def log_lines() -> Iterator[LogLine]:
    """Yield the lines of all loggers of the core and of the plugins."""
    for path in (*ROOT.glob("dws_core/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")):
        tree = ast.parse(path.read_text())
        names = {
            ast.unparse(node.targets[0]): str(node.value.args[0].value)
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and ast.unparse(node.value.func) == "logging.getLogger"
            and isinstance(node.value.args[0], ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                owner = ast.unparse(node.func.value)
                if owner in names:
                    yield _log_line(names[owner], node.func.attr, node)


def _log_line(logger: str, method: str, call: ast.Call) -> LogLine:
    level = {"exception": "error", "log": "warning"}.get(method, method)
    text = ast.literal_eval(call.args[1 if method == "log" else 0])
    shown = " ".join(re.sub(r"%(?:\.\d)?[a-z]", "…", text).split())
    has_traceback = method == "exception" or any(keyword.arg == "exc_info" for keyword in call.keywords)
    return LogLine(logger, level, "" if shown == "…" else shown, has_traceback)


TABLES: Final[dict[str, Callable[[], str]]] = {
    "close-codes": close_codes,
    "limits": limits,
    "brokers": brokers,
    "choices": choices,
    "contract": contract,
    "loggers": loggers,
    **{f"files-{kind}": partial(guide_files, kind) for kind in KINDS},
}


def render(page: str) -> str:
    """Return the text of a page with all generated parts replaced.

    Raises:
        KeyError: The page has a part with an unknown name.
    """
    return BLOCK.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", page)


def main() -> None:
    """Rewrite all pages, and print those that have changed."""
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))):
        page = path.read_text()
        if (rendered := render(page)) != page:
            path.write_text(rendered)
            print(f"rewrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
