"""The nodes of the broker suite: a broker that subscribes to one channel, and its received messages.

The same tests run for both kinds of brokers through `Peer`. A sentinel proves that a message was not received: publish
the message that must not arrive, then one that must. When the second has arrived, the first will not. Nothing here
sleeps, except to poll.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from itertools import count
from typing import Final, TypeVar

from dws_core.plugin import (
    BrokerError,
    BrokerInterface,
    BrokerOverloaded,
    BrokerUnavailable,
    Delivery,
    Head,
    History,
    Layout,
    LogBroker,
    Offset,
    PublishOutcomeUnknown,
    ReadResult,
    ReadSpan,
    Receipt,
    Record,
    TopicMatch,
    partition_of,
)
from dws_core.testing.suites.recording_sink import RecordingSink
from dws_core.testing.suites.waiting import limited

T = TypeVar("T")

TEMPORARY: Final = (BrokerUnavailable, BrokerOverloaded, PublishOutcomeUnknown)
"""The errors of a publish during a temporary fault."""

_FIX_HANG: Final = "Fix: if the broker is correct but slow, increase the fixture `hang_limit_s`"


class Peer(ABC):
    """A broker that subscribes to one channel.

    Args:
        channel: Name of the channel.
        hang_limit_s: Number of seconds without any progress after which a wait fails.
    """

    def __init__(self, channel: str, hang_limit_s: float) -> None:
        self.channel = channel
        self.hang_limit_s: float = hang_limit_s
        self._taken = 0

    @abstractmethod
    async def open(self) -> None:
        """Connect and subscribe."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect. Idempotent."""

    @abstractmethod
    async def subscribe(self) -> None:
        """Receive the channel from now on."""

    @abstractmethod
    async def unsubscribe(self) -> None:
        """Stop receiving the channel."""

    @abstractmethod
    async def publish(self, payload: bytes) -> None:
        """Publish to the channel, and return when the broker has the message."""

    @property
    @abstractmethod
    def received(self) -> list[bytes]:
        """The received payloads, in order."""

    @property
    def violations(self) -> list[str]:
        """Violations of the broker's contract so far."""
        return []

    @abstractmethod
    async def _wait_for_message(self) -> None:
        """Return when a message may have arrived."""

    @property
    @abstractmethod
    def _arrivals(self) -> object:
        """A value that changes with each arrival."""

    async def within(self, awaited: Awaitable[T]) -> T:
        """Await a call that must not hang."""
        hung = f"the broker's call did not finish within {self.hang_limit_s} s. {_FIX_HANG}"
        async with limited(self.hang_limit_s, lambda: hung):
            return await awaited

    async def until(self, happened: Callable[[], bool], what: str) -> None:
        """Wait until a condition is true. Check it after each arrival, which restarts the time limit."""

        def failure() -> str:
            waited = f"waited {self.hang_limit_s} s without an arrival for {what}"
            return f"{waited}. Received {_summarize(self.received)}. {_FIX_HANG}"

        async with limited(self.hang_limit_s, failure) as progress:
            while not happened():
                before = self._arrivals
                await self._wait_for_message()
                if self._arrivals != before:
                    progress()

    async def poll_until(self, happened: Callable[[], Awaitable[bool]], what: str) -> None:
        """Poll a condition until it is true. Use it for changes inside a broker that cause no event."""
        async with limited(self.hang_limit_s, lambda: f"waited {self.hang_limit_s} s for {what}. {_FIX_HANG}"):
            while not await happened():  # noqa: ASYNC110 -- the broker sends no event
                await asyncio.sleep(0.01)

    async def receive(self, count: int) -> list[bytes]:
        """Wait for the next payloads and return them."""
        await self.until(lambda: len(self.received) >= self._taken + count, f"{count} more messages")
        return self._take_received(self._taken + count)

    async def receive_until(self, sentinel: bytes) -> list[bytes]:
        """Wait for a payload and return all payloads before it."""
        await self.until(lambda: sentinel in self.received[self._taken :], f"the message {sentinel[:40]!r}")
        return self._take_received(self.received.index(sentinel, self._taken) + 1)[:-1]

    def _take_received(self, end: int) -> list[bytes]:
        taken = self.received[self._taken : end]
        self._taken = end
        assert self.violations == []
        return taken


class PlainPeer(Peer):
    """A peer for a `BrokerInterface`. It receives only while a test waits."""

    def __init__(self, broker: BrokerInterface, channel: str, hang_limit_s: float) -> None:
        super().__init__(channel, hang_limit_s)
        self.broker = broker
        self.deliveries: list[Delivery] = []
        self._incoming: AsyncIterator[Delivery] | None = None

    async def open(self) -> None:
        await self.within(self.broker.connect())
        await self.subscribe()

    async def close(self) -> None:
        await self.within(self.broker.disconnect())

    async def subscribe(self) -> None:
        await self.within(self.broker.subscribe(self.channel))

    async def unsubscribe(self) -> None:
        await self.within(self.broker.unsubscribe(self.channel))

    async def publish(self, payload: bytes) -> None:
        await self.within(self.broker.publish(self.channel, payload))

    @property
    def received(self) -> list[bytes]:
        return [delivery.payload for delivery in self.deliveries]

    async def _wait_for_message(self) -> None:
        self.deliveries.append(await self.next())

    @property
    def _arrivals(self) -> object:
        return len(self.deliveries)

    async def next(self) -> Delivery:
        """Wait for the next delivery."""
        if self._incoming is None:
            self._incoming = self.broker.deliveries()
        try:
            return await anext(self._incoming)
        except asyncio.CancelledError:
            self._incoming = None  # the cancellation ends the generator, but the next one must lose no message
            raise
        except StopAsyncIteration:
            raise AssertionError("deliveries() ended on a connected broker") from None


