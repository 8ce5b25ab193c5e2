"""Turning the publishes of a loop tick into few large requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Coalescer(Generic[T]):
    """Joins what is added in one tick into batches, for each partition in order.

    No timer: a lone item leaves in the next tick; under load batches grow because requests are on their way.

    A batch whose `send` raises is given up and counts as answered: do not call `answered` for it. The exception goes to
    whoever runs the tick, and what waits beside and behind the batch leaves in the next one.

    Args:
        send: Takes a partition and its next batch; must not call the coalescer in the same call.
        call_soon: Runs a function in the next tick, as `asyncio.loop.call_soon` does.
        max_items: Items in a batch.
        max_bytes: Bytes in a batch; a larger item travels alone.
        max_in_flight: Batches of a partition that may be unanswered.
    """

    def __init__(
        self,
        send: Callable[[int, list[T]], None],
        *,
        call_soon: Callable[[Callable[[], None]], object],
        max_items: int = 64,
        max_bytes: int = 262_144,
        max_in_flight: int = 4,
    ) -> None:
        self._send = send
        self._call_soon = call_soon
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._max_in_flight = max_in_flight
        self._waiting: dict[int, deque[tuple[T, int]]] = {}
        self._in_flight: dict[int, int] = {}
        self._scheduled = False
        self._bytes = 0

    @property
    def waiting_bytes(self) -> int:
        """Bytes that are not sent yet; refuse to add above a bound."""
        return self._bytes

    def add(self, partition: int, item: T, size_bytes: int) -> None:
        """Queue an item."""
        self._waiting.setdefault(partition, deque()).append((item, size_bytes))
        self._bytes += size_bytes
        self._schedule()

    def answered(self, partition: int) -> None:
        """Note that one batch of the partition was answered or given up; the next may go."""
        self._in_flight[partition] -= 1
        if partition in self._waiting:
            self._schedule()

    def drop(self, unwanted: Callable[[T], bool]) -> None:
        """Take out what waits and is not wanted any more; what is left keeps its order."""
        for partition, queue in self._waiting.items():
            kept: deque[tuple[T, int]] = deque()
            for item, size_bytes in queue:
                if unwanted(item):
                    self._bytes -= size_bytes
                else:
                    kept.append((item, size_bytes))
            self._waiting[partition] = kept

    def drain(self) -> list[T]:
        """Take out what is not sent yet: nobody will send it any more."""
        items = [item for queue in self._waiting.values() for item, _ in queue]
        self._waiting.clear()
        self._bytes = 0
        return items

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        for partition, queue in list(self._waiting.items()):
            while queue and self._in_flight.get(partition, 0) < self._max_in_flight:
                self._send_one(partition, self._batch(queue))
            if not queue:
                del self._waiting[partition]

    def _send_one(self, partition: int, batch: list[T]) -> None:
        self._in_flight[partition] = self._in_flight.get(partition, 0) + 1
        try:
            self._send(partition, batch)
        except BaseException:
            self.answered(partition)
            raise

    def _batch(self, queue: deque[tuple[T, int]]) -> list[T]:
        batch: list[T] = []
        room = self._max_bytes
        while queue and len(batch) < self._max_items and (not batch or queue[0][1] <= room):
            item, size_bytes = queue.popleft()
            batch.append(item)
            room -= size_bytes
        self._bytes -= self._max_bytes - room
        return batch
