"""The publishes of a node: from the call to the queue of the partition, and back to the caller with an outcome."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import count
from typing import Final, TypeAlias

from dws_core._errors import BrokerClosed, BrokerError, BrokerOverloaded, PayloadTooLarge, PublishOutcomeUnknown
from dws_core._log.records import Receipt
from dws_core._log.stream.envelope import ENVELOPE_BYTES, RECORD_BYTES, Draft
from dws_core._log.stream.io.clock import Clock
from dws_core._log.stream.io.host import Log, Ticket
from dws_core._log.stream.io.reports import Reports
from dws_core._log.stream.publishing import Failure, Place, PublishQueue, Waiting, most_bytes

Outcome: TypeAlias = tuple[Ticket, Receipt | Failure]

_EXPIRE_EVERY_S: Final = 0.1
"""Minimum time between two looks for expired publishes. With 100,000 of them that wait for a broker, one takes 25 ms."""


class Publisher:
    """Publishes to all partitions.

    Args:
        logs: The partitions.
        reports: For error texts.
        clock: The time.
        flush: Called once in each tick for a partition with new publishes.

    Attributes:
        has_lane: Whether publishes without history do not pass through the streams.
    """

    def __init__(self, logs: Sequence[Log], *, reports: Reports, clock: Clock, flush: Callable[[Log], None]) -> None:
        self._logs = logs
        self._reports = reports
        self._clock = clock
        self._flush_log = flush
        self._loop = asyncio.get_running_loop()
        self.has_lane = False
        self._max_bytes = 0
        self._numbers = count()
        self._idle = asyncio.Event()
        self._flushing: set[int] = set()
        self._due: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def limit(self, max_bytes: int) -> None:
        """Note the size of the largest envelope that the streams accept."""
        self._max_bytes = max_bytes - ENVELOPE_BYTES
        for queue in self._queues():
            queue.max_bytes = self._max_bytes

    def publish(
        self, number: int, draft: Draft, deadline_s: float, max_payload: int, *, order: Hashable | None = None
    ) -> asyncio.Future[Receipt]:
        """Queue a publish, and return the future of its receipt. See `LogBroker.publish`."""
        future: asyncio.Future[Receipt] = self._loop.create_future()
        log, size, due = self._logs[number], most_bytes(draft), self._loop.time() + deadline_s
        place = None if order is None else Place(order, next(self._numbers))
        item = Waiting(Ticket(future, draft.topic, number, place), draft, due, size, place)
        limit = max_payload if size <= self._max_bytes else self._limit(draft, max_payload)
        if len(draft.payload) > limit:
            future.set_exception(PayloadTooLarge(len(draft.payload), limit, where=self._reports.where))
        elif draft.key is not None and (repeat := log.find_key(draft.topic, draft.key, self._clock.now_ms())):
            future.set_result(repeat)
        elif not self._queue(log, item):
            future.set_exception(
                BrokerOverloaded(f"too many messages wait for {self._reports.where}.", fix="publish less at once")
            )
        else:
            if number not in self._flushing:
                self._flush_soon(number)
            if self._due is None or due < self._due:
                self._expire_at(due)
        return future

    def complete(self, outcomes: Iterable[Outcome], unsent: BrokerError | None = None) -> None:
        """Complete publishes, and fail those that depend on failed ones.

        Args:
            outcomes: The tickets and their outcomes.
            unsent: The error of those that were never sent. If None, the broker is unavailable.
        """
        failed: list[tuple[Ticket, Failure]] = []
        for ticket, outcome in outcomes:
            if isinstance(outcome, Failure):
                failed.append((ticket, outcome))
            elif not ticket.future.done():
                ticket.future.set_result(outcome)
        for ticket, outcome in (*failed, *self._followers(failed)):
            if ticket.future.done():
                continue
            if outcome is Failure.UNKNOWN:
                ticket.future.set_exception(PublishOutcomeUnknown(ticket.topic))
            else:
                ticket.future.set_exception(unsent or self._reports.unavailable())
        self._idle.set()

    def _followers(self, failed: Iterable[Outcome]) -> Iterator[Outcome]:
        """Fail the publishes that must not be stored because an earlier one has failed."""
        partitions: defaultdict[int, dict[Hashable, int]] = defaultdict(dict)
        for ticket, _ in failed:
            if (place := ticket.place) is not None:
                first = partitions[ticket.partition]
                first[place.order] = min(place.number, first.get(place.order, place.number))
        for partition, first in partitions.items():
            for queue in self._logs[partition].queues:
                yield from queue.fail_after(first)

    async def drained(self, drain_s: float) -> None:
        """Return when all publishes have an outcome, after at most `drain_s` seconds."""
        try:
            async with asyncio.timeout(drain_s):
                while any(map(len, self._queues())):
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            pass

    def close(self) -> None:
        """Fail all publishes that have no outcome."""
        if self._timer is not None:
            self._timer.cancel()
        for queue in self._queues():
            self.complete(queue.drain(), BrokerClosed("the broker was stopped before the message was sent."))

    def _queue(self, log: Log, item: Waiting[Ticket]) -> bool:
        """Add a publish to the queue of its kind, after all publishes of the same topic."""
        if not self.has_lane:
            return log.queue.add(item)
        queue, other = log.queues if item.draft.size else reversed(log.queues)
        return queue.add_after(other, item)

    def _queues(self) -> Iterator[PublishQueue[Ticket]]:
        for log in self._logs:
            yield from log.queues

    def _limit(self, draft: Draft, max_payload: int) -> int:
        """Return the largest payload that fits next to a topic and a key."""
        names = len(draft.topic.encode()) + len((draft.key or "").encode())
        return min(max_payload, self._max_bytes - RECORD_BYTES - names)

    def _flush_soon(self, number: int) -> None:
        if not self._flushing:
            self._loop.call_soon(self._flush)
        self._flushing.add(number)

    def _flush(self) -> None:
        numbers, self._flushing = self._flushing, set()
        for number in numbers:
            self._flush_log(self._logs[number])

    def _expire_at(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due, self._timer = due, self._loop.call_at(due, self._expire)

    def _expire(self) -> None:
        self._due = self._timer = None
        for queue in self._queues():
            self.complete(queue.expire(self._loop.time()))
        dues = [due for queue in self._queues() if (due := queue.next_due()) is not None]
        if dues:
            self._expire_at(max(min(dues), self._loop.time() + _EXPIRE_EVERY_S))
