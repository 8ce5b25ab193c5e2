"""`FaultyBroker`: any log, with a switch for each trouble."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
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

_FIX = "this is a FaultyBroker; leave the `with` block of the fault"


class FaultyBroker(LogBroker):
    """A broker that fails when it is told to, for the tests of applications and plugins.

    It stands in front of another log and passes everything on. Each fault is a `with` block: it begins at once and ends
    with the block. Faults may be nested; what one node's broker suffers, the others at the same URL do not.

    Args:
        broker: A `LogBroker`, or a URL to make one of.

    Attributes:
        broker: The one that stands behind.

    Raises:
        ConfigurationError: It is no `LogBroker`.

    Example:
        ```python
        broker = FaultyBroker("memory://test")
        manager = WebSocketManager("chat", broker=broker)
        ...
        async with broker.unreachable():
            with pytest.raises(BrokerUnavailable):
                await manager.publish("chat/lobby", "nobody hears this")
        ```
    """

    capabilities: ClassVar[LogCapabilities] = LogCapabilities()
    partitions: ClassVar[int] = 1

    def __init__(self, broker: LogBroker | str) -> None:
        inner = create_broker(broker) if isinstance(broker, str) else broker
        if not isinstance(inner, LogBroker):
            raise ConfigurationError(
                f"FaultyBroker needs a LogBroker, not {type(inner).__name__}.", fix='give it one, or "memory://test"'
            )
        self.broker: LogBroker = inner
        self.capabilities = inner.capabilities  # type: ignore[misc]  # as the one behind has it
        self.partitions = inner.partitions  # type: ignore[misc]  # as above
        self._tail = FaultyTail()
        self._thawed = asyncio.Event()
        self._thawed.set()
        self._away = False
        self._refusal: type[BrokerUnavailable | BrokerOverloaded] | None = None
        self._unanswered: bool | None = None  # whether what gets no answer is stored; None: answers come
        self._delay_s = 0.0
        self._waiting: deque[Callable[[], None]] = deque()  # publishes that are handed over later, in order

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        """Build in front of the broker of a URL."""
        return cls(str(url))

    # -- faults

    @contextmanager
    def refusing(self, *, overloaded: bool = False) -> Iterator[None]:
        """Refuse publishes: `BrokerUnavailable`, or `BrokerOverloaded`; certainly not stored. Messages arrive."""
        self._refusal = BrokerOverloaded if overloaded else BrokerUnavailable
        try:
            yield
        finally:
            self._refusal = None

    @contextmanager
    def losing_answers(self, *, stored: bool) -> Iterator[None]:
        """Answer publishes by `PublishOutcomeUnknown`.

        Args:
            stored: Whether they are stored and delivered all the same.
        """
        self._unanswered = stored
        try:
            yield
        finally:
            self._unanswered = None

    @contextmanager
    def delaying(self, delay_s: float) -> Iterator[None]:
        """Hand publishes over after so many seconds, in order. Those that wait at the end of the block still do."""
        self._delay_s = delay_s
        try:
            yield
        finally:
            self._delay_s = 0.0

    @asynccontextmanager
    async def tail_cut(self, reason: GapReason = GapReason.UNAVAILABLE) -> AsyncIterator[None]:
        """Keep from the node what is stored meanwhile; at the end of the block it is told the gap, with this reason.

        Publishes and reads go on. Use it by `async with`: to come back, it asks where the log is by then.
        """
        self._tail.cut()
        try:
            yield
        finally:
            tailed = self._tail.partitions
            self._tail.mend(reason, await self.broker.heads(tailed) if tailed else {})

    @asynccontextmanager
    async def unreachable(self, reason: GapReason = GapReason.UNAVAILABLE) -> AsyncIterator[None]:
        """Cut everything: publishes and reads raise `BrokerUnavailable`, nothing arrives; a gap at the end.

        Use it by `async with`.
        """
        self._away = True
        async with self.tail_cut(reason):
            try:
                yield
            finally:
                self._away = False

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let everything wait: publishes (until their deadline), reads, and what arrives. Then it goes on, no gap.

        A publish whose deadline passes has an unknown outcome, and is stored when the block ends.
        """
        self._thawed.clear()
        self._tail.hold()
        try:
            yield
        finally:
            self._thawed.set()
            while self._waiting:
                self._waiting.popleft()()
            self._tail.release()

    # -- a LogBroker

    async def start(self, *, node: bytes, layout: Layout, sink: TailSink) -> None:
        """Start the broker behind."""
        await self._pass()
        self._tail.begin(sink)
        await self.broker.start(node=node, layout=layout, sink=self._tail)

    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Stop the broker behind; what waits for the end of a fault fails."""
        self._waiting.clear()
        self._tail.end()
        await self.broker.stop(drain_s=drain_s)
        self._tail.forget()

    async def set_interest(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        """Tail these."""
        await self._pass()
        self._tail.tune(partitions)
        heads = await self.broker.set_interest(partitions)
        self._tail.baseline(heads)
        return heads

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
        """Publish, unless a fault stands in the way."""

        def forward() -> asyncio.Future[Receipt]:
            return self.broker.publish(partition, topic, payload, history=history, key=key, deadline_s=deadline_s)

        if self._away:
            return _failed(_unavailable())
        if self._refusal is not None:
            return _failed(self._refusal("publishes are refused.", fix=_FIX))
        if self._unanswered is not None:
            if self._unanswered:
                forward().add_done_callback(_retrieve)
            return _failed(PublishOutcomeUnknown(topic, fix=_FIX))
        if self._waiting or self._delay_s or not self._thawed.is_set():
            return self._publish_later(forward, topic, deadline_s)
        return forward()

    async def read(self, span: ReadSpan) -> ReadResult:
        """Read, unless a fault stands in the way."""
        await self._pass()
        return await self.broker.read(span)

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Ask the broker behind."""
        await self._pass()
        return await self.broker.heads(partitions)

    async def send_control(self, payload: bytes) -> None:
        """Send through the broker behind."""
        await self._pass()
        await self.broker.send_control(payload)

    async def forget(self, topic: str) -> None:
        """Let the broker behind forget."""
        await self._pass()
        await self.broker.forget(topic)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in front of {self.broker!r}>"

    async def _pass(self) -> None:
        """Wait where a fault says so, or fail."""
        if self._away:
            raise _unavailable()
        await self._thawed.wait()

    def _publish_later(
        self, forward: Callable[[], asyncio.Future[Receipt]], topic: str, deadline_s: float
    ) -> asyncio.Future[Receipt]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Receipt] = loop.create_future()
        timer = loop.call_later(deadline_s, _fail, answer, PublishOutcomeUnknown(topic, fix=_FIX))
        answer.add_done_callback(lambda _: timer.cancel())
        self._tail.at_end(lambda: _fail(answer, BrokerClosed("the broker was stopped while a publish waited.")))
        self._waiting.append(lambda: forward().add_done_callback(lambda done: _pass_on(done, answer)))
        if self._thawed.is_set():
            loop.call_later(self._delay_s, self._hand_over_one)
        return answer

    def _hand_over_one(self) -> None:
        if self._waiting and self._thawed.is_set():
            self._waiting.popleft()()


def _unavailable() -> BrokerUnavailable:
    return BrokerUnavailable("the broker cannot be reached.", fix=_FIX)


def _failed(error: Exception) -> asyncio.Future[Receipt]:
    future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future


def _fail(future: asyncio.Future[Receipt], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _retrieve(done: asyncio.Future[Receipt]) -> None:
    """Take an outcome that nobody is told, so that asyncio does not complain of it."""
    if not done.cancelled():
        done.exception()


def _pass_on(done: asyncio.Future[Receipt], answer: asyncio.Future[Receipt]) -> None:
    _retrieve(done)
    if answer.done():
        return
    if done.cancelled():
        answer.cancel()
    elif (error := done.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(done.result())
