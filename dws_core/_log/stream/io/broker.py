"""`StreamLogBroker`: the base class of brokers that keep one append-only stream per partition."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from dws_core._errors import BrokerError
from dws_core._log.contract import LogBroker, TailSink
from dws_core._log.records import Head, History, Layout, ReadResult, ReadSpan, Receipt
from dws_core._log.stream.envelope import Draft
from dws_core._log.stream.io.clock import Clock
from dws_core._log.stream.io.failures import closed
from dws_core._log.stream.io.node import StreamNode
from dws_core._log.stream.io.reports import Reports
from dws_core._log.stream.settings import StreamSettings
from dws_core._log.stream.wire import StreamWire
from dws_core._url import BrokerURL


@dataclass(frozen=True, slots=True, kw_only=True)
class _NoOptions:
    """The options of a URL that has none."""


class StreamLogBroker(LogBroker):
    """A `LogBroker` on streams. Subclasses give `capabilities`, `options_class` and `wire()`.

    The base class does everything else: envelopes, publishing in order with exact outcomes, the tail, epochs,
    deduplication, history, reconnects and reads. A publish is complete when the node's own tail contains its record.

    Every node tails all partitions, because the tail completes publishes and recognizes repeats. So
    `capabilities.partition_interest` is False. `capabilities.exact_gap` is False, because a stream loses its oldest
    records whatever topic they have.

    If the wire can send to all nodes without storing, messages of topics without history are not stored. They keep their
    order among each other and with the messages of their own topic, but may overtake messages of other topics.

    If the broker cannot store (`WireInfo.stores`), all messages are delivered in this way. `capabilities.recovery` of the
    object is False after `start`, and each lost connection is reported as the gap `interrupted`.

    Args:
        url: Where the broker is.
        options: The options of the URL, an `options_class`. If None, they are read from the URL.

    Attributes:
        options_class: A dataclass with a default for each option of the URL.
        settings: Envelope sizes, queue bounds and times. Replace it to change them.

    Example:
        ```python
        class MyBroker(StreamLogBroker):
            capabilities = LogCapabilities(durable="replicated")
            options_class = MyOptions

            def wire(self) -> StreamWire:
                return MyWire(self.url, self.options)
        ```

    Raises:
        InvalidBrokerURL: An option is unknown or malformed.
    """

    options_class: ClassVar[type[Any]] = _NoOptions
    settings: StreamSettings = StreamSettings()

    def __init__(self, url: BrokerURL, options: Any = None) -> None:
        self.url = url
        self.options: Any = url.read_options(self.options_class) if options is None else options
        self._clock = Clock()
        self._node: StreamNode | None = None

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        """Build from a URL with the options of `options_class`."""
        return cls(url)

    @abstractmethod
    def wire(self) -> StreamWire:
        """Return a new wire. It is opened by the base class."""

    async def start(self, *, node: bytes, layout: Layout, sink: TailSink) -> None:
        """Connect, and return when all partitions are live."""
        if self._node is not None:
            raise BrokerError(f"the broker {self.url} is started already.", fix="use one broker object for each node")
        reports = Reports(f"broker {self.url}", sink)
        started = StreamNode(
            self.wire, node=node, layout=layout, reports=reports, settings=self.settings, clock=self._clock
        )
        await started.start()
        self._node = started
        recovers = type(self).capabilities.recovery and started.stores
        self.capabilities = replace(self.capabilities, recovery=recovers)  # type: ignore[misc]  # overrides the class attribute

    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Send what waits for at most `drain_s` seconds, then close the wire."""
        if (node := self._node) is None:
            return
        self._node = None
        await node.stop(drain_s)

    async def set_interest(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        """Deliver exactly these partitions."""
        return await self._started().queries.set_interest(partitions)

    def publish(
        self,
        partition: int,
        topic: str,
        payload: bytes,
        *,
        history: History,
        key: str | None = None,
        order: Hashable | None = None,
        deadline_s: float = 10.0,
    ) -> asyncio.Future[Receipt]:
        """Queue for the next envelope. The future resolves when this node's tail contains the record."""
        if self._node is None:
            future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
            future.set_exception(closed())
            return future
        size = history.size if self.capabilities.recovery else 0
        draft = Draft(topic, payload, size, int(history.ttl_s * 1000), key)
        limit = self.capabilities.max_payload_bytes
        return self._node.publisher.publish(partition, draft, deadline_s, limit, order=order)

    async def read(self, span: ReadSpan) -> ReadResult:
        """Read from the stream, with the help of an index of the recent past."""
        return await self._started().queries.read(span)

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Return where the streams end, once this node's tail is there."""
        return await self._started().queries.heads(partitions)

    async def send_control(self, payload: bytes) -> None:
        """Send without storing if the wire can, else through partition 0."""
        await self._started().queries.send_control(payload)

    def _started(self) -> StreamNode:
        if self._node is None:
            raise closed()
        return self._node

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url} {'started' if self._node else 'stopped'}>"
