"""The last messages of one topic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dws_core._errors import BrokerUnavailable
from dws_core._log.cache import LogCache
from dws_core._log.contract import LogBroker
from dws_core._log.last_messages import LastMessages
from dws_core._log.partition import partition_of
from dws_core._log.policy import HistoryPolicy
from dws_core._log.records import GapReason, Layout, Offset, ReadSpan, Record
from dws_core._node.recovery.log_caches import LogCaches
from dws_core._wire.codecs import Codec
from dws_core._wire.cursor import format_position
from dws_core._wire.envelope import open_envelope
from dws_core._wire.message import JSON

_MAX_BYTES: Final = 1_048_576
"""Maximum payload bytes of one read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """A message of a topic's history.

    Attributes:
        topic: Topic of the message.
        data: Any JSON value.
        pos: Position in the log, in the form that clients receive.
    """

    topic: str
    data: JSON
    pos: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessages:
    """The last messages of a topic.

    Attributes:
        messages: Oldest first.
        cursor: Position up to which the messages are complete.
    """

    messages: list[StoredMessage]
    cursor: str


class HistoryReader:
    """Reads a topic's last messages: from the node's cache if that is enough, otherwise from the broker.

    Args:
        broker: Reads the logs.
        layout: Layout of the channel.
        caches: The node's view of the logs.
        policy: History settings by topic.
        codecs: The node's codecs by name.
        max_messages: Maximum number of messages of one answer. If None, there is no limit.
    """

    def __init__(
        self,
        broker: LogBroker,
        *,
        layout: Layout,
        caches: LogCaches,
        policy: HistoryPolicy,
        codecs: Mapping[str, Codec],
        max_messages: int | None,
    ) -> None:
        self._broker = broker
        self._layout = layout
        self._caches = caches
        self._policy = policy
        self._codecs = codecs
        self._max_messages = max_messages

    async def read(self, topic: str, limit: int, *, fresh: bool = False) -> StoredMessages:
        """Return the last stored messages of a topic, up to the node's watermark.

        Args:
            topic: A topic without wildcards.
            limit: Maximum number of messages. The node's limit and the topic's history also apply.
            fresh: Whether to read up to the end of the log, which includes every message acknowledged before the call.
                Asks the broker.

        Raises:
            BrokerUnavailable: The broker keeps no history, or cannot be read, or lost its log during the call.
        """
        if not self._broker.capabilities.recovery:
            raise BrokerUnavailable("this channel's broker keeps no history.", fix="use a broker with a log")
        cache = self._caches[partition_of(topic, self._layout)]
        epoch, until = await self._end(cache) if fresh else (cache.epoch, cache.hi)
        kept = self._policy.of(topic)
        limit = min(limit, kept.size, self._max_messages or limit)
        # Only the broker can answer for a topic whose history is shorter than the age of the cache.
        cached = epoch == cache.epoch and kept.ttl_s >= cache.max_age_s
        recent = cache.read(cache.lo, until, (topic,)) if cached else None
        records = tuple(recent or ())[-limit:] if limit else ()
        if len(records) < limit:
            records = await self._read_broker(cache.partition, epoch, until, topic=topic, limit=limit)
        return StoredMessages(
            messages=[self._message(cache.partition, epoch, record) for record in records],
            cursor=format_position(cache.partition, epoch, until),
        )

    async def _end(self, cache: LogCache) -> tuple[str, Offset]:
        head = (await self._broker.heads((cache.partition,)))[cache.partition]
        return head.epoch, head.offset

    async def _read_broker(
        self, partition: int, epoch: str, until: Offset, *, topic: str, limit: int
    ) -> tuple[Record, ...]:
        search = LastMessages(until, limit)
        while not search.done:
            span = ReadSpan(
                partition=partition,
                epoch=epoch,
                since=search.since,
                until=until,
                topics=(topic,),
                limit=4 * limit,
                max_bytes=_MAX_BYTES,
            )
            search.take(await self._broker.read(span))
        if search.gap is GapReason.UNAVAILABLE or search.gap is GapReason.EPOCH:
            raise BrokerUnavailable(f"the history of {topic!r} cannot be read: {search.gap}.", fix="try again")
        return search.records

    def _message(self, partition: int, epoch: str, record: Record) -> StoredMessage:
        codec, data = open_envelope(record.payload)
        position = format_position(partition, epoch, record.offset or 0)
        return StoredMessage(topic=record.topic, data=self._codecs[codec].decode(data), pos=position)
