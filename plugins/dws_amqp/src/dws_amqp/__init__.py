"""The RabbitMQ broker: partition logs, history and recovery on streams of one RabbitMQ server or a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from dws_core.plugin import BrokerSpec, LogCapabilities, hookimpl

if TYPE_CHECKING:
    from dws_amqp._broker import AmqpBroker as AmqpBroker

__all__ = ["AmqpBroker"]

CAPABILITIES: Final = LogCapabilities(durable="process", idle_ops_per_s=8.0)
"""Guarantees of a single server with the default options. A cluster also survives the loss of a server."""


def _load() -> type[AmqpBroker]:
    from dws_amqp._broker import AmqpBroker  # noqa: PLC0415 -- imported only when the scheme is used

    return AmqpBroker


@hookimpl
def dws_register_brokers() -> Iterable[BrokerSpec]:
    """Register `amqp`, and `amqps` with TLS."""
    yield BrokerSpec(
        schemes=("amqp", "amqps"),
        load=_load,
        capabilities=CAPABILITIES,
        summary="Logs on the streams of RabbitMQ: for many processes and machines.",
    )


def __getattr__(name: str) -> Any:
    if name in __all__:
        return _load()
    raise AttributeError(f"module 'dws_amqp' has no attribute {name!r}")
