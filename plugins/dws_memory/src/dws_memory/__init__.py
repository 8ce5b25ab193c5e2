"""The broker that needs no server: logs in the memory of one process. A model for other dws plugins.

A plugin is a package with an entry point in the group `dws_core` that names this module. dws imports this module
whenever it looks for plugins, so the module imports nothing slow. The broker itself is imported when a `memory://` URL
is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from dws_core.plugin import BrokerSpec, LogCapabilities, hookimpl

if TYPE_CHECKING:
    from dws_memory._broker import InMemoryBroker as InMemoryBroker
    from dws_memory._broker import MemoryBroker as MemoryBroker

__all__ = ["InMemoryBroker", "MemoryBroker"]

CAPABILITIES: Final = LogCapabilities(
    durable="none",
    cross_process=False,
    exact_gap=True,
    partition_interest=True,
    idle_ops_per_s=0.0,
)
"""Guarantees of the broker. The plugin record below and the class share them."""


def _load() -> type[MemoryBroker]:
    from dws_memory._broker import MemoryBroker  # noqa: PLC0415 -- imported only when the scheme is used

    return MemoryBroker


@hookimpl
def dws_register_brokers() -> Iterable[BrokerSpec]:
    """Register `memory://` and `memory://name`."""
    yield BrokerSpec(
        schemes=("memory",),
        load=_load,
        capabilities=CAPABILITIES,
        summary="Logs in the memory of one process: for development, tests and single-process servers.",
    )


def __getattr__(name: str) -> Any:
    if name in __all__:
        return _load()
    raise AttributeError(f"module 'dws_memory' has no attribute {name!r}")
