"""Batching: the publishes of one event-loop tick become a few large requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Coalescer(Generic[T]):
    """Joins the items that are added in one tick into batches. Each partition keeps its order.

    There is no timer. A single item is sent in the next tick. Under load, batches grow while earlier requests are
    unanswered.

    If `send` raises, the batch is dropped and counts as answered. Do not call `answered` for it. The exception
    propagates to the caller of the tick, and all other queued items are sent in the next tick.

    Args:
        send: Sends the next batch of a partition. It must not call the coalescer in the same call.
        call_soon: Runs a function in the next tick, as `asyncio.loop.call_soon` does.
        max_items: Maximum number of items in a batch.
        max_bytes: Maximum size of a batch, in bytes. A larger item is sent alone.
        max_in_flight: Maximum number of unanswered batches of a partition.
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
        """Size of all items that are not sent yet, in bytes. The caller should limit it by refusing new items."""
        return self._bytes

    def add(self, partition: int, item: T, size_bytes: int) -> None:
        """Queue an item."""
        self._waiting.setdefault(partition, deque()).append((item, size_bytes))
        self._bytes += size_bytes
        self._schedule()

    def answered(self, partition: int) -> None:
        """Report that one batch of the partition was answered or has failed. The next batch may be sent."""
        self._in_flight[partition] -= 1
        if partition in self._waiting:
            self._schedule()

    def drop(self, unwanted: Callable[[T], bool]) -> None:
        """Remove the unwanted items from the queue. The other items keep their order."""
        for partition, queue in self._waiting.items():
            kept: deque[tuple[T, int]] = deque()
            for item, size_bytes in queue:
                if unwanted(item):
                    self._bytes -= size_bytes
                else:
                    kept.append((item, size_bytes))
            self._waiting[partition] = kept

    def drain(self) -> list[T]:
        """Remove and return all items that are not sent yet. They will not be sent."""
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
