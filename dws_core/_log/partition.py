"""The partition of a topic. It must be the same on every node and in every release, because history is stored there."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from dws_core._log.records import Layout


def partition_of(topic: str, layout: Layout) -> int:
    """Return the partition of a topic: CRC-32 of its UTF-8, modulo the number of partitions.

    If `layout.shard_levels` is set, only that many leading levels are hashed. All topics below them share a partition.
    """
    if layout.partitions == 1:
        return 0
    if levels := layout.shard_levels:
        topic = "/".join(topic.split("/", levels)[:levels])
    return crc32(topic.encode()) % layout.partitions
