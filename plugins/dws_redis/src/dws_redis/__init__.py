"""The Redis broker: partition logs, history and recovery on one Redis or Valkey."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from dws_core.plugin import BrokerSpec, LogCapabilities, hookimpl

if TYPE_CHECKING:
    from dws_redis._broker import RedisBroker as RedisBroker

__all__ = ["RedisBroker"]

CAPABILITIES: Final = LogCapabilities(
    durable="process",
    exact_gap=True,
    partition_interest=True,
    idle_ops_per_s=2.0,
)
"""Guarantees with the default configuration of Redis. With an append-only file, the log also survives Redis itself."""


_SCHEMES: Final = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)


def _load() -> type[RedisBroker]:
    from dws_redis._broker import RedisBroker  # noqa: PLC0415 -- imported only when the scheme is used

    return RedisBroker


@hookimpl
def dws_register_brokers() -> Iterable[BrokerSpec]:
    """Register `redis`, `unix` (a socket file), `redis+sentinel` and `redis+cluster`, and with TLS `rediss…`."""
    yield BrokerSpec(
        schemes=_SCHEMES,
        load=_load,
        capabilities=CAPABILITIES,
        summary="Logs on a Redis or Valkey server: for many processes and machines.",
    )


def __getattr__(name: str) -> Any:
    if name in __all__:
        return _load()
    raise AttributeError(f"module 'dws_redis' has no attribute {name!r}")
