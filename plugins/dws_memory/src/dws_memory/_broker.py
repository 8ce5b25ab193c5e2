"""`MemoryBroker`: connects one node to a log in this process.

Like every broker, this one has three parts. `_log.py` stores the records, `_node.py` delivers them to a node, and this
module implements the interface that the core calls.

Nodes of one log may run on different event loops in different threads (test clients do that), so the log has a lock.
The lock guards the log, its readers and the list of nodes. It is never held while the sink runs, because the sink is
foreign code.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Hashable, Mapping, MutableMapping
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
from dws_memory._worker_check import remove_worker_lock, warn_if_other_worker

_SUSPEND_EVERY: Final = 256
"""Every 256th publish of a partition resolves in the next tick of the event loop, all others immediately. Awaiting a
resolved future does not suspend, so a loop that only publishes would otherwise never let another task run. Such a task
may be the reader of these messages."""

# A log lives as long as a broker object that uses it. After that, its name starts again with a new epoch.
_shared_logs: WeakValueDictionary[tuple[str, str], Log] = WeakValueDictionary()
_find_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryOptions:
    """The options of a `memory://` URL.

    Attributes:
        max_payload_bytes: Maximum payload size, in bytes.
        key_ttl_s: How long a repeated key is recognised, in seconds.
    """

    max_payload_bytes: int = 1_048_576
    key_ttl_s: float = 60.0


class MemoryBroker(LogBroker):
    """Logs in the memory of this process.

    Args:
        name: Name of the log. Brokers with the same name and channel share a log, as long as one of them exists. If
            empty, the broker has its own log.
        max_payload_bytes: Maximum payload size, in bytes.
        key_ttl_s: How long a repeated key is recognised, in seconds.
        clock: Function that returns the time in seconds, for TTLs. All brokers of a log must use the same clock.

    Raises:
        InvalidBrokerURL: The name is a URL.
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
        if "://" in name:
            raise InvalidBrokerURL(
                f"{type(self).__name__} needs the name of a log, not a URL.",
                fix="pass only the name, or use from_url(BrokerURL.parse(...))",
            )
        self.name = name
        self.capabilities = replace(self.capabilities, max_payload_bytes=max_payload_bytes)  # type: ignore[misc]
        self._max_payload_bytes = max_payload_bytes
        self._key_ttl_s = key_ttl_s
        self._clock = clock
        self._own_logs: dict[tuple[str, str], Log] = {}  # used if the broker has no name
        self._node: Node | None = None  # set while the broker is started
        self._log: Log | None = None  # kept after a stop, because the log lives as long as this object

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        """Build from `memory://` or `memory://name`, with the options of `MemoryOptions`."""
        if url.path or len(url.hosts) > 1 or (url.hosts and url.hosts[0][1] is not None):
            raise InvalidBrokerURL(
                f"broker URL {url} contains more than a name.", fix="write memory:// or memory://name"
            )
        return cls(url.name, **asdict(url.read_options(MemoryOptions)))

    async def start(self, *, node: bytes, layout: Layout, sink: TailSink) -> None:
        """Join the log of this name and channel. Makes no connection, so it never raises `BrokerUnavailable`."""
        if self._node is not None:
            raise BrokerError("this memory broker is already started.", fix="use one broker object for each node")
        self._log = _find_log(_shared_logs if self.name else self._own_logs, self.name, layout)
        self._node = Node(node, self._log, sink, asyncio.get_running_loop())
        warn_if_other_worker(self.name, layout.channel)
        sink.on_state("live", "in this process")

    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Leave the log. Pass all pending records to this node's sink first. Published messages are already stored."""
        if (node := self._node) is None:
            return
        self._node = None
        node.close()
        remove_worker_lock(self.name, node.log.layout.channel)

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
        order: Hashable | None = None,
        deadline_s: float = 10.0,
    ) -> asyncio.Future[Receipt]:
        """Store and deliver in one step under the lock, so no publish can follow a failed one.

        See `_SUSPEND_EVERY` for when the future resolves.
        """
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
        if seq % _SUSPEND_EVERY:
            future.set_result(receipt)
        else:
            loop.call_soon(_resolve, future, receipt)
        return future

    async def read(self, span: ReadSpan) -> ReadResult:
        """Return all records of a span, or a gap."""
        log = self._started().log
        with log.lock:
            found = log.partitions[span.partition]
            if span.epoch != found.epoch:
                return ReadResult(gap=GapReason.EPOCH)
            return found.read(span, now=self._clock())

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Return the current ends of the logs."""
        log = self._started().log
        with log.lock:
            return {number: log.partitions[number].head for number in partitions}

    async def send_control(self, payload: bytes) -> None:
        """Send to every started broker of the log."""
        self._started().send_control(payload)

    def _started(self) -> Node:
        if self._node is None:
            raise _closed()
        return self._node

    def __repr__(self) -> str:
        return f"<{type(self).__name__} memory://{self.name} {'started' if self._node else 'stopped'}>"


def _closed() -> BrokerClosed:
    return BrokerClosed(
        "the memory broker is not started.", fix="call start() first, and do not use the broker after stop()"
    )


def _resolve(future: asyncio.Future[Receipt], receipt: Receipt) -> None:
    if not future.done():
        future.set_result(receipt)


def _find_log(logs: MutableMapping[tuple[str, str], Log], name: str, layout: Layout) -> Log:
    with _find_lock:
        log = logs.get((name, layout.channel))
        if log is None:
            log = logs[name, layout.channel] = Log(layout)
    if log.layout != layout:
        raise LayoutMismatch(
            f"channel {layout.channel!r} of memory://{name} has {_describe(log.layout)}, not {_describe(layout)}.",
            fix="start all nodes of the channel with the same partitions and shard_levels",
        )
    return log


def _describe(layout: Layout) -> str:
    return f"partitions={layout.partitions}, shard_levels={layout.shard_levels}"


InMemoryBroker = MemoryBroker
"""The name of `MemoryBroker` in the original library."""
