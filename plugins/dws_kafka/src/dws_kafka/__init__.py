"""The Kafka broker: partition logs, history and recovery on Apache Kafka."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from dws_core.plugin import BrokerSpec, LogCapabilities, hookimpl

if TYPE_CHECKING:
    from dws_kafka._broker import KafkaBroker as KafkaBroker

__all__ = ["KafkaBroker"]

CAPABILITIES: Final = LogCapabilities(durable="replicated", idle_ops_per_s=30.0)
"""Guarantees with the default options on a cluster of three or more brokers."""


def _load() -> type[KafkaBroker]:
    from dws_kafka._broker import KafkaBroker  # noqa: PLC0415 -- imported only when the scheme is used

    return KafkaBroker


@hookimpl
def dws_register_brokers() -> Iterable[BrokerSpec]:
    """Register `kafka`, and with TLS `kafkas`."""
    yield BrokerSpec(
        schemes=("kafka", "kafkas"),
        load=_load,
        capabilities=CAPABILITIES,
        summary="Logs on Apache Kafka: for many machines, and for messages that survive the loss of a server.",
    )


def __getattr__(name: str) -> Any:
    if name in __all__:
        return _load()
    raise AttributeError(f"module 'dws_kafka' has no attribute {name!r}")
