"""A plain broker, adapted as a log without history."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.brokers import PlainBroker
from support.timeouts import HANG_S
from unit._node.broker.plain_node import Node, Sink

from dws_core import BrokerClosed, BrokerError, BrokerOverloaded, BrokerUnavailable, PayloadTooLarge
from dws_core import PublishOutcomeUnknown as OutcomeUnknown
from dws_core._node.broker import plain_broker
from dws_core._node.broker.plain_broker import AdaptedBroker
from dws_core.plugin import (
    Backoff,
    BrokerURL,
    GapReason,
    Head,
    ReadSpan,
    Receipt,
    Record,
)

NOWHERE = Head(partition=0, epoch="0", offset=0)


@pytest.fixture(autouse=True)
def _come_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_broker, "Backoff", lambda: Backoff(lambda: 0.0))


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    node = await Node(PlainBroker()).start()
    yield node
    node.broker.inner.gate.set()  # type: ignore[attr-defined]  # a PlainBroker
    await node.broker.stop()


def _inner(node: Node) -> PlainBroker:
    assert isinstance(node.broker.inner, PlainBroker)
    return node.broker.inner


# -- publishing


async def test_message_reaches_every_node_in_order() -> None:
    """Each record carries its publisher and its sequence number."""
    a, b = await Node(PlainBroker("shared")).start(), await Node(PlainBroker("shared")).start()
    receipts = [await a.publish(b"1 json\n%d" % number) for number in range(3)]
    assert receipts == [Receipt(epoch="", offset=None)] * 3
    for node in (a, b):
        assert await node.heard(3) == [
            Record(offset=None, topic="t", payload=b"1 json\n%d" % n, ts_ms=0, publisher=b"12345678", seq=n + 1)
            for n in range(3)
        ]
        assert node.sink.told == ["live"]
    for node in (a, b):
        await node.broker.stop()


async def test_publish_outside_start_and_stop_is_rejected(node: Node) -> None:
    with pytest.raises(BrokerClosed, match="Fix: start the manager"):
        await Node(PlainBroker()).publish()
    await node.broker.stop()
    with pytest.raises(BrokerClosed):
        await node.publish()


async def test_oversized_payload_is_rejected(node: Node) -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        await node.publish(bytes(100_001))
    assert (caught.value.size_bytes, caught.value.limit_bytes) == (100_001, 100_000)


async def test_waiting_publishes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_broker, "_MAX_QUEUED", 2)
    node = await Node(PlainBroker()).start()
    _inner(node).gate.clear()
    written = node.publish()
    await _inner(node).at_gate.wait()
    waiting = [node.publish() for _ in range(2)]
    with pytest.raises(BrokerOverloaded, match="2 publishes are queued"):
        await node.publish()
    _inner(node).gate.set()
    await asyncio.gather(written, *waiting)
    await node.broker.stop()


async def test_publish_error_is_raised_and_next_succeeds(node: Node) -> None:
    own, foreign = BrokerUnavailable("the link is down."), OSError("broken pipe")
    _inner(node).publish_errors = [own, foreign]
    with pytest.raises(BrokerUnavailable) as caught:
        await node.publish()
    assert caught.value is own
    with pytest.raises(BrokerError, match="PlainBroker failed to publish: broken pipe") as wrapped:
        await node.publish()
    assert wrapped.value.__cause__ is foreign
    assert await node.publish() == Receipt(epoch="", offset=None)


async def test_cancelled_publish_does_not_affect_others(node: Node) -> None:
    _inner(node).gate.clear()
    _inner(node).publish_errors = [OSError("and it fails, too")]
    given_up = [node.publish(), node.publish()]
    await _inner(node).at_gate.wait()
    for future in given_up:
        future.cancel()
    _inner(node).gate.set()
    assert await node.publish(b"1 json\n2")
    assert (await node.heard(2))[-1].payload == b"1 json\n2"


# -- start and stop


async def test_failed_connect_is_unavailable_with_broker_name() -> None:
    inner = PlainBroker()
    refused = OSError("connection refused")
    inner.connect_errors = [refused, BrokerUnavailable("plain://h does not answer.")]
    with pytest.raises(BrokerUnavailable, match=r"PlainBroker could not connect: OSError: connection refused") as first:
        await Node(inner).start()
    assert first.value.__cause__ is refused
    with pytest.raises(BrokerUnavailable, match="plain://h does not answer"):
        await Node(inner).start()


async def test_stop_writes_queue_and_can_be_repeated(node: Node) -> None:
    receipts = [node.publish() for _ in range(3)]
    await node.broker.stop()
    await node.broker.stop()
    assert all(receipt.done() and receipt.result().offset is None for receipt in receipts)
    assert node.sink.told == ["live", "closed"]
    assert (await Node(PlainBroker()).broker.stop()) is None


async def test_unwritten_publishes_fail_at_drain_timeout(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """A publish in flight has an unknown outcome. A queued publish was not stored."""
    _inner(node).gate.clear()
    in_flight, waiting = node.publish(topic="t/1"), node.publish(topic="t/2")
    await _inner(node).at_gate.wait()
    await node.broker.stop(drain_s=0)
    assert "were still queued" in caplog.text
    assert in_flight.done(), "nobody may wait for it for ever"
    with pytest.raises(OutcomeUnknown, match="t/1"):
        await in_flight
    with pytest.raises(BrokerClosed):
        await waiting


async def test_failed_subscribe_disconnects_and_allows_restart() -> None:
    class Deaf(PlainBroker):
        disconnects = 0

        async def subscribe(self, channel: str) -> None:
            if not self.disconnects:
                raise OSError("no such channel")
            await super().subscribe(channel)

        async def disconnect(self) -> None:
            self.disconnects += 1
            await super().disconnect()
            if self.disconnects == 1:
                raise RuntimeError("and it does not end well, either")

    inner = Deaf()
    node = Node(inner)
    with pytest.raises(BrokerUnavailable, match="no such channel"):
        await node.start()
    assert inner.disconnects == 1
    await node.start()
    await node.publish()
    await node.broker.stop()


async def test_restarted_broker_starts_with_clean_state(node: Node) -> None:
    """Sequence numbers start at 1, and `stop` does not wait for publishes of the last run."""
    _inner(node).gate.clear()
    lost = [node.publish(), node.publish()]
    await _inner(node).at_gate.wait()
    await node.broker.stop(drain_s=0)
    await asyncio.gather(*lost, return_exceptions=True)
    _inner(node).gate.set()
    await node.start()
    await node.publish()
    assert [record.seq for record in await node.heard()] == [1]
    async with asyncio.timeout(HANG_S):
        await node.broker.stop(drain_s=5 * HANG_S)


def test_broker_restarts_on_another_event_loop() -> None:
    node = Node(PlainBroker())

    async def run() -> None:
        await node.start()
        await asyncio.gather(*(node.publish() for _ in range(3)))
        await node.broker.stop()

    for _ in range(2):
        node.sink = Sink()
        asyncio.run(run())


# -- reconnecting


async def test_broken_tail_reconnects_and_reports_gap(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    _inner(node).connect_errors = [BrokerUnavailable("still away."), BrokerUnavailable("still away.")]
    with caplog.at_level(logging.WARNING, logger="dws"):
        _inner(node).end_deliveries()
        await node.sink.until(lambda: node.sink.told.count("live") == 2)
    assert node.sink.told == ["live", "degraded", (GapReason.INTERRUPTED, NOWHERE), "live"]
    assert caplog.text.count("still away") == 2
    await node.publish()
    assert len(await node.heard()) == 1, "subscribed once, not twice"


class Recorded(PlainBroker):
    """Records its life cycle."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.disconnecting: list[Exception] = []

    async def connect(self) -> None:
        self.calls.append("connect")
        await super().connect()

    async def disconnect(self) -> None:
        self.calls.append("disconnect")
        await super().disconnect()
        if self.disconnecting:
            raise self.disconnecting.pop(0)

    async def subscribe(self, channel: str) -> None:
        self.calls.append("subscribe")
        await super().subscribe(channel)


