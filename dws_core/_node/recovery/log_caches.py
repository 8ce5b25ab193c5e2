"""What the node knows of the channel's logs: for each partition epoch, watermark and recent records."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from dws_core._log.cache import LogCache
from dws_core._log.records import Head, History, Offset, Record


class LogCaches(dict[int, LogCache]):
    """The caches by partition, fed by the tail.

    Args:
        history: Says how much of a topic is kept.
    """

    def __init__(self, history: Callable[[str], History]) -> None:
        super().__init__()
        self._history = history

    def begin(self, heads: Iterable[Head]) -> None:
        """Take the baselines of the tail; news that came before them count."""
        for head in heads:
            if head.partition not in self:
                self[head.partition] = LogCache(head, history=self._history)

    def advance(self, partition: int, epoch: str, lo: Offset, hi: Offset, records: Sequence[Record]) -> None:
        """Take what the tail heard."""
        if partition not in self:
            self.begin([Head(partition=partition, epoch=epoch, offset=lo)])
        self[partition].advance(epoch, lo, hi, records, now=asyncio.get_running_loop().time())

    def reset(self, head: Head) -> None:
        """Take a new baseline."""
        self.begin([head])
        self[head.partition].reset(head)

    def expire(self) -> None:
        """Tell them the time, where nothing comes that would: what is too old is dropped and answered no more."""
        now = asyncio.get_running_loop().time()
        for log in self.values():
            log.expire(now)
