"""Broker suite, logs only: reads from the history, and gaps."""

from __future__ import annotations

import asyncio
import random

from dws_core.plugin import GapReason, History, LogBroker, ReadResult, Receipt
from dws_core.testing.suites.broker.base import BrokerBase, OpenPeer
from dws_core.testing.suites.peers import LogPeer
from dws_core.testing.suites.selection import needs

_NOISE = 10_000
"""Number of messages of other topics, for a busy partition."""

_RETENTION = (
    "Fix: apply the size and the TTL of `History` to each topic, or set `per_topic_retention=False` in the capabilities"
)
_EXACT = "Fix: find out whether a record of a wanted topic was dropped, or set `exact_gap=False` in the capabilities"


class BrokerHistoryTests(BrokerBase):
    """A read returns all records or a gap, and never a part of the records."""

    @needs("log", "recovery")
    async def test_read_returns_all_records_after_any_offset(self, open_peer: OpenPeer) -> None:
        a, b = await _open_two(open_peer)
        start = await a.head("t")
        sent = await a.send_all(["t", "other", "t", "t", "other", "t"])
        places = [start.offset, *(receipt.offset or 0 for receipt in sent)]
        for node in (a, b):
            for number, since in enumerate(places):
                result = await node.read_after(["t"], since, epoch=start.epoch)
                _check_records(result, ["t"], since, [b"%d" % n for n in (0, 2, 3, 5) if n >= number])

    @needs("log", "recovery", "per_topic_retention")
    async def test_history_size_bounds_complete_reads(self, open_peer: OpenPeer) -> None:
        """A read that needs one more record than the history keeps is a gap."""
        a, b = await _open_two(open_peer)
        places = await a.send_all(["t"] * 10, history=History(size=5))
        for node in (a, b):
            since = _offset(places[4])
            result = await node.read_after(["t"], since, epoch=places[0].epoch)
            _check_records(result, ["t"], since, [b"5", b"6", b"7", b"8", b"9"])
            since = _offset(places[3])
            result = await node.read_after(["t"], since, epoch=places[0].epoch)
            _check_gap(result, ["t"], since, GapReason.TRIMMED, _RETENTION)
            result = await node.read_after(lambda _: True, 0, epoch=places[0].epoch)
            _check_gap(result, "all topics", 0, GapReason.TRIMMED, _RETENTION)

    @needs("log", "recovery", "per_topic_retention")
    async def test_expired_record_is_gap_only_if_missed(self, open_peer: OpenPeer) -> None:
        a, b = await _open_two(open_peer)
        start = await a.send("t", b"before", history=History(size=10, ttl_s=0.05))
        last = await a.send("t", b"short-lived", history=History(size=10, ttl_s=0.05))
        for node in (a, b):

            async def is_gone(node: LogPeer = node) -> bool:
                result = await node.read_after(["t"], _offset(start), epoch=start.epoch)
                return (result.gap, result.records) == (GapReason.TRIMMED, ())

            await node.poll_until(is_gone, f"the gap 'trimmed' after the `ttl_s` of a message, 0.05 s. {_RETENTION}")
            result = await node.read_after(["t"], _offset(last), epoch=last.epoch)
            _check_records(result, ["t"], _offset(last), [])

    @needs("log", "recovery")
    async def test_offset_of_other_epoch_is_gap(self, open_peer: OpenPeer) -> None:
        a, b = await _open_two(open_peer)
        sent = await a.send("t", b"x")
        for node in (a, b):
            for since in (0, _offset(sent)):
                _check_gap(await node.read_after(["t"], since, epoch="0foreign0"), ["t"], since, GapReason.EPOCH)

    @needs("log", "recovery")
    async def test_offset_beyond_head_is_gap(self, open_peer: OpenPeer) -> None:
        a, b = await _open_two(open_peer)
        sent = await a.send("t", b"x")
        for node in (a, b):
            since = _offset(sent) + 1000
            result = await node.read_after(["t"], since, epoch=sent.epoch, until=since + 1)
            _check_gap(result, ["t"], since, GapReason.AHEAD)

    @needs("log", "recovery")
    async def test_quiet_topic_is_complete_in_busy_partition(
        self, open_peer: OpenPeer, broker_class: type[LogBroker]
    ) -> None:
        a, b = await _open_two(open_peer)
        noise = History(size=5 if broker_class.capabilities.exact_gap else 2 * _NOISE)
        start = await a.send("quiet", b"before")
        await a.send("quiet", b"missed")
        await a.send_all([f"noise/{number % 7}" for number in range(_NOISE)], history=noise)
        for topic, expected in (("quiet", [b"missed"]), ("never", [])):
            result = await b.read_after([topic], _offset(start), epoch=start.epoch)
            _check_records(result, [topic], _offset(start), expected, _EXACT)

    @needs("log", "recovery")
    async def test_read_from_watermark_returns_nothing(self, open_peer: OpenPeer) -> None:
        a, b = await _open_two(open_peer)
        await a.send_all([f"noise/{number % 7}" for number in range(_NOISE // 10)], history=History(size=5))
        head = await a.head("t")
        await b.until(lambda: b.sink.positions[0] == (head.epoch, head.offset), "the watermark to reach the head")
        result = await b.read_after(lambda _: True, head.offset, epoch=head.epoch)
        _check_records(result, "all topics", head.offset, [])

    @needs("log", "recovery")
    async def test_wildcard_read_finds_new_topics(self, open_peer: OpenPeer) -> None:
        a, b = await _open_two(open_peer)
        start = await a.send("room/old", b"x")
        await a.send_all(["room/old", "room/new", "elsewhere", "room/newer"])
        result = await b.read_after(lambda topic: topic.startswith("room/"), _offset(start), epoch=start.epoch)
        found = [(record.topic, record.payload) for record in result.records]
        assert found == [("room/old", b"0"), ("room/new", b"1"), ("room/newer", b"3")]

    @needs("log", "recovery")
    async def test_read_over_limit_is_gap_without_records(self, open_peer: OpenPeer) -> None:
        a, b = await _open_two(open_peer)
        start = await a.head("t")
        for _ in range(10):
            await a.send("t", b"x" * 100)
        for limit, max_bytes, complete in ((10, 1000, True), (9, 1000, False), (10, 999, False)):
            result = await b.read_after(["t"], start.offset, epoch=start.epoch, limit=limit, max_bytes=max_bytes)
            if complete:
                _check_records(result, ["t"], start.offset, [b"x" * 100] * 10)
            else:
                _check_gap(result, ["t"], start.offset, GapReason.TOO_MANY)

    @needs("log", "recovery")
    async def test_empty_topic_has_position_to_resume_from(self, open_peer: OpenPeer) -> None:
        a, b = await _open_two(open_peer)
        head = await b.head("new")
        _check_records(await b.read_after(["new"], head.offset, epoch=head.epoch), ["new"], head.offset, [])
        await a.send("new", b"first")
        _check_records(await b.read_after(["new"], head.offset, epoch=head.epoch), ["new"], head.offset, [b"first"])

    @needs("log", "recovery")
    async def test_read_during_publishes_is_complete(self, open_peer: OpenPeer) -> None:
        a, b = await _open_two(open_peer)
        rng = random.Random(2024)  # noqa: S311 -- the same values in every run
        stored: list[tuple[int, str, bytes]] = []
        start = await a.send("t/0", b"before")

        async def publish() -> None:
            for _ in range(40):
                topics = [f"t/{rng.randrange(3)}" for _ in range(10)]
                receipts = await a.send_all(topics)
                stored.extend((_offset(r), t, b"%d" % n) for n, (r, t) in enumerate(zip(receipts, topics, strict=True)))
                await asyncio.sleep(0)

        async def read() -> None:
            while len(stored) < 400:
                await asyncio.sleep(0)
                since = rng.choice(stored)[0] if stored else _offset(start)
                until = stored[-1][0] if stored else since
                expected = [(o, p) for o, t, p in stored if since < o <= until and t == "t/1"]
                result = await b.read_after(["t/1"], since, epoch=start.epoch, until=until)
                _check_records(result, ["t/1"], since, [payload for _, payload in expected])
                assert [record.offset for record in result.records] == [offset for offset, _ in expected]

        async with asyncio.TaskGroup() as group:
            group.create_task(publish())
            group.create_task(read())


async def _open_two(open_peer: OpenPeer) -> tuple[LogPeer, LogPeer]:
    """Open two nodes with a single partition, so that all topics share one log."""
    return await open_peer(partitions=1), await open_peer(partitions=1)


def _offset(receipt: Receipt) -> int:
    assert receipt.offset is not None, "a message with history has an offset"
    return receipt.offset


def _payloads(result: ReadResult) -> list[bytes]:
    return [record.payload for record in result.records]


def _check_records(
    result: ReadResult, topics: list[str] | str, since: int, expected: list[bytes], fix: str = ""
) -> None:
    read = f"the read of {topics} after offset {since}"
    reason = result.gap and result.gap.value
    assert result.gap is None, (
        f"{read} is the gap {reason!r}, but none of its {len(expected)} records is missing. {fix}"
    )
    assert _payloads(result) == expected, f"{read} must return {len(expected)} records, not {len(result.records)}"


def _check_gap(result: ReadResult, topics: list[str] | str, since: int, reason: GapReason, fix: str = "") -> None:
    found = f"the gap {result.gap.value!r}" if result.gap else f"{len(result.records)} records"
    assert (result.gap, result.records) == (reason, ()), (
        f"the read of {topics} after offset {since} must be the gap {reason.value!r} without records, not {found}. {fix}"
    )
