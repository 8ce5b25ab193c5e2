"""Delivers the records of one server to a node, over a subscribed connection that is watched and replaced.

Redis may drop pushed records. `TailState` finds these holes, and a read of the log fills them. When a connection is
silent, the end of each log is published on its channel. The arrival of this probe proves that the connection works and
that no record is missing.
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
    Head,
    Offset,
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
_LOG_EVERY_S: Final = 60.0


class TailServer(Protocol):
    """The server of a tail."""

    async def open_subscription(self, on_message: Callable[[bytes, bytes], None]) -> Subscription:
        """Open a subscribed connection, or raise `BrokerError`."""

    def probe(self, partitions: Iterable[int]) -> None:
        """Publish the end of each log on its channel."""


class Tail:
    """The tails of the partitions that one server holds.

    Args:
        settings: Timeouts.
        names: Names of channels.
        partitions: The partitions that the server holds.
        states: States of all tails of the node, by partition. The next server of a partition continues with its state.
        sink: Receives the records and gaps.
        reader: Reads missed records.
        server: Opens the connection and publishes probes.
        on_control: Called with each control message.

    Attributes:
        malformed: Number of messages that were not pushes.
        live: Set while the tail is live.
    """

    def __init__(
        self,
        settings: Settings,
        names: Names,
        partitions: frozenset[int],
        states: dict[int, TailState],
        sink: TailSink,
        reader: Reader,
        server: TailServer,
        on_control: Callable[[bytes], None],
    ) -> None:
        self._settings = settings
        self._names = names
        self._partitions = partitions
        self._states = states
        self._sink = sink
        self._reader = reader
        self._server = server
        self._on_control = on_control
        self._control = names.control_channel(min(partitions))  # always subscribed, for probes without partitions
        self._subscription: Subscription | None = None
        self._before_baseline: dict[int, list[Push]] = {}  # pushes that arrived before the baseline
        self._partition_of = {names.push_channel(number).encode(): number for number in partitions}
        self._malformed_logged_s = -_LOG_EVERY_S
        self.malformed: int = 0
        self._hole_found = asyncio.Event()
        self.live: asyncio.Event = asyncio.Event()

    async def follow(self, partitions: Collection[int]) -> None:
        """Tail exactly these partitions. Return once each tail is live.

        Raises:
            BrokerUnavailable: There is no connection at the moment.
        """
        for number in self._followed() - set(partitions):
            del self._states[number]
            if self._subscription is not None:
                self._subscription.unsubscribe(self._names.push_channel(number))
        new = sorted(set(partitions) - self._states.keys())
        if new:
            await self._start_tails(new)

    async def session(self) -> None:
        """Connect, catch up, and return when the connection is lost.

        Raises:
            BrokerError: The connection or the first catch-up failed.
        """
        subscription = await self._server.open_subscription(self._on_message)
        try:
            async with asyncio.timeout(self._settings.options.connect_timeout_s):
                self._subscription = subscription
                await subscription.subscribe(self._control, *map(self._names.push_channel, self._followed()))
            for number in self._followed():
                self._states[number].interrupted()
            await self._fill_holes()
            self.live.set()
            await self._run_live(subscription)
        except TimeoutError:
            raise BrokerUnavailable("Redis does not confirm a subscription.") from None
        finally:
            self.live.clear()
            self._subscription = None
            await subscription.close()

    def abort(self) -> None:
        """Cut the connection. The next session opens another one."""
        if self._subscription is not None:
            self._subscription.abort()

    def _followed(self) -> set[int]:
        return self._states.keys() & self._partitions

    # -- while the connection is open

    async def _run_live(self, subscription: Subscription) -> None:
        async with asyncio.TaskGroup() as group:
            filling = group.create_task(self._keep_filling(subscription))
            try:
                await subscription.watch(lambda: self._server.probe(sorted(self._followed())))
            finally:
                filling.cancel()

    async def _keep_filling(self, subscription: Subscription) -> None:
        while True:
            await self._hole_found.wait()
            self._hole_found.clear()
            try:
                await self._fill_holes()
            except BrokerError as error:
                logger.warning("failed to read missed messages, reconnecting: %s", error)
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
                found = await self._reader.read(_missed(head, watermark))
        except BaseException:
            state.interrupted()
            raise
        if self._states.get(partition) is not state:
            return  # no longer followed, or followed from another baseline
        if found.gap is None:
            self._deliver(state.caught_up(head, found.records))
        elif found.gap is GapReason.EPOCH:
            state.interrupted()  # the epoch has changed since the heads were read, so read again
        else:
            self._deliver(state.give_up(found.gap, head))

    # -- arriving messages

    def _on_message(self, channel: bytes, payload: bytes) -> None:
        partition = self._partition_of.get(channel)
        if partition is None:
            if payload:  # an empty message is a probe
                self._on_control(payload)
            return
        try:
            push = read_push(payload)
        except ValueError as error:
            self._on_malformed(partition, channel, error)
        else:
            self._on_push(partition, push)

    def _on_malformed(self, partition: int, channel: bytes, error: ValueError) -> None:
        """Skip a message that is no push, and report a gap, because it may have had records without history."""
        self.malformed += 1
        now = asyncio.get_running_loop().time()
        if now - self._malformed_logged_s >= _LOG_EVERY_S:
            self._malformed_logged_s = now
            logger.warning(
                "a message on channel %r is malformed (%s); %d so far, logged at most once per minute",
                channel, error, self.malformed,
            )  # fmt: skip
        if (state := self._states.get(partition)) is not None:
            head = Head(partition=partition, epoch=state.epoch, offset=state.watermark)
            self._sink.on_discontinuity(partition, GapReason.UNREADABLE, head)

    def _on_push(self, partition: int, push: Push) -> None:
        if (state := self._states.get(partition)) is not None:
            self._push(state, push)
        elif partition in self._before_baseline:
            self._before_baseline[partition].append(push)

    def _push(self, state: TailState, push: Push) -> None:
        if push.epoch is None:
            self._deliver(state.push(state.epoch, state.watermark, state.watermark, push.records))
            return
        self._deliver(state.push(push.epoch, push.lo, push.hi, push.records))
        if state.needs_catch_up:
            self._hole_found.set()

    def _deliver(self, events: list[TailEvent]) -> None:
        for event in events:
            try:
                event.tell(self._sink)
            except Exception:
                logger.exception("a tail sink of dws failed")

    # -- start of tails

    async def _start_tails(self, partitions: list[int]) -> None:
        subscription = self._subscription
        if subscription is None:
            raise BrokerUnavailable(
                f"{self._settings.masked_url} is unavailable.", fix="try again, the node is reconnecting"
            )
        for number in partitions:
            self._before_baseline[number] = []
        try:
            async with asyncio.timeout(self._settings.options.connect_timeout_s):
                await subscription.subscribe(*map(self._names.push_channel, partitions))
                heads = await self._reader.heads(partitions)
        except TimeoutError:
            raise BrokerUnavailable("Redis does not confirm a subscription.", fix="try again") from None
        finally:
            before_baseline = {number: self._before_baseline.pop(number) for number in partitions}
        if self._subscription is not subscription:  # the next connection did not subscribe to these
            raise BrokerUnavailable("the connection to Redis was lost while subscribing.", fix="try again")
        for number in partitions:
            state = self._states[number] = TailState(heads[number])
            for push in before_baseline[number]:
                self._push(state, push)


def _missed(head: Head, watermark: Offset) -> ReadSpan:
    """Return the span of all records between a watermark and the end of the log."""
    return ReadSpan(
        partition=head.partition,
        epoch=head.epoch,
        since=watermark,
        until=head.offset,
        topics=_any_topic,
        limit=_CATCH_UP_RECORDS,
        max_bytes=_CATCH_UP_BYTES,
    )


def _any_topic(topic: str) -> bool:
    return True
