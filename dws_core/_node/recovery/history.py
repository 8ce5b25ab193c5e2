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
"""Payload bytes of one look into the past."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMessage:
    """A message that the broker keeps.

    Attributes:
        topic: What it was published to.
        data: Any JSON value.
        pos: Where it stands, as clients see it.
    """

    topic: str
    data: JSON
    pos: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What a topic's history said.

    Attributes:
        messages: Oldest first.
        cursor: Up to where this was everything.
    """

    messages: list[StoredMessage]
    cursor: str


class HistoryReader:
    """Reads a topic's last messages: from the node's own memory where that is enough, else from the broker.

    Args:
        broker: Where the logs are.
        layout: Of the channel.
        logs: What the node knows.
        policy: How much of a topic is kept.
        codecs: Of the node, by name.
        max_messages: Of one answer; None: no limit.
    """

    def __init__(
        self,
        broker: LogBroker,
        layout: Layout,
        logs: LogCaches,
        policy: HistoryPolicy,
        codecs: Mapping[str, Codec],
        max_messages: int | None,
    ) -> None:
        self._broker = broker
        self._layout = layout
        self._logs = logs
        self._policy = policy
        self._codecs = codecs
        self._max_messages = max_messages

    async def read(self, topic: str, limit: int, *, fresh: bool = False) -> Past:
        """Return the last messages of a topic that are kept, up to the node's watermark.

        Args:
            topic: Without wildcards.
            limit: At most so many, and at most as many as the node allows and the topic's history keeps.
            fresh: Up to the log's end instead: all that was acknowledged before the call. Asks the broker.

        Raises:
            BrokerUnavailable: The broker keeps no history, or it could not be read, or was lost meanwhile.
        """
        if not self._broker.capabilities.recovery:
            raise BrokerUnavailable("this channel's broker keeps no history.", fix="use a broker with a log")
        log = self._logs[partition_of(topic, self._layout)]
        epoch, until = await self._end(log) if fresh else (log.epoch, log.hi)
        kept = self._policy.of(topic)
        limit = min(limit, kept.size, self._max_messages or limit)
        # What is kept for a shorter time than the node remembers, only the broker knows.
        remembered = epoch == log.epoch and kept.ttl_s >= log.max_age_s
        recent = log.read(log.lo, until, (topic,)) if remembered else None
        records = tuple(recent or ())[-limit:] if limit else ()
        if len(records) < limit:
            records = await self._look_back(log.partition, epoch, until, topic, limit)
        return Past(
            messages=[self._message(log.partition, epoch, record) for record in records],
            cursor=format_position(log.partition, epoch, until),
        )

    async def _end(self, log: LogCache) -> tuple[str, Offset]:
        head = (await self._broker.heads((log.partition,)))[log.partition]
        return head.epoch, head.offset

    async def _look_back(self, partition: int, epoch: str, until: Offset, topic: str, limit: int) -> tuple[Record, ...]:
        lookback = LastMessages(until, limit)
        while not lookback.done:
            lookback.take(
                await self._broker.read(
                    ReadSpan(
                        partition=partition,
                        since=lookback.since,
                        until=until,
                        epoch=epoch,
                        topics=(topic,),
                        limit=4 * limit,
                        max_bytes=_MAX_BYTES,
                    )
                )
            )
        if lookback.gap is GapReason.UNAVAILABLE or lookback.gap is GapReason.EPOCH:
            raise BrokerUnavailable(f"the history of {topic!r} cannot be read: {lookback.gap}.", fix="try again")
        return lookback.records

    def _message(self, partition: int, epoch: str, record: Record) -> StoredMessage:
        codec, data = open_envelope(record.payload)
        position = format_position(partition, epoch, record.offset or 0)
        return StoredMessage(topic=record.topic, data=self._codecs[codec].decode(data), pos=position)
