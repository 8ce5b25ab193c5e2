from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest
from support.stream_nodes import HANG, ControlledWire, StreamDesk, TroubledWire, UnstoredWire
from support.virtual_time import virtual

from dws_core._errors import BrokerClosed, BrokerMisconfigured, BrokerUnavailable, LayoutMismatch
from dws_core._log.records import Layout
from dws_core._log.stream.envelope import Envelope, Kind, encode
from dws_core._log.stream.lane import to_all
from dws_core._log.stream.wire import StreamWire, WireBlocked, WireInfo, WireLost, WireUnusable


@pytest.mark.parametrize(
    ("trouble", "error", "text"),
    [
        (WireLost("connection refused"), BrokerUnavailable, "connection refused"),
        (WireUnusable("no permission"), BrokerMisconfigured, "no permission"),
        (LayoutMismatch("4 partitions.", fix="use 4"), LayoutMismatch, "4 partitions"),
        (HANG, BrokerUnavailable, "does not answer"),
        (ValueError("a defect"), BrokerUnavailable, "ValueError"),
    ],
)
@virtual
async def test_start_fails_with_the_reason(trouble: object, error: type[Exception], text: str) -> None:
    desk = StreamDesk()
    desk.troubles.next["open"].append(trouble)
    with pytest.raises(error, match=text) as caught:
        await desk.start()
    assert "secret" not in str(caught.value)
    await desk.start()
    assert (await desk.publish()).offset, "it can be started after all"
    await desk.broker.stop()


@virtual
async def test_wire_that_cannot_be_made_fails_the_start() -> None:
    class Broken(StreamDesk):
        pass

    desk = Broken()

    def wire() -> StreamWire:
        raise RuntimeError("an option is missing")

    desk.broker.wire = wire  # type: ignore[method-assign]
    with pytest.raises(BrokerUnavailable, match="an option is missing"):
        await desk.start()


@virtual
async def test_cancelled_start_leaves_nothing() -> None:
    desk = StreamDesk()
    desk.troubles.next["open"].append(HANG)
    starting = asyncio.get_running_loop().create_task(desk.start())
    await asyncio.sleep(0.1)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting


@virtual
async def test_states_follow_the_connection() -> None:
    async with StreamDesk() as desk:
        await desk.cut()
        states = [state for state, _ in desk.sink.states]
        assert states == ["live", "degraded", "live"]
        assert desk.sink.states[1][1].endswith("the connection was cut")
    assert desk.sink.states[-1] == ("closed", "stopped")


@virtual
async def test_defect_of_a_wire_is_logged_and_repaired(caplog: pytest.LogCaptureFixture) -> None:
    async with StreamDesk() as desk:
        desk.troubles.next["followed"].append(ValueError("a defect"))
        await desk.publish(b"a")
        await desk.sink.reports("live")
        assert desk.sink.payloads == [b"a"]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "the wire of broker troubled://" in record.message


@virtual
async def test_attempts_become_rare_while_the_broker_is_down() -> None:
    async with StreamDesk() as desk:
        made: list[float] = []
        make, loop = desk.broker.wire, asyncio.get_running_loop()

        def wire() -> StreamWire:
            made.append(loop.time())
            return make()

        desk.broker._node._make_wire = wire  # type: ignore[union-attr]
        desk.server.up = False
        desk.server.cut()
        await asyncio.sleep(60.0)
        assert 60 < len(made) < 200
        desk.server.up = True
        await desk.sink.reports("live")


@virtual
async def test_blocked_node_reports_when_it_is_live_again() -> None:
    async with StreamDesk() as desk:
        desk.troubles.next["append"].append(WireBlocked("an alarm"))
        future = desk.publish(b"a")
        assert "accepts no messages: an alarm" in await desk.sink.reports("blocked")
        await desk.sink.reports("live")
        assert (await future).offset


