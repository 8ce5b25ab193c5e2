"""Joint reads for many clients that reconnect at the same time: one read of a partition instead of one per client.

While a read is in progress, further reads are queued. They are then joined into one read. If the joint read returns a
gap, the group is split in halves, by age. So one client that was away for too long does not cause a gap for the others.

No I/O: the caller does the reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Final, TypeAlias

from dws_core._log.cache import LogCache
from dws_core._log.records import GapReason, Head, ReadResult, ReadSpan, TopicMatch, WantedTopics
from dws_core._topics.wanted import WantedMatch, joined

Answered: TypeAlias = Iterable[tuple[ReadSpan, ReadResult]]

_SPLIT: Final = frozenset({GapReason.TRIMMED, GapReason.TOO_MANY, GapReason.UNREADABLE})
"""Gaps of a joint read that may not apply to its parts. All other gaps concern the log, so they apply to every part."""


class JointRead:
    """The reads of one partition, one at a time.

    Args:
        max_records: Maximum number of records of a joint read. A group that needs more is split.
        max_bytes: Maximum payload size of a joint read, in bytes. A group that needs more is split.
    """

    def __init__(self, *, max_records: int = 100_000, max_bytes: int = 67_108_864) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._waiting: dict[ReadSpan, None] = {}  # in order of arrival
        self._groups: deque[list[ReadSpan]] = deque()  # halves of a group whose joint read was a gap
        self._reading: tuple[ReadSpan, list[ReadSpan]] | None = None

    def add(self, span: ReadSpan) -> None:
        """Queue a read. All reads must be of the same partition."""
        self._waiting[span] = None

    def withdraw(self, span: ReadSpan) -> None:
        """Remove a queued read whose result is no longer needed. A read that is not queued is no error."""
        self._waiting.pop(span, None)

    def next_read(self) -> ReadSpan | None:
        """Return the next read. None if a read is in progress or the queue is empty."""
        if self._reading is not None:
            return None
        group = self._groups.popleft() if self._groups else self._of_one_epoch()
        if not group:
            return None
        joint = group[0] if len(group) == 1 else self._join(group)
        self._reading = joint, group
        return joint

    def answered(self, result: ReadResult) -> Answered:
        """Process the result of the read in progress. Return the queued reads that it completes, with their results.

        Each result is computed when it is iterated over, so that the caller may let others continue in between.
        """
        joint, group = self._end()
        if len(group) == 1 or (result.gap is not None and result.gap not in _SPLIT):
            return [(span, result) for span in group]
        if result.gap is not None:
            self._split(group)
            return []
        return _parts(joint, group, result)

    def failed(self) -> list[ReadSpan]:
        """Report that the read in progress raised. Return the queued reads that failed with it."""
        return self._end()[1]

    def _end(self) -> tuple[ReadSpan, list[ReadSpan]]:
        if self._reading is None:
            raise RuntimeError("no read is in progress")
        reading, self._reading = self._reading, None
        return reading

    def _of_one_epoch(self) -> list[ReadSpan]:
        """Remove and return the queued reads that can be joined: those with the epoch of the first one."""
        epoch = next((span.epoch for span in self._waiting), None)
        group = [span for span in self._waiting if span.epoch == epoch]
        for span in group:
            del self._waiting[span]
        return group

    def _join(self, group: list[ReadSpan]) -> ReadSpan:
        return ReadSpan(
            partition=group[0].partition,
            epoch=group[0].epoch,
            since=min(span.since for span in group),
            until=max(span.until for span in group),
            topics=_any_of([span.topics for span in group]),
            limit=min(self._max_records, sum(span.limit for span in group)),
            max_bytes=min(self._max_bytes, sum(span.max_bytes for span in group)),
        )

    def _split(self, group: list[ReadSpan]) -> None:
        by_age = sorted(group, key=_since)
        half = len(by_age) // 2
        self._groups.extendleft((by_age[:half], by_age[half:]))  # first the newer half, which is more likely to succeed


def _since(span: ReadSpan) -> int:
    return span.since


def _any_of(wanted: Iterable[WantedTopics]) -> WantedTopics:
    """Return the union of wanted topics: a set of topics, or a function if any of them is a function."""
    names: list[Iterable[str]] = []
    matches: dict[TopicMatch, None] = {}
    for topics in wanted:
        if callable(topics):
            matches[topics] = None
        else:
            names.append(topics)
    exact = frozenset(chain.from_iterable(names))
    if not matches:
        return exact
    of_filters = [match for match in matches if isinstance(match, WantedMatch)]
    return joined(of_filters, exact) if len(of_filters) == len(matches) else _match_any(exact, tuple(matches))


def _match_any(exact: frozenset[str], matches: tuple[TopicMatch, ...]) -> Callable[[str], bool]:
    def match(topic: str) -> bool:
        return topic in exact or any(wanted(topic) for wanted in matches)

    return match


def _parts(joint: ReadSpan, group: list[ReadSpan], result: ReadResult) -> Answered:
    """Split the result of a joint read into the results of its parts."""
    head = Head(partition=joint.partition, epoch=joint.epoch, offset=joint.since)
    index = LogCache(head, max_records=len(result.records), max_bytes=2**63, max_age_s=1.0)
    index.advance(joint.epoch, joint.since, joint.until, result.records, now=0.0)
    return ((span, _part(span, index)) for span in group)


def _part(span: ReadSpan, index: LogCache) -> ReadResult:
    records = index.read(span.since, span.until, span.topics) or ()
    if len(records) > span.limit or sum(len(record.payload) for record in records) > span.max_bytes:
        return ReadResult(gap=GapReason.TOO_MANY)
    return ReadResult(records=records)
