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
"""What is promised by a Redis as it is delivered; with an append-only file the log survives Redis itself."""


def _load() -> type[RedisBroker]:
    from dws_redis._broker import RedisBroker  # noqa: PLC0415 -- when the scheme is used, not before

    return RedisBroker


@hookimpl
def dws_register_brokers() -> Iterable[BrokerSpec]:
    """Offer `redis://`, `unix://` (a socket file), `redis+sentinel://`, `redis+cluster://`, and with TLS `rediss…`."""
    yield BrokerSpec(
        schemes=(
            "redis",
            "rediss",
            "unix",
            "redis+sentinel",
            "rediss+sentinel",
            "redis+cluster",
            "rediss+cluster",
        ),
        load=_load,
        capabilities=CAPABILITIES,
        summary="Logs on a Redis or Valkey server: for many processes and machines.",
    )


def __getattr__(name: str) -> Any:
    if name in __all__:
        return _load()
    raise AttributeError(f"module 'dws_redis' has no attribute {name!r}")