class LogPeer(Peer):
    """A peer for a `LogBroker`, with a recording sink that tails all partitions of the channel."""

    def __init__(self, broker: LogBroker, channel: str, hang_limit_s: float, *, partitions: int = 0) -> None:
        super().__init__(channel, hang_limit_s)
        self.broker: LogBroker = broker
        self.id: bytes = secrets.token_bytes(8)
        self.sink: RecordingSink = RecordingSink()
        self.layout: Layout = Layout(channel=channel, partitions=partitions or broker.partitions)

    async def open(self) -> None:
        await self.start()
        await self.subscribe()

    async def start(self) -> None:
        """Start without tailing a partition."""
        await self.within(self.broker.start(node=self.id, layout=self.layout, sink=self.sink))

    async def close(self) -> None:
        await self.within(self.broker.stop())

    async def subscribe(self) -> None:
        await self.tail(*range(self.layout.partitions))

    async def unsubscribe(self) -> None:
        await self.tail()

    async def tail(self, *partitions: int) -> None:
        """Tail exactly these partitions."""
        self.sink.expect_interest(frozenset(partitions))
        self.sink.check_baseline(dict(await self.within(self.broker.set_interest(frozenset(partitions)))))

    async def publish(self, payload: bytes) -> None:
        await self.send("t", payload)

    async def send(
        self, topic: str, payload: bytes = b"", *, history: History | None = None, key: str | None = None
    ) -> Receipt:
        """Publish to a topic and wait for the receipt."""
        return await self.within(self.submit(topic, payload, history=history, key=key))

    def submit(
        self,
        topic: str,
        payload: bytes = b"",
        *,
        history: History | None = None,
        key: str | None = None,
        order: str | None = None,
        deadline_s: float | None = None,
    ) -> asyncio.Future[Receipt]:
        """Publish to a topic and return the broker's future."""
        partition = partition_of(topic, self.layout)
        kept = history or History()
        deadline_s = self.hang_limit_s if deadline_s is None else deadline_s
        ordered = {} if order is None else {"order": order}
        return self.broker.publish(partition, topic, payload, history=kept, key=key, deadline_s=deadline_s, **ordered)

    async def send_all(self, topics: Sequence[str], *, history: History | None = None) -> list[Receipt]:
        """Publish the index of each topic to it, up to 500 at once, and wait for the receipts."""
        receipts: list[Receipt] = []
        for start in range(0, len(topics), 500):
            some = enumerate(topics[start : start + 500], start)
            futures = [self.submit(topic, b"%d" % number, history=history) for number, topic in some]
            receipts += [await self.within(future) for future in futures]
        return receipts

    def topic_in(self, partition: int, start: str) -> str:
        """Return a topic of a partition."""
        topics = (f"{start}/{number}" for number in count())
        return next(topic for topic in topics if partition_of(topic, self.layout) == partition)

    async def insist(self, topic: str, payload: bytes) -> Receipt:
        """Publish repeatedly with the same key until the message is stored, because a fault may be temporary."""
        receipts: list[Receipt] = []

        async def stored() -> bool:
            with contextlib.suppress(*TEMPORARY):
                receipts.append(await self.submit(topic, payload, key=payload.decode(), deadline_s=1.0))
            return bool(receipts)

        try:
            await self.poll_until(stored, f"the receipt of {payload!r}")
        except BrokerError as error:
            raise AssertionError(f"a temporary fault must not raise {type(error).__name__}: {error}") from error
        return receipts[0]

    async def head(self, topic: str) -> Head:
        """Return the end of the partition of a topic."""
        partition = partition_of(topic, self.layout)
        return (await self.within(self.broker.heads([partition])))[partition]

    async def read_after(
        self,
        topics: Collection[str] | TopicMatch,
        since: Offset,
        *,
        epoch: str,
        until: Offset | None = None,
        partition: int = 0,
        limit: int = 20_000,
        max_bytes: int = 10_000_000,
    ) -> ReadResult:
        """Read the records after an offset, up to `until` or the end of the log."""
        if until is None:
            until = (await self.within(self.broker.heads([partition])))[partition].offset
        span = ReadSpan(
            partition=partition, since=since, until=until, epoch=epoch, topics=topics, limit=limit, max_bytes=max_bytes
        )
        return await self.within(self.broker.read(span))

    @property
    def received(self) -> list[bytes]:
        return [record.payload for record in self.sink.records]

    @property
    def records(self) -> list[Record]:
        """The received records, in order."""
        return self.sink.records

    @property
    def violations(self) -> list[str]:
        return [*self.sink.violations, *(f"discontinuity {lost}" for lost in self.sink.discontinuities)]

    async def _wait_for_message(self) -> None:
        self.sink.changed.clear()
        await self.sink.changed.wait()

    @property
    def _arrivals(self) -> object:
        sink = self.sink  # ranges without records do not count
        return len(sink.records), len(sink.controls), len(sink.states), len(sink.discontinuities), sink.positions


def _summarize(received: list[bytes]) -> str:
    shown = [payload[:20] for payload in received[-5:]]
    return f"{len(received)} messages, the last ones {shown}"
