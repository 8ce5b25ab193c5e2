"""A broker for dws in one SQLite file: several processes on one machine, no server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dws_core.plugin import BrokerSpec, LogBroker, LogCapabilities, hookimpl

CAPABILITIES: Final = LogCapabilities(durable="process", idle_ops_per_s=51.0)
"""Guarantees of the broker. The plugin record below and the class share them."""


def _load() -> type[LogBroker]:
    from dws_sqlite._broker import SQLiteBroker  # noqa: PLC0415 -- imported only when the scheme is used

    return SQLiteBroker


@hookimpl
def dws_register_brokers() -> Iterable[BrokerSpec]:
    """Register `sqlite:///path/to/file`."""
    yield BrokerSpec(
        schemes=("sqlite",),
        load=_load,
        capabilities=CAPABILITIES,
        summary="One SQLite file: several processes on one machine, with history, without a server.",
    )
