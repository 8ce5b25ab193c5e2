"""`FaultyBroker`: any log, with faults on command."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import ClassVar, Self

from dws_core import create_broker
from dws_core.plugin import (
    BrokerClosed,
    BrokerOverloaded,
    BrokerUnavailable,
    BrokerURL,
    ConfigurationError,
    GapReason,
    Head,
    History,
    Layout,
    LogBroker,
    LogCapabilities,
    PublishOutcomeUnknown,
    ReadResult,
    ReadSpan,
    Receipt,
    TailSink,
)
from dws_core.testing.faults.faulty_tail import FaultyTail

_FIX = "leave the `with` block of the fault of this FaultyBroker"


class FaultyBroker(LogBroker):
    """A broker that fails on command, for tests of applications and plugins.

    It wraps another log and forwards all calls. Each fault is a `with` block. The fault starts immediately and ends
    with the block. Faults may be nested. A fault affects only the node of this broker, not other nodes at the same URL.

    Args:
        broker: A `LogBroker`, or the URL of one.

    Attributes:
        broker: The wrapped broker.

    Raises:
        ConfigurationError: The broker is not a `LogBroker`.

    Example:
        ```python
        broker = FaultyBroker("memory://test")
        manager = WebSocketManager("chat", broker=broker)
        ...
        async with broker.unreachable():
            with pytest.raises(BrokerUnavailable):
                await manager.publish("chat/lobby", "not delivered")
        ```
    """

    capabilities: ClassVar[LogCapabilities] = LogCapabilities()
    partitions: ClassVar[int] = 1

    def __init__(self, broker: LogBroker | str) -> None:
        inner = create_broker(broker) if isinstance(broker, str) else broker
        if not isinstance(inner, LogBroker):
            raise ConfigurationError(
                f"FaultyBroker needs a LogBroker, not {type(inner).__name__}.",
                fix='pass a LogBroker, or the URL of one, such as "memory://test"',
            )
        self.broker: LogBroker = inner
        self.capabilities = inner.capabilities  # type: ignore[misc]  # overrides the class attribute
        self.partitions = inner.partitions  # type: ignore[misc]  # overrides the class attribute
        self._tail = FaultyTail()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._unreachable = False
        self._refusal: type[BrokerUnavailable | BrokerOverloaded] | None = None
        self._lost_replies_stored: bool | None = None  # None while replies arrive
        self._delay_s = 0.0
        self._ordered: dict[tuple[int, Hashable], list[asyncio.Future[Receipt]]] = {}
        self._delayed: deque[Callable[[], None]] = deque()  # publishes for later, in order

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        """Wrap the broker of a URL."""
        return cls(str(url))

    # -- faults

    @contextmanager
    def refusing(self, *, overloaded: bool = False) -> Iterator[None]:
        """Refuse publishes, which are certainly not stored. Messages still arrive.

        Args:
            overloaded: Whether publishes raise `BrokerOverloaded` instead of `BrokerUnavailable`.
        """
        self._refusal = BrokerOverloaded if overloaded else BrokerUnavailable
        try:
            yield
        finally:
            self._refusal = None

    @contextmanager
    def losing_answers(self, *, stored: bool) -> Iterator[None]:
        """Let publishes raise `PublishOutcomeUnknown`.

        Args:
            stored: Whether the messages are nevertheless stored and delivered.
        """
        self._lost_replies_stored = stored
        try:
            yield
        finally:
            self._lost_replies_stored = None

    @contextmanager
    def delaying(self, delay_s: float) -> Iterator[None]:
        """Delay publishes by `delay_s` seconds, in order. The end of the block does not shorten the delay."""
        self._delay_s = delay_s
        try:
            yield
        finally:
            self._delay_s = 0.0

    @asynccontextmanager
    async def tail_cut(self, reason: GapReason | None = GapReason.TRIMMED) -> AsyncIterator[None]:
        """Drop all messages to the node. At the end of the block, the node receives a gap with this reason.

        Publishes and reads continue. Use `async with`, because the end of the block may read the log.

        Args:
            reason: Reason of the gap. If None, the node receives the messages that it missed, as after an outage that
                loses nothing. It receives a gap only if the log does not contain them any more.
        """
        self._tail.cut()
        try:
            yield
        finally:
            if reason is None:
                await self._tail.catch_up(self.broker)
            else:
                await self._tail.reconnect(reason, self.broker)

    @asynccontextmanager
    async def unreachable(self, reason: GapReason | None = None) -> AsyncIterator[None]:
        """Cut the node off. Publishes and reads raise `BrokerUnavailable`, and no message arrives.

        Use `async with`.

        Args:
            reason: Reason of the gap that the node receives at the end of the block. If None, see `tail_cut`.
        """
        self._unreachable = True
        async with self.tail_cut(reason):
            try:
                yield
            finally:
                self._unreachable = False

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Delay all publishes, reads and messages until the end of the block. There is no gap.

        A publish whose deadline passes raises `PublishOutcomeUnknown`, and is stored when the block ends.
        """
        self._thawed.clear()
        self._tail.hold()
        try:
            yield
        finally:
            self._thawed.set()
            while self._delayed:
                self._delayed.popleft()()
            self._tail.release()

    # -- a LogBroker

    async def start(self, *, node: bytes, layout: Layout, sink: TailSink) -> None:
        """Start the wrapped broker."""
        await self._wait_or_fail()
        self._tail.start(sink)
        await self.broker.start(node=node, layout=layout, sink=self._tail)

    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Stop the wrapped broker. Publishes that wait for the end of a fault fail."""
        self._delayed.clear()
        self._tail.release_all()
        await self.broker.stop(drain_s=drain_s)
        self._tail.stop()

    async def set_interest(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        """Tail exactly these partitions."""
        await self._wait_or_fail()
        self._tail.set_partitions(partitions)
        heads = await self.broker.set_interest(partitions)
        self._tail.set_baselines(heads)
        return heads

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
        """Publish, unless a fault prevents it."""

        def forward() -> asyncio.Future[Receipt]:
            return self.broker.publish(
                partition, topic, payload, history=history, key=key, order=order, deadline_s=deadline_s
            )

        if self._unreachable:
            return _failed(_unavailable())
        if self._refusal is not None:
            return _failed(self._refusal("a fault refuses publishes.", fix=_FIX))
        if self._lost_replies_stored is not None:
            if self._lost_replies_stored:
                forward().add_done_callback(_mark_retrieved)
            return _failed(PublishOutcomeUnknown(topic, fix=_FIX))
        if self._delayed or self._delay_s or not self._thawed.is_set():
            return self._publish_later(forward, topic, deadline_s, None if order is None else (partition, order))
        return forward()

    async def read(self, span: ReadSpan) -> ReadResult:
        """Read, unless a fault prevents it."""
        await self._wait_or_fail()
        return await self.broker.read(span)

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Return the current ends of the logs, unless a fault prevents it."""
        await self._wait_or_fail()
        return await self.broker.heads(partitions)

    async def send_control(self, payload: bytes) -> None:
        """Send a control message, unless a fault prevents it."""
        await self._wait_or_fail()
        await self.broker.send_control(payload)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.broker!r}>"

    async def _wait_or_fail(self) -> None:
        """Wait for the end of `frozen`. Raise during `unreachable`."""
        if self._unreachable:
            raise _unavailable()
        await self._thawed.wait()

    def _publish_later(
        self,
        forward: Callable[[], asyncio.Future[Receipt]],
        topic: str,
        deadline_s: float,
        order: tuple[int, Hashable] | None,
    ) -> asyncio.Future[Receipt]:
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Receipt] = loop.create_future()
        same = self._ordered.setdefault(order, []) if order is not None else []
        same.append(result)
        result.add_done_callback(same.remove)
        timer = loop.call_later(deadline_s, _expire, result, same, topic)
        result.add_done_callback(lambda _: timer.cancel())
        self._tail.on_stop(
            lambda: _fail(result, BrokerClosed("the broker was stopped while a fault delayed this publish."))
        )
        self._delayed.append(lambda: forward().add_done_callback(lambda done: _copy_result(done, result)))
        if self._thawed.is_set():
            loop.call_later(self._delay_s, self._publish_next)
        return result

    def _publish_next(self) -> None:
        if self._delayed and self._thawed.is_set():
            self._delayed.popleft()()


def _unavailable() -> BrokerUnavailable:
    return BrokerUnavailable("a fault makes the broker unreachable.", fix=_FIX)


def _failed(error: Exception) -> asyncio.Future[Receipt]:
    future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future


def _fail(future: asyncio.Future[Receipt], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _expire(result: asyncio.Future[Receipt], same: list[asyncio.Future[Receipt]], topic: str) -> None:
    """Fail a publish and the later ones of the same order. All are stored later."""
    if not result.done():
        for future in same[same.index(result) :]:
            _fail(future, PublishOutcomeUnknown(topic, fix=_FIX))


def _mark_retrieved(done: asyncio.Future[Receipt]) -> None:
    """Retrieve an unused outcome, so that asyncio does not log it."""
    if not done.cancelled():
        done.exception()


def _copy_result(done: asyncio.Future[Receipt], result: asyncio.Future[Receipt]) -> None:
    _mark_retrieved(done)
    if result.done():
        return
    if done.cancelled():
        result.cancel()
    elif (error := done.exception()) is not None:
        result.set_exception(error)
    else:
        result.set_result(done.result())
