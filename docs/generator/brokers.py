"""The tables that compare the brokers, from the capabilities that their plugins declare."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from dws_core.plugin import BrokerCapabilities, BrokerSpec, LogCapabilities
from generator.text import cell, table

EXAMPLES: Final = str(Path(__file__).resolve().parents[2] / "examples/dws_sqlite/src")
"""Folder of a plugin that is not installed."""


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


def brokers() -> str:
    """Return the table that compares the brokers: a column for each plugin, a row for each capability."""
    columns = [broker_column(_record(module)) | _measured(choice) for module, choice in BROKERS.items()]
    rows = [(label, *(column[label] for column in columns)) for label in columns[0]]
    return table(("", *(_heading(module, choice, "docs/plugins") for module, choice in BROKERS.items())), rows)


def choices() -> str:
    """Return the table of the README: a row for each broker, with the most important capabilities."""
    labels = ("stored messages survive", "gaps are exact", "connects several processes")
    rows = []
    for module, choice in BROKERS.items():
        spec = _record(module)
        column = broker_column(spec)
        schemes = ", ".join(f"`{scheme}://`" for scheme in spec.schemes)
        rows.append((_heading(module, choice, ""), schemes, choice.best_for, *(column[label] for label in labels)))
    return table(("broker", "URL", "choose it for", *labels), rows)


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
        "clients recover missed messages": cell(found["recovery"]),
        "gaps are exact": cell(found.get("exact_gap")),
        "order of messages": "the same on all nodes, in each partition" if is_log else "-",
        "repeats with the same key are stored once": cell(is_log),
        "messages between the nodes": cell(is_log),
        "connects several processes": cell(found["cross_process"]),
        "history size and TTL per topic": cell(found.get("per_topic_retention")),
        "maximum payload": cell(found["max_payload_bytes"], " bytes"),
        "maximum topic": cell(found.get("max_topic_bytes"), " bytes"),
        "maximum requests of an idle node": cell(found.get("idle_ops_per_s"), " per second"),
    }


def _record(module: str) -> BrokerSpec:
    sys.path.insert(0, EXAMPLES)
    try:
        (spec,) = importlib.import_module(module).dws_register_brokers()
    finally:
        sys.path.remove(EXAMPLES)
    if not isinstance(spec, BrokerSpec) or not isinstance(spec.capabilities, BrokerCapabilities | LogCapabilities):
        raise TypeError(f"{module} offers {spec!r}, expected one BrokerSpec")
    return spec
