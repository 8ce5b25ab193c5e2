"""Reading from a wire: iterators that are closed, and scans that do not wait forever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeVar

from dws_core._log.stream.envelope import Envelope, readable
from dws_core._log.stream.wire import StreamWire, WireLost, WireOutOfRange

T = TypeVar("T")

_STEP: Final = 64
"""Number of records after which other tasks run. Large ones count more."""

_STEP_BYTES: Final = 4096
"""Size that counts as one more record."""


@contextlib.asynccontextmanager
async def closing(items: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Close an iterator at the end of the block, if it can be closed."""
    try:
        yield items
    finally:
        close: Callable[[], Any] | None = getattr(items, "aclose", None)
        if close is not None:
            await close()


class Pace:
    """Counts the records of an iterator that may return many of them without waiting."""

    def __init__(self) -> None:
        self._count = 0

    def is_due(self, data: bytes) -> bool:
        """Count a record. Return whether to let other tasks run now."""
        self._count += 1 + len(data) // _STEP_BYTES
        if self._count < _STEP:
            return False
        self._count = 0
        return True


class Scanner:
    """Scans of one partition.

    Args:
        wire: An open wire.
        partition: Number of the partition.
        step_s: Maximum time until the next record arrives, in seconds.
    """

    def __init__(self, wire: StreamWire, partition: int, step_s: float) -> None:
        self._wire = wire
        self._partition = partition
        self._step_s = step_s

    async def scan(self, start: int, stop: int) -> AsyncIterator[tuple[int, bytes]]:
        """Iterate over the records between two offsets, both included. Close the iterator.

        Raises:
            WireLost: Nothing arrives, or the connection for reads failed.
            WireOutOfRange: The start is not stored.
        """
        loop, pace = asyncio.get_running_loop(), Pace()
        async with closing(self._wire.scan(self._partition, start, stop)) as records:
            items = aiter(records)
            while True:
                try:
                    async with asyncio.timeout_at(loop.time() + self._step_s):
                        item = await anext(items)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    raise WireLost("a scan makes no progress") from error
                yield item
                if pace.is_due(item[1]):
                    await asyncio.sleep(0)

    async def sample(self, at: int, end: int) -> Envelope | None:
        """Return the first readable envelope from a place on, or None if the place was removed."""
        with contextlib.suppress(WireOutOfRange):
            async with closing(self.scan(at, end)) as records:
                async for _, data in records:
                    if envelope := readable(data):
                        return envelope
        return None

    async def origin(self, end: int) -> int | None:
        """Return the first offset of a stream, 0 or 1, or None if its beginning was removed."""
        for start in (0, 1):
            with contextlib.suppress(WireOutOfRange):
                async with closing(self.scan(start, end)) as records:
                    async for offset, _ in records:
                        return offset if offset <= 1 else None
        return None
