"""The lines of the loggers, from the log calls in the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from generator.text import wrap

ROOT: Final = Path(__file__).resolve().parents[2]

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
    return wrap(f"- {text}{note}{', with a traceback' if line.traceback else ''}", "  ")


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
