"""The brokers of dws-memory and dws-redis as type checkers see them, because the core must not import its plugins."""

from asyncio import Future
from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Self

from dws_core._log.contract import LogBroker, TailSink
from dws_core._log.records import Head, History, Layout, ReadResult, ReadSpan, Receipt
from dws_core._url import BrokerURL

class _PluginBroker(LogBroker):
    @classmethod
    def from_url(cls, url: BrokerURL) -> Self: ...
    async def start(self, *, node: bytes, layout: Layout, sink: TailSink) -> None: ...
    async def stop(self, *, drain_s: float = ...) -> None: ...
    async def set_interest(self, partitions: frozenset[int]) -> Mapping[int, Head]: ...
    def publish(
        self,
        partition: int,
        topic: str,
        payload: bytes,
        *,
        history: History,
        key: str | None = ...,
        order: Hashable | None = ...,
        deadline_s: float = ...,
    ) -> Future[Receipt]: ...
    async def read(self, span: ReadSpan) -> ReadResult: ...
    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]: ...
    async def send_control(self, payload: bytes) -> None: ...

class InMemoryBroker(_PluginBroker):
    def __init__(
        self,
        name: str = ...,
        *,
        max_payload_bytes: int = ...,
        key_ttl_s: float = ...,
        clock: Callable[[], float] = ...,
    ) -> None: ...

class RedisBroker(_PluginBroker):
    def __init__(self, url: str | BrokerURL) -> None: ...
