"""The node's view of the channel's logs: epoch, watermark and recent records of each partition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from dws_core._log.cache import LogCache
from dws_core._log.records import Head, History, Offset, Record


class LogCaches(dict[int, LogCache]):
    """One cache for each partition, filled by the tail.

    Args:
        history: Returns the history settings of a topic.
    """

    def __init__(self, history: Callable[[str], History]) -> None:
        super().__init__()
        self._history = history

    def begin(self, heads: Iterable[Head]) -> None:
        """Create the caches at the baselines of the tail. Records that arrived before remain."""
        for head in heads:
            if head.partition not in self:
                self[head.partition] = LogCache(head, history=self._history)

    def advance(self, partition: int, epoch: str, lo: Offset, hi: Offset, records: Sequence[Record]) -> None:
        """Append records of the tail."""
        if partition not in self:
            self.begin([Head(partition=partition, epoch=epoch, offset=lo)])
        self[partition].advance(epoch, lo, hi, records, now=asyncio.get_running_loop().time())

    def reset(self, head: Head) -> None:
        """Restart a partition's cache at a new baseline."""
        self.begin([head])
        self[head.partition].reset(head)

    def expire(self) -> None:
        """Drop records that are too old. Needed for partitions without traffic, whose caches are not advanced."""
        now = asyncio.get_running_loop().time()
        for cache in self.values():
            cache.expire(now)
