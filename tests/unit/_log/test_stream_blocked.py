"""A stream broker whose server raises an alarm: it reports the state, and loses and repeats nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import ClassVar

import pytest
from support.streams import MemoryServer, MemoryWire
from support.timeouts import HANG_S

from dws_core.plugin import (
    BrokerError,
    BrokerUnavailable,
    BrokerURL,
    History,
    Layout,
    LogCapabilities,
    PublishOutcomeUnknown,
    StreamLogBroker,
    StreamSettings,
    StreamWire,
    WireBlocked,
)
from dws_core.testing.suites.recording_sink import RecordingSink


class AlarmedWire(MemoryWire):
    """A wire whose server can raise an alarm. An append that was sent before is stored when the alarm ends."""

    alarm: ClassVar[bool] = False
    sent: ClassVar[list[tuple[AlarmedWire, int, bytes]]] = []
    tells_late: ClassVar[bool] = False

    async def append(self, partition: int, data: bytes) -> int | None:
        if not AlarmedWire.alarm:
            for wire, number, earlier in AlarmedWire.sent:
                if wire is self:
                    await MemoryWire.append(self, number, earlier)
            AlarmedWire.sent.clear()
            return await super().append(partition, data)
        if AlarmedWire.tells_late:
            AlarmedWire.sent.append((self, partition, data))
        raise WireBlocked("an alarm", sent=AlarmedWire.tells_late)


class AlarmedBroker(StreamLogBroker):
    capabilities: ClassVar[LogCapabilities] = LogCapabilities(durable="none", cross_process=False)
    settings = StreamSettings(retry_s=0.5, probe_s=0.1, dead_s=0.5)

    def __init__(self) -> None:
        super().__init__(BrokerURL.parse("alarmed://"))
        self.server = MemoryServer()

    def wire(self) -> StreamWire:
        return AlarmedWire(self.server, quiet=True)


@pytest.fixture(autouse=True)
def _no_alarm() -> None:
    AlarmedWire.alarm = AlarmedWire.tells_late = False
    AlarmedWire.sent.clear()


@pytest.fixture
async def node() -> AsyncIterator[tuple[AlarmedBroker, RecordingSink]]:
    broker, sink = AlarmedBroker(), RecordingSink()
    await start(broker, sink)
    sink.expect_interest(frozenset({0}))
    await broker.set_interest(frozenset({0}))
    yield broker, sink
    await broker.stop(drain_s=0.1)
    assert sink.violations == []


async def start(broker: AlarmedBroker, sink: RecordingSink) -> None:
    await broker.start(node=b"publishe", layout=Layout(channel="c"), sink=sink)


async def until(sink: RecordingSink, happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANG_S):
        while not happened():
            sink.changed.clear()
            await sink.changed.wait()


@pytest.mark.parametrize("tells_late", [False, True])
async def test_publishes_during_alarm_are_stored_once(
    node: tuple[AlarmedBroker, RecordingSink], tells_late: bool
) -> None:
    broker, sink = node
    AlarmedWire.alarm, AlarmedWire.tells_late = True, tells_late
    futures = [broker.publish(0, "t", b"%d" % n, history=History(), deadline_s=HANG_S) for n in range(200)]
    await until(sink, lambda: sink.states[-1] == "blocked")
    AlarmedWire.alarm = False
    async with asyncio.timeout(HANG_S):
        await asyncio.gather(*futures)
    assert [record.payload for record in sink.records] == [b"%d" % n for n in range(200)]
    assert sink.states == ["live", "blocked", "live"]
    assert sink.discontinuities == []


@pytest.mark.parametrize(("tells_late", "error"), [(False, BrokerUnavailable), (True, PublishOutcomeUnknown)])
async def test_expired_publish_reports_whether_it_was_sent(
    node: tuple[AlarmedBroker, RecordingSink], tells_late: bool, error: type[BrokerError]
) -> None:
    broker, _ = node
    AlarmedWire.alarm, AlarmedWire.tells_late = True, tells_late
    with pytest.raises(error):
        await broker.publish(0, "t", b"x", history=History(), deadline_s=0.05)


async def test_reconnecting_node_waits_for_end_of_alarm(node: tuple[AlarmedBroker, RecordingSink]) -> None:
    broker, sink = node
    AlarmedWire.alarm = True
    broker.server.cut()
    await until(sink, lambda: sink.states[-1] == "blocked")
    AlarmedWire.alarm = False
    await until(sink, lambda: sink.states[-1] == "live")
    assert sink.states == ["live", "degraded", "blocked", "live"]


async def test_start_during_alarm_is_unavailable() -> None:
    AlarmedWire.alarm = True
    with pytest.raises(BrokerUnavailable, match="an alarm"):
        await start(AlarmedBroker(), RecordingSink())
