"""How a node hears of what one server stores: a subscribed connection, which is watched, replaced, and caught up behind.

What is pushed may have holes; `TailState` knows them, and the log fills them. A connection that says nothing is asked through
the log itself for where it ends: that proves both that the connection lives and that the last message came.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Final, Protocol

from dws_core.plugin import (
    BrokerError,
    BrokerUnavailable,
    GapReason,
    ReadResult,
    ReadSpan,
    TailEvent,
    TailSink,
    TailState,
)
from dws_redis._format import Names, Push, read_push
from dws_redis._reader import Reader
from dws_redis._settings import Settings
from dws_redis._subscription import Subscription

logger = logging.getLogger("dws.redis")

_CATCH_UP_RECORDS: Final = 100_000
_CATCH_UP_BYTES: Final = 67_108_864


class Link(Protocol):
    """What a tail needs of its server."""

    async def subscribed(self, take: Callable[[bytes, bytes], None]) -> Subscription:
        """Open a connection; `BrokerError` if it cannot be had."""

    def probe(self, partitions: Iterable[int]) -> None:
        """Ask through the log for a sign of life."""


class Tail:
    """The tails of those partitions that one server holds.

    Args:
        settings: How long to wait.
        names: Channels.
        partitions: Those that the server holds.
        states: Of all tails of the node; whoever takes over a partition goes on from its state.
        sink: Who is told.
        reader: Reads what was missed.
        link: To the server.
        on_control: Takes control messages.
    """

    def __init__(
        self,
        settings: Settings,
        names: Names,
        partitions: frozenset[int],
        states: dict[int, TailState],
        sink: TailSink,
        reader: Reader,
        link: Link,
        on_control: Callable[[bytes], None],
    ) -> None:
        self._settings = settings
        self._names = names
        self._partitions = partitions
        self._states = states
        self._sink = sink
        self._reader = reader
        self._link = link
        self._on_control = on_control
        self._control = names.control(
            min(partitions)
        )  # this one is always listened to: it shows that the connection lives
        self._subscription: Subscription | None = None
        self._early: dict[int, list[Push]] = {}  # what came before a partition's baseline was known
        self._partition_of = {names.pushes(number).encode(): number for number in partitions}
        self._holes = asyncio.Event()
        self.live: asyncio.Event = asyncio.Event()

    async def follow(self, partitions: Collection[int]) -> None:
        """Tail exactly these; return once each is live.

        Raises:
            BrokerUnavailable: The connection is away.
        """
        for number in self._followed() - set(partitions):
            del self._states[number]
            if self._subscription is not None:
                self._subscription.unsubscribe(self._names.pushes(number))
        new = sorted(set(partitions) - self._states.keys())
        if new:
            await self._begin(new)

    async def session(self) -> None:
        """Connect, catch up and stay until the connection is lost.

        Raises:
            BrokerError: It could not be had.
        """
        subscription = await self._link.subscribed(self._took)
        try:
            async with asyncio.timeout(self._settings.options.connect_timeout_s):
                self._subscription = subscription
                await subscription.subscribe(self._control, *map(self._names.pushes, self._followed()))
            for number in self._followed():
                self._states[number].interrupted()
            await self._fill_holes()
            self.live.set()
            await self._stay(subscription)
        except TimeoutError:
            raise BrokerUnavailable("Redis does not confirm a subscription.") from None
        finally:
            self.live.clear()
            self._subscription = None
            await subscription.close()

    def abort(self) -> None:
        """Cut the connection: another one follows."""
        if self._subscription is not None:
            self._subscription.abort()

    def _followed(self) -> set[int]:
        return self._states.keys() & self._partitions

    # -- while it lives

    async def _stay(self, subscription: Subscription) -> None:
        async with asyncio.TaskGroup() as group:
            filling = group.create_task(self._keep_filling(subscription))
            try:
                await subscription.watch(lambda: self._link.probe(sorted(self._followed())))
            finally:
                filling.cancel()

    async def _keep_filling(self, subscription: Subscription) -> None:
        while True:
            await self._holes.wait()
            self._holes.clear()
            try:
                await self._fill_holes()
            except BrokerError as error:
                logger.warning("what was missed cannot be read: %s", error)
                subscription.abort()
                return

    async def _fill_holes(self) -> None:
        for partition in self._followed():
            while (state := self._states.get(partition)) is not None and state.needs_catch_up:
                await self._catch_up(partition, state)

    async def _catch_up(self, partition: int, state: TailState) -> None:
        epoch, watermark = state.start_catch_up()
        found = ReadResult()
        try:
            head = (await self._reader.heads((partition,)))[partition]
            if head.epoch == epoch and head.offset >= watermark:
                span = ReadSpan(
                    partition=partition,
                    epoch=epoch,
                    since=watermark,
                    until=head.offset,
                    topics=_every,
                    limit=_CATCH_UP_RECORDS,
                    max_bytes=_CATCH_UP_BYTES,
                )
                found = await self._reader.read(span)
        except BaseException:
            state.interrupted()
            raise
        if self._states.get(partition) is not state:
            return  # followed no longer, or from another baseline
        if found.gap is None:
            self._tell(state.caught_up(head, found.records))
        elif found.gap is GapReason.EPOCH:
            state.interrupted()  # it changed meanwhile: ask again
        else:
            self._tell(state.give_up(found.gap, head))

    # -- what comes

    def _took(self, channel: bytes, payload: bytes) -> None:
        partition = self._partition_of.get(channel)
        if partition is None:
            if payload:  # else it is a sign of life
                self._on_control(payload)
            return
        try:
            push = read_push(payload)
        except (ValueError, IndexError):
            logger.exception("no dws message on channel %r: %d bytes", channel, len(payload))
            return
        if (state := self._states.get(partition)) is not None:
            self._push(state, push)
        elif partition in self._early:
            self._early[partition].append(push)

    def _push(self, state: TailState, push: Push) -> None:
        if push.epoch is None:
            self._tell(state.push(state.epoch, state.watermark, state.watermark, push.records))
            return
        self._tell(state.push(push.epoch, push.lo, push.hi, push.records))
        if state.needs_catch_up:
            self._holes.set()

    def _tell(self, events: list[TailEvent]) -> None:
        for event in events:
            try:
                event.tell(self._sink)
            except Exception:
                logger.exception("a tail sink of dws failed")

    # -- beginning

    async def _begin(self, partitions: list[int]) -> None:
        subscription = self._subscription
        if subscription is None:
            raise BrokerUnavailable(f"{self._settings.shown} is away.", fix="try again")
        for number in partitions:
            self._early[number] = []
        try:
            async with asyncio.timeout(self._settings.options.connect_timeout_s):
                await subscription.subscribe(*map(self._names.pushes, partitions))
                heads = await self._reader.heads(partitions)
        except TimeoutError:
            raise BrokerUnavailable("Redis does not confirm a subscription.", fix="try again") from None
        finally:
            early = {number: self._early.pop(number) for number in partitions}
        if self._subscription is not subscription:  # the next connection does not know of these
            raise BrokerUnavailable("the connection to Redis was lost while subscribing.", fix="try again")
        for number in partitions:
            state = self._states[number] = TailState(heads[number])
            for push in early[number]:
                self._push(state, push)


def _every(topic: str) -> bool:
    return True