async def test_broker_is_disconnected_before_each_attempt_to_connect(caplog: pytest.LogCaptureFixture) -> None:
    """A failed disconnect is logged and changes nothing."""
    inner = Recorded()
    node = await Node(inner).start()
    inner.connect_errors = [BrokerUnavailable("still away."), OSError("still away.")]
    inner.disconnecting = [ConnectionResetError("by peer")]
    inner.end_deliveries()
    await node.sink.until(lambda: node.sink.told.count("live") == 2)
    started, attempt = ["connect", "subscribe"], ["disconnect", "connect"]
    assert inner.calls == [*started, *attempt, *attempt, *attempt, "subscribe"]
    assert "broker Recorded failed to disconnect: ConnectionResetError('by peer')" in caplog.text
    await node.broker.stop()


async def test_failed_start_disconnects() -> None:
    inner = Recorded()
    inner.connect_errors = [OSError("refused")]
    inner.disconnecting = [OSError("refused, too")]
    with pytest.raises(BrokerUnavailable, match="OSError: refused"):
        await Node(inner).start()
    assert inner.calls == ["connect", "disconnect"]


async def test_hanging_disconnect_does_not_stop_reconnect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_broker, "_DISCONNECT_S", 0.0)

    class Hanging(PlainBroker):
        hangs = True

        async def disconnect(self) -> None:
            await super().disconnect()
            if self.hangs:
                await asyncio.Event().wait()

    inner = Hanging()
    node = await Node(inner).start()
    inner.end_deliveries()
    await node.sink.until(lambda: node.sink.told.count("live") == 2)
    inner.hangs = False
    await node.broker.stop()


