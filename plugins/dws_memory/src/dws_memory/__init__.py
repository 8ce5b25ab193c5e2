"""The broker that needs no server: logs in the memory of one process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dws_core.plugin import BrokerSpec, LogCapabilities, hookimpl

if TYPE_CHECKING:
    from dws_memory._broker import MemoryBroker
    from dws_memory._broker import MemoryBroker as InMemoryBroker

__all__ = ["InMemoryBroker", "MemoryBroker"]


def _load() -> type[MemoryBroker]:
    from dws_memory._broker import MemoryBroker  # noqa: PLC0415 -- imported only when its scheme is used

    return MemoryBroker


@hookimpl
def dws_register_brokers() -> Iterable[BrokerSpec]:
    """Offer `memory://` and `memory://name`."""
    yield BrokerSpec(
        schemes=("memory",),
        load=_load,
        capabilities=LogCapabilities(cross_process=False, exact_gap=True, partition_interest=True, idle_ops_per_s=0.0),
        summary="Logs in the memory of one process.",
    )


def __getattr__(name: str) -> Any:
    if name in __all__:
        return _load()
    raise AttributeError(f"module 'dws_memory' has no attribute {name!r}")
