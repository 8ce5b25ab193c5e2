"""The logs of the simulated world in `model_world`, written to be small and obviously correct."""

from __future__ import annotations

from dws_core._log.partition import partition_of
from dws_core._log.records import GapReason, Head, Layout, Offset, ReadResult, Record, WantedTopics

PARTITIONS = 2
LAYOUT = Layout(channel="c", partitions=PARTITIONS)
PLACE = {topic: partition_of(topic, LAYOUT) for topic in "ade"}
"""Topics and their partitions. Only `a` has its own partition."""


class Log:
    """One partition, as the broker stores it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.epoch = "e0"
        self.records: list[Record] = []
        self.end: Offset = 0
        self.trimmed: Offset = 0
        self.wipes = 0

    @property
    def head(self) -> Head:
        return Head(partition=self.number, epoch=self.epoch, offset=self.end)

    def publish(self, topic: str) -> Record:
        self.end += 1
        record = Record(offset=self.end, topic=topic, payload=b"", ts_ms=0, publisher=b"p", seq=self.end)
        self.records.append(record)
        return record

    def trim(self, count: int) -> None:
        for record in self.records[:count]:
            self.trimmed = record.offset or 0
        del self.records[:count]

    def wipe(self) -> None:
        self.wipes += 1
        self.epoch, self.records, self.end, self.trimmed = f"e{self.wipes}", [], 0, 0

    def read(self, since: Offset, until: Offset, epoch: str, topics: WantedTopics) -> ReadResult:
        if epoch != self.epoch:
            return ReadResult(gap=GapReason.EPOCH)
        if self.end < since:
            return ReadResult(gap=GapReason.AHEAD)
        if since < self.trimmed:
            return ReadResult(gap=GapReason.TRIMMED)
        match = topics if callable(topics) else topics.__contains__
        return ReadResult(records=tuple(r for r in self.records if since < (r.offset or 0) <= until and match(r.topic)))


Push = tuple[int, str, Offset, Offset, tuple[Record, ...]]
