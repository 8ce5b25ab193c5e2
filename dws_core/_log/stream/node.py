"""A started `StreamLogBroker`: it keeps a session open, delivers to the sink and completes publishes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from dws_core._errors import (
    BrokerClosed,
    BrokerError,
    BrokerMisconfigured,
    BrokerOverloaded,
    BrokerUnavailable,
    PayloadTooLarge,
    PublishOutcomeUnknown,
)
from dws_core._log.backoff import Backoff
from dws_core._log.contract import TailSink
from dws_core._log.records import BrokerState, GapReason, Head, Layout, ReadResult, ReadSpan, Receipt
from dws_core._log.stream.envelope import ENVELOPE_BYTES, RECORD_BYTES, Draft
from dws_core._log.stream.io.waiters import Waiters
from dws_core._log.stream.partition_log import Live, PartitionEvent, PartitionLog
from dws_core._log.stream.publishing import Failure, PublishQueue
from dws_core._log.stream.reader import Reader
from dws_core._log.stream.session import Clock, Log, Session, Ticket, leaf, reason_of
from dws_core._log.stream.settings import StreamSettings
from dws_core._log.stream.tail import Control, ProbeSeen, Stored, StreamTail
from dws_core._log.stream.wire import StreamWire, WireError, WireInfo, WireUnusable
from dws_core._log.tail import Advance, Lost
from dws_core._tasks import Tasks

logger = logging.getLogger("dws.stream")

_ID_BYTES: Final = 8


class StreamNode:
    """A started broker.

    Args:
        where: Name of the broker for error texts, without secrets.
        make_wire: Returns a new wire.
        node: Id of this node.
        layout: The channel.
        sink: Receives what arrives.
        settings: How to use the wire.
        clock: The time.
    """

    def __init__(
        self,
        where: str,
        *,
        make_wire: Callable[[], StreamWire],
        node: bytes,
        layout: Layout,
        sink: TailSink,
        settings: StreamSettings,
        clock: Clock,
    ) -> None:
        self.layout = layout
        self.settings = settings
        self.logs: list[Log] = [
            PartitionLog(number, node, PublishQueue(settings)) for number in range(layout.partitions)
        ]
        self.now_ms = clock.now_ms
        self.new_epoch = clock.new_epoch
        self._where = where
        self._make_wire = make_wire
        self._id = node
        self._sink = sink
        self._rng = clock.rng
        self._loop = asyncio.get_running_loop()
        self._tasks = Tasks()
        self._session: Session | None = None
        self._info = WireInfo()
        self._interest: frozenset[int] = frozenset()
        self._choosing = asyncio.Lock()
        self._waiters = Waiters()
        self._state: tuple[BrokerState, str] = ("connecting", "")
        self._why = "no connection yet"
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._idle = asyncio.Event()
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: set[int] = set()

    # -- lifecycle

    async def start(self) -> None:
        """Connect, and return when all partitions are live.

        Raises:
            BrokerError: That failed.
        """
        self._tasks.spawn(self._keep(), name="dws stream")
        try:
            await self._started
        except BaseException:
            await self.stop(0.0)
            raise

    async def stop(self, drain_s: float) -> None:
        """Send what waits for at most `drain_s` seconds, then end everything, also if this is cancelled."""
        try:
            if drain_s > 0:
                await self._drained(drain_s)
        finally:
            await asyncio.shield(self._loop.create_task(self._end(), name="dws stream end"))

    async def _drained(self, drain_s: float) -> None:
        try:
            async with asyncio.timeout(drain_s):
                while any(len(log.queue) for log in self.logs):
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            pass

    async def _end(self) -> None:
        await self._tasks.stop()
        if self._timer is not None:
            self._timer.cancel()
        for log in self.logs:
            self._complete(log.queue.drain(), BrokerClosed("the broker was stopped before the message was sent."))
        self._waiters.fail(closed())
        self._tell("closed", "stopped")

    async def _keep(self) -> None:
        """Open one session after the other."""
        backoff = Backoff(self._rng.random)
        while True:
            session = self._session = Session(self, self._make_wire())
            was_live = False
            try:
                await session.run()
            except Exception as error:  # noqa: BLE001 -- whatever a wire raises, the node opens another one
                was_live = self._state[0] in {"live", "blocked"}
                self._failed(leaf(error))
            if was_live:
                backoff.reset()
            await asyncio.sleep(backoff.next_s())

    def _failed(self, error: BaseException) -> None:
        self._session = None
        self._why = reason_of(error)
        if not isinstance(error, WireError | BrokerError | TimeoutError):
            logger.error("the wire of %s failed", self._where, exc_info=error)
        if not self._started.done():
            self._started.set_exception(self._startup_error(error))
        elif self._state[0] != "connecting":
            self._tell("degraded", f"{self._where}: {self._why}")
        self._waiters.fail(self._unavailable())

    def _startup_error(self, error: BaseException) -> BrokerError:
        if isinstance(error, BrokerError):
            return error
        found: BrokerError = self._unavailable()
        if isinstance(error, WireUnusable):
            found = BrokerMisconfigured(f"{self._where} cannot be used: {error.reason}.", fix="change its settings")
        found.__cause__ = error
        return found

    # -- what the core calls

    async def set_interest(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        """Deliver these partitions from now on."""
        async with self._choosing:
            while waiting := [number for number in partitions if not self.logs[number].is_live]:
                await self._live(waiting[0])
            self._interest = partitions
            return {number: self._tail(number).head for number in partitions}

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Return where the streams end, as the broker reports it."""
        for number in partitions:
            await self._caught_up(number)
        return {number: self._tail(number).head for number in partitions}

    async def read(self, span: ReadSpan) -> ReadResult:
        """Return the records of a span, or a gap."""
        tail = await self._live(span.partition)
        if span.epoch == tail.epoch and max(span.since, span.until) > tail.mark:
            tail = await self._caught_up(span.partition)
        if span.epoch != tail.epoch:
            return ReadResult(gap=GapReason.EPOCH)
        if tail.is_beyond(span.since):
            return ReadResult(gap=GapReason.AHEAD)
        try:
            result = await Reader(self._wire(), self.settings.step_s).read(tail, span, self.now_ms())
        except (WireError, TimeoutError) as error:
            raise self._unavailable(reason_of(error)) from error
        if self._tail(span.partition) is not tail or not self.logs[span.partition].is_live:
            raise self._unavailable("the stream was opened again during a read")
        return result

    async def send_control(self, payload: bytes) -> None:
        """Send a control message, through the wire or through partition 0."""
        await self._live(0)
        wire = self._wire()
        try:
            if type(wire).send_control is not StreamWire.send_control:
                await wire.send_control(self._id + payload)
            else:
                await wire.append(0, self.logs[0].control(self.now_ms(), payload))
        except WireError as error:
            raise self._unavailable(error.reason) from error

    def publish(self, number: int, draft: Draft, deadline_s: float, max_bytes: int) -> asyncio.Future[Receipt]:
        """Queue a publish."""
        future: asyncio.Future[Receipt] = self._loop.create_future()
        log = self.logs[number]
        if (limit := self._limit(draft, max_bytes)) < len(draft.payload):
            future.set_exception(PayloadTooLarge(len(draft.payload), limit, where=self._where))
        elif (repeat := self._repeat(log, draft)) is not None:
            future.set_result(repeat)
        elif not log.queue.add((future, draft.topic), draft, due := self._loop.time() + deadline_s):
            future.set_exception(
                BrokerOverloaded(f"too many messages wait for {self._where}.", fix="publish less at once")
            )
        else:
            self._flush_soon(number)
            self._expire_at(due)
        return future

    # -- what the session calls

    def on_open(self, info: WireInfo) -> None:
        """Note the limits of the streams."""
        self._info = info
        for log in self.logs:
            log.max_skip = info.max_skip
            log.queue.max_bytes = info.max_bytes - ENVELOPE_BYTES

    def on_events(self, log: Log, events: list[PartitionEvent]) -> None:
        """Handle the events of a partition that do not need the wire."""
        for event in events:
            if isinstance(event, Advance | Lost):
                if log.number in self._interest:
                    self._call(event.tell)
            elif isinstance(event, Stored):
                self.on_outcomes(log.queue.stored(event.first, event.receipts))
            elif isinstance(event, Control):
                self._call(lambda sink, event=event: sink.on_control(event.sender, event.payload))  # type: ignore[misc]
            elif isinstance(event, ProbeSeen):
                self._waiters.probe_seen(log.number, event.number)
            elif isinstance(event, Live):
                self._on_live(log.number)
        if log.tail is not None and log.is_live:
            self._waiters.reached(log.number, log.tail.offset)

    def on_control(self, data: bytes) -> None:
        """Deliver a control message that came through the wire."""
        self._call(lambda sink: sink.on_control(data[:_ID_BYTES], data[_ID_BYTES:]))

    def on_outcomes(self, outcomes: list[tuple[Ticket, Any]]) -> None:
        """Complete publishes."""
        self._complete(outcomes, None)

    def on_blocked(self, reason: str | None) -> None:
        """Report that the broker accepts nothing, or accepts appends again."""
        if reason is not None:
            self._tell("blocked", f"{self._where} accepts no messages: {reason}")
        elif self._state[0] == "blocked":
            self._tell("live", f"connected to {self._where}")

    # -- inside

    def _on_live(self, number: int) -> None:
        self._waiters.live(number)
        if all(log.is_live for log in self.logs):
            self._tell("live", f"connected to {self._where}")
            if not self._started.done():
                self._started.set_result(None)

    def _complete(self, outcomes: list[tuple[Ticket, Any]], unsent: BrokerError | None) -> None:
        for (future, topic), outcome in outcomes:
            if future.done():
                continue
            if outcome is Failure.UNKNOWN:
                future.set_exception(PublishOutcomeUnknown(topic))
            elif outcome is Failure.UNSENT:
                future.set_exception(unsent or self._unavailable())
            else:
                future.set_result(outcome)
        self._idle.set()

    def _limit(self, draft: Draft, max_bytes: int) -> int:
        """Return the largest payload that fits next to a topic and a key."""
        names = len(draft.topic.encode()) + len((draft.key or "").encode())
        return min(max_bytes, self._info.max_bytes - ENVELOPE_BYTES - RECORD_BYTES - names)

    def _repeat(self, log: Log, draft: Draft) -> Receipt | None:
        if draft.key is None or log.tail is None or not log.is_live:
            return None
        return log.tail.find_key(draft.topic, draft.key, self.now_ms())

    def _flush_soon(self, number: int) -> None:
        if not self._flushing:
            self._loop.call_soon(self._flush)
        self._flushing.add(number)

    def _flush(self) -> None:
        numbers, self._flushing = self._flushing, set()
        if self._session is not None:
            for number in numbers:
                self._session.flush(self.logs[number])

    def _expire_at(self, due: float) -> None:
        if self._due is None or due < self._due:
            self._due = due
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(due, self._expire)

    def _expire(self) -> None:
        self._due = self._timer = None
        for log in self.logs:
            self.on_outcomes(log.queue.expire(self._loop.time()))
            if (due := log.queue.next_due()) is not None:
                self._expire_at(due)

    async def _live(self, number: int) -> StreamTail:
        """Return the tail of a live partition, and wait a little for it."""
        while not self.logs[number].is_live:
            await self._wait(self._waiters.until_live(number))
        return self._tail(number)

    async def _caught_up(self, number: int) -> StreamTail:
        """Return the tail of a partition once it contains everything that is stored now."""
        tail, log = await self._live(number), self.logs[number]
        try:
            async with asyncio.timeout(self.settings.step_s):
                bounds = await self._wire().bounds(number)
                if bounds is None:
                    probe, data = log.next_probe(self.now_ms())
                    seen = self._waiters.until_probe(number, probe)
                    await self._wire().append(number, data)
                    await seen
                elif bounds.next - 1 > tail.offset:
                    await self._waiters.until_reached(number, bounds.next - 1)
        except (WireError, TimeoutError) as error:
            raise self._unavailable(reason_of(error)) from error
        return await self._live(number)

    async def _wait(self, waiter: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(self.settings.wait_s):
                await waiter
        except TimeoutError:
            raise self._unavailable() from None

    def _tail(self, number: int) -> StreamTail:
        tail = self.logs[number].tail
        if tail is None:
            raise self._unavailable()
        return tail

    def _wire(self) -> StreamWire:
        if self._session is None:
            raise self._unavailable()
        return self._session.wire

    def _unavailable(self, why: str = "") -> BrokerUnavailable:
        return BrokerUnavailable(
            f"{self._where} is unavailable: {why or self._why}.", fix="check the broker, or try again"
        )

    def _tell(self, state: BrokerState, detail: str) -> None:
        if (state, detail) != self._state:
            self._state = state, detail
            self._call(lambda sink: sink.on_state(state, detail))

    def _call(self, tell: Callable[[TailSink], None]) -> None:
        try:
            tell(self._sink)
        except Exception as error:  # noqa: BLE001 -- a failing sink must not affect the tail
            self._loop.call_exception_handler({"message": "a tail sink of dws failed", "exception": error})


def closed() -> BrokerClosed:
    """Return the error for a call outside `start` and `stop`."""
    return BrokerClosed("the broker is not started.", fix="call start() first, and nothing after stop()")
