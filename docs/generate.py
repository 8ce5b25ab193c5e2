"""Rewrites the tables in the docs that are generated from the code: `python docs/generate.py`.

A page has a table named NAME between the lines `<!-- generated: NAME -->` and `<!-- end generated -->`. The sources of
the tables are `CloseCode`, `Limits` with `OVER_LIMIT`, and the capabilities that the broker plugins declare.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

from dws_core import CloseCode, Limits
from dws_core._limits.limits import OVER_LIMIT
from dws_core.plugin import BrokerCapabilities, BrokerSpec, LogCapabilities

ROOT: Final = Path(__file__).resolve().parents[1]
EXAMPLES: Final = ("examples/dws_sqlite/src",)
"""Folders of plugins that are not installed."""

sys.path[:0] = [str(ROOT / folder) for folder in EXAMPLES]

BROKERS: Final = {
    "dws_memory": "dws-memory",
    "dws_redis": "[dws-redis](redis.md)",
    "dws_sqlite": "[dws-sqlite](../../examples/dws_sqlite/README.md)",
}
"""The heading of each broker plugin, by module."""

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
    columns = [broker_column(_record(module)) for module in BROKERS]
    rows = [(label, *(column[label] for column in columns)) for label in columns[0]]
    return _table(("", *BROKERS.values()), rows)


def broker_column(spec: BrokerSpec) -> dict[str, str]:
    """Return the cells of a broker by row label. A broker without a log has no cells for the features of a log."""
    found = asdict(spec.capabilities)
    if isinstance(spec.capabilities, BrokerCapabilities):
        found |= {"durable": "none", "recovery": False}
    return {
        "URL schemes": ", ".join(f"`{scheme}`" for scheme in spec.schemes),
        "stored messages survive": SURVIVES[found["durable"]],
        "clients recover missed messages": _cell(found["recovery"]),
        "gaps are exact": _cell(found.get("exact_gap")),
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


TABLES: Final[dict[str, Callable[[], str]]] = {"close-codes": close_codes, "limits": limits, "brokers": brokers}


def render(page: str) -> str:
    """Return the text of a page with all generated tables replaced.

    Raises:
        KeyError: The page asks for an unknown table.
    """
    return BLOCK.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", page)


def main() -> None:
    """Rewrite all pages, and print those that have changed."""
    for path in sorted(ROOT.glob("docs/**/*.md")):
        page = path.read_text()
        if (rendered := render(page)) != page:
            path.write_text(rendered)
            print(f"rewrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
