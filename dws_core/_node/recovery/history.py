"""The last messages of one topic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from dws_core._errors import BrokerUnavailable
from dws_core._log.cache import LogCache
from dws_core._log.contract import LogBroker
from dws_core._log.last_messages import LastMessages
from dws_core._log.partition import partition_of
from dws_core._log.policy import HistoryPolicy
from dws_core._log.records import GapReason, Head, Layout, Offset, ReadSpan, Record
from dws_core._node.recovery.log_caches import LogCaches
from dws_core._node.sending.shared_message import log_skipped
from dws_core._wire.codecs import Codec
from dws_core._wire.cursor import format_position
from dws_core._wire.envelope import open_envelope, sender_of
from dws_core._wire.message import JSON

_UNLIMITED: Final = 2**62


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The last records of a topic.

    Attributes:
        partition: Partition of the topic.
        epoch: Epoch of the partition.
        until: Offset up to which the records are complete.
        records: Oldest first.
        read_bytes: Payload size of all records that were read to find them, in bytes.
    """

    partition: int
    epoch: str
    until: Offset
    records: tuple[Record, ...]
    read_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """A message of a topic's history.

    Attributes:
        topic: Topic of the message.
        data: Any JSON value.
        pos: Position in the log, in the form that clients receive.
        sender: Id of the client that published it. None if an application published it, or senders are not stamped.
    """

    topic: str
    data: JSON
    pos: str
    sender: str | None = None


class StoredMessages(list[StoredMessage]):
    """The last messages of a topic, oldest first: a list with a cursor.

    Attributes:
        cursor: Cursor after the last message. A client that sends it with `connect` or `subscribe` for this topic continues
            without a hole and without repeats.
        skipped: Number of messages that cannot be read, and are left out.
        read_bytes: Payload size of all records that were read to find the messages, in bytes.
    """

    def __init__(self, messages: Iterable[StoredMessage] = (), *, cursor: str, skipped: int, read_bytes: int) -> None:
        super().__init__(messages)
        self.cursor: str = cursor
        self.skipped: int = skipped
        self.read_bytes: int = read_bytes


class HistoryReader:
    """Reads a topic's last messages: from the node's cache if that is enough, otherwise from the broker.

    Args:
        broker: Reads the logs.
        layout: Layout of the channel.
        caches: The node's view of the logs.
        policy: History settings by topic.
        codecs: The node's codecs by name.
        max_messages: Maximum number of messages of one answer. If None, there is no limit.
        max_bytes: Maximum payload size of one answer, in bytes. If None, there is no limit.
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
        max_bytes: int | None,
    ) -> None:
        self._broker = broker
        self._layout = layout
        self._caches = caches
        self._policy = policy
        self._codecs = codecs
        self._max_messages = max_messages
        self._max_bytes = max_bytes or _UNLIMITED

    @property
    def is_kept(self) -> bool:
        """Whether the broker keeps a history. This is certain only after its start."""
        return self._broker.capabilities.recovery

    async def read(self, topic: str, limit: int, *, fresh: bool = False) -> StoredMessages:
        """Return the last stored messages of a topic, up to the node's watermark: the newest ones that fit.

        Args:
            topic: A topic without wildcards.
            limit: Maximum number of messages. The node's limit and the topic's history also apply.
            fresh: Whether to read up to the end of the log, which includes every message acknowledged before the call.
                Asks the broker.

        Raises:
            BrokerUnavailable: The broker keeps no history, or cannot be read, or lost its log during the call.
        """
        if not self.is_kept:
            raise BrokerUnavailable("this channel's broker keeps no history.", fix="use a broker with a log")
        end = await self._end(topic) if fresh else None
        found = self.cached(topic, limit, end) or await self.search(topic, limit, end)
        messages = [message for record in found.records if (message := self._message(found, record)) is not None]
        return StoredMessages(
            messages,
            cursor=format_position(found.partition, found.epoch, found.until),
            skipped=len(found.records) - len(messages),
            read_bytes=found.read_bytes,
        )

    def cached(self, topic: str, limit: int, end: Head | None = None) -> Found | None:
        """Return the last records of a topic up to `end`, as `read`. None if the cache does not have them all.

        If `end` is None, it is the node's watermark.
        """
        cache = self._cache_of(topic)
        end = end or cache.head
        kept, limit = self._policy.of(topic), self._limit(topic, limit)
        # Only the broker can answer for a topic whose history is shorter than the age of the cache.
        if limit and (end.epoch != cache.epoch or kept.ttl_s < cache.max_age_s):
            return None
        records = cache.last(topic, end.offset, limit=limit, max_bytes=self._max_bytes)
        return None if records is None else _found(end, records, sum(len(record.payload) for record in records))

    async def search(self, topic: str, limit: int, end: Head | None = None) -> Found:
        """Read the last records of a topic up to `end` from the broker.

        Raises:
            BrokerUnavailable: The broker cannot be read, or lost its log during the call.
        """
        end = end or self._cache_of(topic).head
        search = LastMessages(end.offset, self._limit(topic, limit))
        read_bytes = await self._read_broker(search, end.partition, end.epoch, topic)
        return _found(end, search.records, read_bytes)

    def _cache_of(self, topic: str) -> LogCache:
        return self._caches[partition_of(topic, self._layout)]

    def _limit(self, topic: str, limit: int) -> int:
        return min(limit, self._policy.of(topic).size, self._max_messages or limit)

    async def _end(self, topic: str) -> Head:
        partition = partition_of(topic, self._layout)
        return (await self._broker.heads((partition,)))[partition]

    async def _read_broker(self, search: LastMessages, partition: int, epoch: str, topic: str) -> int:
        """Carry out a search. Return the payload size of all records that were read, in bytes."""
        read_bytes = 0
        while not search.done:
            span = ReadSpan(
                partition=partition,
                epoch=epoch,
                since=search.since,
                until=search.until,
                topics=(topic,),
                limit=4 * search.limit,
                max_bytes=self._max_bytes,
            )
            result = await self._broker.read(span)
            read_bytes += sum(len(record.payload) for record in result.records)
            search.take(result)
        if search.gap is GapReason.EPOCH:
            raise BrokerUnavailable(f"the history of {topic!r} cannot be read: {search.gap}.", fix="try again")
        return read_bytes

    def _message(self, found: Found, record: Record) -> StoredMessage | None:
        position = format_position(found.partition, found.epoch, record.offset or 0)
        try:
            codec, encoded = open_envelope(record.payload)
            data = self._codecs[codec].decode(encoded)
        except Exception as error:  # noqa: BLE001 -- a plugin's codec may raise anything
            log_skipped(record, None, error)
            return None
        return StoredMessage(topic=record.topic, data=data, pos=position, sender=sender_of(record.payload))


def _found(end: Head, records: tuple[Record, ...], read_bytes: int) -> Found:
    return Found(partition=end.partition, epoch=end.epoch, until=end.offset, records=records, read_bytes=read_bytes)