async def test_publish_while_reconnecting_is_unavailable() -> None:
    class Away(PlainBroker):
        def __init__(self) -> None:
            super().__init__()
            self.back = asyncio.Event()
            self.back.set()

        async def connect(self) -> None:
            await self.back.wait()
            await super().connect()

    inner = Away()
    node = await Node(inner).start()
    inner.back.clear()
    inner.end_deliveries()
    await node.sink.until(lambda: "degraded" in node.sink.told)
    with pytest.raises(BrokerUnavailable, match="Away has lost its connection and is reconnecting"):
        await node.publish()
    inner.back.set()
    await node.sink.until(lambda: node.sink.told.count("live") == 2)
    assert await node.publish()
    await node.broker.stop()


async def test_stop_while_reconnecting_leaves_nothing_connected() -> None:
    class Late(Recorded):
        reached = False

        async def subscribe(self, channel: str) -> None:
            if self.calls.count("connect") > 1:
                self.reached = True
                await asyncio.Event().wait()
            await super().subscribe(channel)

    inner = Late()
    node = await Node(inner).start()
    inner.end_deliveries()
    async with asyncio.timeout(10):
        while not inner.reached:  # noqa: ASYNC110 -- the broker reports no state at this point
            await asyncio.sleep(0)
    await node.broker.stop()
    assert inner.calls[-1] == "disconnect"


async def test_deliveries_error_is_logged_and_tail_restarts(caplog: pytest.LogCaptureFixture) -> None:
    class Breaking(PlainBroker):
        breaks = True

        async def deliveries(self) -> AsyncIterator[Any]:
            if self.breaks:
                self.breaks = False
                raise ConnectionResetError("by peer")
            async for delivery in super().deliveries():
                yield delivery

    with caplog.at_level(logging.WARNING, logger="dws"):
        node = await Node(Breaking()).start()
        await node.sink.until(lambda: node.sink.told.count("live") == 2)
    assert "ConnectionResetError('by peer')" in caplog.text
    await node.broker.stop()


async def test_foreign_payload_is_logged_and_skipped(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    await _inner(node).publish("chat", b"\xc1 not ours")
    await node.publish(b"1 json\n2")
    assert [record.payload for record in await node.heard()] == [b"1 json\n2"]
    assert "channel 'chat' delivered 10 bytes" in caplog.text


# -- features that a plain broker does not have


async def test_plain_broker_has_no_history_and_one_partition(node: Node) -> None:
    assert await node.broker.set_interest(frozenset({0})) == await node.broker.heads([0]) == {0: NOWHERE}
    result = await node.broker.read(
        ReadSpan(partition=0, since=0, until=1, epoch="0", topics=["t"], limit=1, max_bytes=1)
    )
    assert (result.gap, list(result.records)) == (GapReason.UNSUPPORTED, [])
    await node.broker.send_control(b"nobody hears it")
    assert not node.broker.capabilities.recovery
    with pytest.raises(NotImplementedError):
        AdaptedBroker.from_url(BrokerURL.parse("x://"))