@virtual
async def test_calls_that_wait_fail_when_the_node_stops() -> None:
    desk = StreamDesk()
    await desk.start()
    desk.server.up = False
    desk.server.cut()
    await desk.sink.reports("degraded")
    waiting = asyncio.get_running_loop().create_task(desk.broker.set_interest(frozenset({0})))
    await asyncio.sleep(0.1)
    await desk.broker.stop()
    with pytest.raises(BrokerClosed):
        await waiting


@virtual
async def test_cancelled_stop_ends_everything() -> None:
    desk = StreamDesk()
    await desk.start()
    desk.troubles.next["append"] += [WireBlocked("an alarm")] * 100
    desk.publish(b"a").add_done_callback(lambda future: future.exception())
    stopping = asyncio.get_running_loop().create_task(desk.broker.stop(drain_s=60.0))
    await asyncio.sleep(1.0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    await desk.sink.reports("closed")


@pytest.mark.parametrize("ticks", range(8))
@virtual
async def test_stop_in_the_moment_of_a_lost_connection_ends(ticks: int) -> None:
    desk = StreamDesk(partitions=2)
    await desk.start()
    desk.server.cut()
    for _ in range(ticks):
        await asyncio.sleep(0)
    async with asyncio.timeout(10.0):
        await desk.broker.stop()


@virtual
async def test_wires_are_opened_in_tasks_that_nobody_has_cancelled() -> None:
    """So that a wire can tell whether a `CancelledError` is one of its library."""
    counts = []

    class Counting(TroubledWire):
        async def open(self, layout: Layout, *, append_timeout_s: float) -> WireInfo:
            task = asyncio.current_task()
            assert task is not None
            counts.append(task.cancelling())
            return await super().open(layout, append_timeout_s=append_timeout_s)

    async with StreamDesk(wire=Counting, partitions=2) as desk:
        for _ in range(3):
            await desk.cut()
    assert counts == [0, 0, 0, 0]


@virtual
async def test_publish_between_two_sessions_waits_for_the_next() -> None:
    async with StreamDesk() as desk:
        desk.troubles.next["open"].append(WireLost("refused"))
        desk.server.cut()
        await desk.sink.reports("degraded")
        assert (await desk.publish(b"a")).offset


@virtual
async def test_message_to_all_that_cannot_be_read_is_ignored() -> None:
    probe = encode(Envelope(kind=Kind.PROBE, publisher=b"node-x..", time_ms=1))
    async with StreamDesk(wire=ControlledWire) as desk:
        for wire in desk.server.wires:
            for data in (b"", b"garbage", to_all(7, probe), to_all(0, probe)):
                wire.inbox.put_nowait(data)  # type: ignore[attr-defined]
        assert (await desk.publish(b"a", size=0)).offset is None
        assert [state for state, _ in desk.sink.states] == ["live"]
        assert desk.sink.payloads == [b"a"]


@virtual
async def test_warnings_of_a_wire_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    class Risky(TroubledWire):
        async def open(self, layout: Layout, *, append_timeout_s: float) -> WireInfo:
            found = await super().open(layout, append_timeout_s=append_timeout_s)
            return replace(found, warnings=["one replica", "no disk"])

    async with StreamDesk(wire=Risky) as desk:
        await desk.cut()
    texts = sorted(record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert texts == [f"broker {desk.broker.url}: {text}" for text in ("no disk", "one replica")]


@virtual
async def test_server_that_stores_no_more_degrades_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UnstoredWire, "stores", True)
    async with StreamDesk(wire=UnstoredWire) as desk:
        monkeypatch.setattr(UnstoredWire, "stores", False)
        desk.server.cut()
        await asyncio.sleep(5.0)
        assert "does not store messages any more" in await desk.sink.reports("degraded")
        monkeypatch.setattr(UnstoredWire, "stores", True)
        await desk.sink.reports("live")


@virtual
async def test_server_that_can_store_later_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the node is started again, because its clients have no positions."""
    async with StreamDesk(wire=UnstoredWire) as desk:
        monkeypatch.setattr(UnstoredWire, "stores", True)
        await desk.cut()
        assert (await desk.publish()).offset is None
        assert not desk.broker.capabilities.recovery
