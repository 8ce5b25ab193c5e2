"""`MemoryBroker`: one node's way to a log in this process.

Three parts, as in every broker: *what is stored* is `_log.py`; *how a node hears of it* is `_node.py`; this one is what
the core calls.

Nodes of one log may live on different event loops in different threads (test clients do that), hence the lock. It
guards the log, its readers and the list of nodes; it is never held while the sink, which is foreign code, runs.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Mapping, MutableMapping
from dataclasses import asdict, dataclass, replace
from typing import Final, Self
from weakref import WeakValueDictionary

from dws_core.plugin import (
    BrokerClosed,
    BrokerError,
    BrokerURL,
    GapReason,
    Head,
    History,
    InvalidBrokerURL,
    Layout,
    LayoutMismatch,
    LogBroker,
    PayloadTooLarge,
    ReadResult,
    ReadSpan,
    Receipt,
    TailSink,
)
from dws_memory import CAPABILITIES
from dws_memory._log import Log
from dws_memory._node import Node
from dws_memory._worker_check import warn_of_siblings

_BURST: Final = 256
"""Every so many publishes one is answered in the next loop tick. All others are answered at once, and awaiting what is
done does not suspend: a loop that only publishes would let nobody else run, the readers of its messages included."""

# A log lives as long as a broker object that uses it; then its name begins anew, with another epoch.
_shared: WeakValueDictionary[tuple[str, str], Log] = WeakValueDictionary()
_shared_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryOptions:
    """What a `memory://` URL may set.

    Attributes:
        max_payload_bytes: Largest payload in bytes.
        key_ttl_s: Seconds for which a repeat of a key is recognised.
    """

    max_payload_bytes: int = 1_048_576
    key_ttl_s: float = 60.0


class MemoryBroker(LogBroker):
    """Logs in the memory of this process.

    Args:
        name: Brokers of one name and one channel share a log, as long as one of them exists. Empty: a log of its own.
        max_payload_bytes: Largest payload in bytes.
        key_ttl_s: Seconds for which a repeat of a key is recognised.
        clock: Seconds, for TTLs; brokers of one log need the same.
    """

    capabilities = CAPABILITIES

    def __init__(
        self,
        name: str = "",
        *,
        max_payload_bytes: int = 1_048_576,
        key_ttl_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.capabilities = replace(self.capabilities, max_payload_bytes=max_payload_bytes)  # type: ignore[misc]  # this object's own
        self._max_payload_bytes = max_payload_bytes
        self._key_ttl_s = key_ttl_s
        self._clock = clock
        self._own: dict[tuple[str, str], Log] = {}  # the log of a broker without name
        self._node: Node | None = None  # while it is started
        self._log: Log | None = None  # kept when stopped: the log lives as long as this object

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        """Build from `memory://` or `memory://name`, with the options of `MemoryOptions`."""
        if url.path or len(url.hosts) > 1 or (url.hosts and url.hosts[0][1] is not None):
            raise InvalidBrokerURL(f"broker URL {url} says more than a name.", fix="write memory:// or memory://name")
        return cls(url.name, **asdict(url.read_options(MemoryOptions)))

    async def start(self, *, node: bytes, layout: Layout, sink: TailSink) -> None:
        """Join the log of this name and channel. Never fails to connect: there is nothing to connect to."""
        if self._node is not None:
            raise BrokerError("this memory broker is started already.", fix="use one broker object for each node")
        self._log = _find_log(_shared if self.name else self._own, self.name, layout)
        self._node = Node(node, self._log, sink, asyncio.get_running_loop())
        warn_of_siblings(self.name, layout.channel)
        sink.on_state("live", "in this process")

    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Leave the log. What was published is stored already; what waits for this node's sink is handed to it now."""
        if (node := self._node) is None:
            return
        self._node = None
        node.close()

    async def set_interest(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        """Tail exactly these partitions."""
        return self._started().tail(partitions)

    def publish(
        self,
        partition: int,
        topic: str,
        payload: bytes,
        *,
        history: History,
        key: str | None = None,
        deadline_s: float = 10.0,
    ) -> asyncio.Future[Receipt]:
        """Store and deliver in one step under the lock. The future is done already, but for one in `_BURST`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Receipt] = loop.create_future()
        node = self._node
        if node is None:
            future.set_exception(_closed())
            return future
        if len(payload) > self._max_payload_bytes:
            future.set_exception(PayloadTooLarge(len(payload), self._max_payload_bytes, where="memory broker"))
            return future
        with node.log.lock:
            seq = node.next_seq(partition)
            receipt = node.log.partitions[partition].publish(
                topic,
                payload,
                history=history,
                key=key,
                key_ttl_s=self._key_ttl_s,
                publisher=node.id,
                seq=seq,
                ts_ms=time.time_ns() // 1_000_000,
                now=self._clock(),
            )
        if seq % _BURST:
            future.set_result(receipt)
        else:
            loop.call_soon(_answer, future, receipt)
        return future

    async def read(self, span: ReadSpan) -> ReadResult:
        """Read what was missed, or say why it cannot be had."""
        log = self._started().log
        with log.lock:
            found = log.partitions[span.partition]
            if span.epoch != found.epoch:
                return ReadResult(gap=GapReason.EPOCH)
            return found.read(span, now=self._clock())

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Say where the logs end now."""
        log = self._started().log
        with log.lock:
            return {number: log.partitions[number].head for number in partitions}

    async def send_control(self, payload: bytes) -> None:
        """Send to every started broker of the log."""
        self._started().send_control(payload)

    async def forget(self, topic: str) -> None:
        """Drop a topic's records."""
        log = self._started().log
        with log.lock:
            for partition in log.partitions:
                partition.forget(topic)

    def _started(self) -> Node:
        if self._node is None:
            raise _closed()
        return self._node

    def __repr__(self) -> str:
        return f"<{type(self).__name__} memory://{self.name} {'started' if self._node else 'stopped'}>"


def _closed() -> BrokerClosed:
    return BrokerClosed("the memory broker is not started.", fix="call start() first, and nothing after stop()")


def _answer(future: asyncio.Future[Receipt], receipt: Receipt) -> None:
    if not future.done():
        future.set_result(receipt)


def _find_log(logs: MutableMapping[tuple[str, str], Log], name: str, layout: Layout) -> Log:
    with _shared_lock:
        log = logs.get((name, layout.channel))
        if log is None:
            log = logs[name, layout.channel] = Log(layout)
    if log.layout != layout:
        raise LayoutMismatch(
            f"channel {layout.channel!r} of memory://{name} has {_describe(log.layout)}, not {_describe(layout)}.",
            fix="start all nodes of a channel with the same partitions and shard_levels",
        )
    return log


def _describe(layout: Layout) -> str:
    return f"partitions={layout.partitions}, shard_levels={layout.shard_levels}"


InMemoryBroker = MemoryBroker
"""Its name in the original library."""
