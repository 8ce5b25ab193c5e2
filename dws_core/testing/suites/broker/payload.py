"""Broker suite: payloads and topics arrive unchanged."""

from __future__ import annotations

import random

import pytest

from dws_core.plugin import PayloadTooLarge, Record
from dws_core.testing.suites.broker.base import BrokerBase, OpenPeer
from dws_core.testing.suites.peers import LogPeer, PlainPeer
from dws_core.testing.suites.selection import needs

_TOPICS = [
    "chat/lobby",
    "/",
    "a//b",
    "*",
    "a?b",
    "[a-z]",
    "a.b.c",
    "%2F%",
    "$conn/1",
    "with spaces and\ttabs\r\n",
    "é/日本/🙂",
    "x" * 200,
    "h:{t}:!",
]


def _payloads() -> list[bytes]:
    rng = random.Random(20_24)  # noqa: S311 -- the same payloads in every run
    fixed = [b"", b"\0", b"\0\0a\0", bytes(range(256)), b"\xff\xfe\xfa", b"\r\n", b"{", "é🙂".encode()]
    return fixed + [rng.randbytes(rng.randrange(1, 4096)) for _ in range(30)]


class BrokerPayloadTests(BrokerBase):
    """Payloads and names arrive unchanged. The size limit is enforced."""

    @needs("", "ordering!=none")
    async def test_any_bytes_arrive_unchanged(self, open_peer: OpenPeer) -> None:
        a, b = await open_peer(), await open_peer()
        sent = _payloads()
        for payload in sent:
            await a.publish(payload)
        assert _differences(sent, await b.receive(len(sent))) == []

    async def test_payload_limit_is_exact(self, open_peer: OpenPeer) -> None:
        a, b = await open_peer(), await open_peer()
        limit = a.broker.capabilities.max_payload_bytes
        largest = random.Random(1).randbytes(limit)  # noqa: S311 -- the same payload in every run
        with pytest.raises(PayloadTooLarge) as caught:
            await a.publish(largest + b"x")
        assert (caught.value.size_bytes, caught.value.limit_bytes) == (limit + 1, limit)
        await a.publish(largest)
        assert _differences([largest], await b.receive(1)) == []

    @needs("plain")
    async def test_messages_of_many_channels_do_not_mix(self, open_peer: OpenPeer, channel: str) -> None:
        a, b = await open_peer(), await open_peer()
        assert isinstance(b, PlainPeer)
        names = [f"{channel}-{number}" for number in range(200)]
        for name in names:
            await b.within(b.broker.subscribe(name))
        for name in names:
            await a.within(a.broker.publish(name, name.encode()))
        await b.receive(len(names))
        assert {(d.channel, d.payload.decode()) for d in b.deliveries} == {(name, name) for name in names}

    @needs("log")
    async def test_any_topic_arrives_unchanged(self, open_peer: OpenPeer) -> None:
        a: LogPeer = await open_peer()
        b: LogPeer = await open_peer()
        topics = [t for t in _TOPICS if len(t.encode()) <= b.broker.capabilities.max_topic_bytes]
        topics.append("t" * b.broker.capabilities.max_topic_bytes)
        for topic in topics:
            await a.send(topic, topic.encode())
        await b.receive(len(topics))
        assert [(r.topic, r.payload.decode()) for r in _sorted(b)] == sorted((t, t) for t in topics)

    @needs("log")
    async def test_record_has_publisher_and_growing_sequence(self, open_peer: OpenPeer) -> None:
        a: LogPeer = await open_peer()
        b: LogPeer = await open_peer()
        for number in range(5):
            await a.send("t", b"%d" % number)
        await b.receive(5)
        assert {r.publisher for r in b.records} == {a.id}
        seqs = [r.seq for r in b.records]
        assert seqs == sorted(set(seqs))
        assert seqs[0] >= 1
        assert all(r.ts_ms > 1_500_000_000_000 for r in b.records), "ts_ms must be in milliseconds since 1970"


def _differences(sent: list[bytes], received: list[bytes]) -> list[str]:
    """Describe where payloads differ. pytest needs minutes for a complete diff of long random bytes."""
    pairs = enumerate(zip(sent, received, strict=True))
    return [f"payload {number}: {_difference(a, b)}" for number, (a, b) in pairs if a != b]


def _difference(sent: bytes, received: bytes) -> str:
    at = next(
        (n for n, (a, b) in enumerate(zip(sent, received, strict=False)) if a != b), min(len(sent), len(received))
    )
    return f"{received[at : at + 20]!r} instead of {sent[at : at + 20]!r} at byte {at} of {len(sent)}"


def _sorted(peer: LogPeer) -> list[Record]:
    """Return the records sorted by topic, because the order between partitions is undefined."""
    return sorted(peer.records, key=lambda record: (record.topic, record.payload))
