from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from support.stream_nodes import HANG, ControlledWire, StreamDesk, UnstoredWire
from support.virtual_time import virtual

from dws_core._errors import BrokerClosed, BrokerUnavailable, PublishOutcomeUnknown
from dws_core._log.records import GapReason, Receipt
from dws_core._log.stream.envelope import Envelope, Kind, decode, encode
from dws_core._log.stream.settings import StreamSettings
from dws_core._log.stream.wire import WireBlocked, WireLost


def _kinds(desk: StreamDesk) -> list[Kind]:
    return [decode(data).kind for data in desk.server.channels["c"][0].records]


@virtual
async def test_idle_stream_is_probed() -> None:
    async with StreamDesk(settings=StreamSettings(probe_s=2.0, dead_s=5.0)) as desk:
        before = _kinds(desk).count(Kind.PROBE)
        await asyncio.sleep(9.0)
        assert 3 <= _kinds(desk).count(Kind.PROBE) - before <= 4
        assert desk.troubles.opened == 1


@virtual
async def test_silent_connection_is_given_up() -> None:
    async with StreamDesk() as desk:
        desk.troubles.next["followed"].append(HANG)
        await desk.sink.reports("degraded")
        assert "nothing arrived from partition 0 for 3 s" in desk.sink.states[-1][1]
        await desk.sink.reports("live")


@virtual
async def test_blocked_broker_is_not_dead() -> None:
    """It accepts nothing, so no probe arrives. The connection is usable nevertheless."""
    async with StreamDesk() as desk:
        desk.troubles.next["append"] += [WireBlocked("an alarm")] * 20
        assert "an alarm" in await desk.sink.reports("blocked")
        await asyncio.sleep(10.0)
        desk.troubles.next["append"].clear()
        await desk.sink.reports("live")
        assert desk.troubles.opened == 1


@pytest.mark.parametrize("name", ["open", "bounds", "append", "scan", "follow"])
@virtual
async def test_step_without_an_answer_is_given_up(name: str) -> None:
    async with StreamDesk() as desk:
        for _ in range(70):
            await desk.publish()
        desk.server.wipe()
        desk.troubles.next[name].append(HANG)
        await desk.sink.reports("degraded")
        await desk.sink.reports("live")
        assert (await desk.publish()).offset


@virtual
async def test_end_of_the_stream_is_a_lost_connection() -> None:
    class Ending(ControlledWire):
        async def follow(self, starts):  # type: ignore[no-untyped-def,override]
            async for item in super().follow(starts):
                yield item
                if self.troubles.next["end"]:
                    self.troubles.next["end"].clear()
                    return

    async with StreamDesk(wire=Ending) as desk:
        desk.troubles.next["end"].append(True)
        desk.server.channels["c"][0].wake()
        assert "the stream ended" in await desk.sink.reports("degraded")
        await desk.sink.reports("live")


@virtual
async def test_end_of_the_control_messages_is_a_lost_connection() -> None:
    async with StreamDesk(wire=ControlledWire) as desk:
        for wire in desk.server.wires:
            wire.inbox.put_nowait(b"end")  # type: ignore[attr-defined]
        assert "the control messages ended" in await desk.sink.reports("degraded")
        await desk.sink.reports("live")


@virtual
async def test_trimmed_position_is_a_gap() -> None:
    async with StreamDesk() as desk:
        for number in range(5):
            await desk.publish(b"%d" % number)
        stream = desk.server.channels["c"][0]
        stream.records, stream.first = stream.records[-1:], stream.next - 1
        stream.first += 100
        await desk.cut()
        assert desk.sink.gaps == [(0, GapReason.TRIMMED)]


@virtual
async def test_replaced_stream_is_an_epoch_gap() -> None:
    async with StreamDesk() as desk:
        before = desk.epoch
        await desk.publish(b"a")
        desk.server.wipe()
        await desk.sink.reports("degraded")
        await desk.sink.reports("live")
        assert desk.sink.gaps == [(0, GapReason.EPOCH)]
        assert desk.epoch != before


@virtual
async def test_epoch_that_begins_under_a_live_tail_is_joined() -> None:
    async with StreamDesk() as desk:
        genesis = Envelope(
            kind=Kind.GENESIS, publisher=b"node-x..", time_ms=1, epoch=b"other...", parent=bytes.fromhex(desk.epoch)
        )
        desk.server.channels["c"][0].append(encode(genesis))
        assert "must be read again (epoch)" in await desk.sink.reports("degraded")
        await desk.sink.reports("live")
        assert desk.sink.gaps == [(0, GapReason.EPOCH)]
        assert desk.epoch == b"other...".hex()


@virtual
async def test_new_epoch_of_another_node_is_joined() -> None:
    async with StreamDesk() as first:
        async with StreamDesk(server=first.server) as second:
            first.server.wipe()
            await asyncio.sleep(5.0)
            assert first.epoch == second.epoch
            receipt = await first.publish(b"a")
            await asyncio.sleep(0)
            assert [record.offset for record in second.sink.records] == [receipt.offset]


@virtual
async def test_tail_with_much_to_read_lets_other_tasks_run() -> None:
    async with StreamDesk() as first, StreamDesk(server=first.server) as second:
        second.troubles.next["open"].append(HANG)
        second.broker._node.queries.wire.cut()  # type: ignore[union-attr]
        await second.sink.reports("degraded")
        for number in range(700):
            await first.publish(b"%d" % number)
        sizes: set[int] = set()
        deliver = second.sink.on_records

        def on_records(*args: Any) -> None:
            deliver(*args)
            asyncio.get_running_loop().call_soon(lambda: sizes.add(len(second.sink.records)))

        second.sink.on_records = on_records  # type: ignore[method-assign]
        await second.sink.reports("live")
        assert len(second.sink.records) == 700
        assert len(sizes) >= 10


def _slow_tail(desk: StreamDesk, seconds: float, count: int) -> None:
    desk.troubles.next["followed"] += [seconds] * count


@virtual
async def test_tail_far_behind_is_degraded_until_it_is_at_the_end() -> None:
    """Publishes through the slow node stay exact: their records arrive late, and are stored."""
    async with StreamDesk() as first, StreamDesk(server=first.server) as second:
        _slow_tail(second, 0.5, 20)
        slow = second.publish(b"slow", deadline_s=60.0)
        for number in range(20):
            await first.publish(b"%d" % number)
        late = second.publish(b"late", deadline_s=2.0)
        assert "more than 2 s behind in partition 0" in await second.sink.reports("degraded")
        await second.sink.reports("live")
        assert second.troubles.opened == 1
        assert (await slow).offset
        with pytest.raises(PublishOutcomeUnknown):
            await late
        assert b"late" in second.sink.payloads
        assert len(second.sink.records) == 22


@virtual
async def test_publisher_with_a_wrong_clock_does_not_degrade_others() -> None:
    async with StreamDesk() as first, StreamDesk(server=first.server) as second:
        first.broker._clock.ahead_ms = -60_000  # type: ignore[attr-defined]
        for number in range(10):
            await first.publish(b"%d" % number)
            await asyncio.sleep(0.1)
        await asyncio.sleep(5.0)
        assert [state for state, _ in second.sink.states] == ["live"]
        assert _kinds(first).count(Kind.PROBE) < 20


@virtual
async def test_blocked_node_that_is_behind_reports_both() -> None:
    async with StreamDesk() as first, StreamDesk(server=first.server) as second:
        _slow_tail(second, 0.5, 30)
        for number in range(30):
            await first.publish(b"%d" % number)
        await second.sink.reports("degraded")
        second.troubles.next["append"] += [WireBlocked("an alarm")] * 3
        second.publish(b"late", deadline_s=60.0).add_done_callback(lambda future: future.exception())
        await second.sink.reports("blocked")
        await second.sink.reports("degraded")
        await second.sink.reports("live")


@virtual
async def test_lag_that_begins_during_an_alarm_is_reported_after_it() -> None:
    async with StreamDesk() as first, StreamDesk(server=first.server) as second:
        _slow_tail(second, 0.5, 40)
        second.troubles.next["append"] += [WireBlocked("an alarm")] * 60
        second.publish(b"late", deadline_s=60.0).add_done_callback(lambda future: future.exception())
        for number in range(40):
            await first.publish(b"%d" % number)
        await second.sink.reports("live")
        assert [state for state, _ in second.sink.states] == ["live", "blocked", "degraded", "live"]


@virtual
async def test_catching_up_after_a_reconnect_is_reported() -> None:
    async with StreamDesk() as first, StreamDesk(server=first.server) as second:
        second.troubles.next["open"].append(2.0)
        second.broker._node.queries.wire.cut()  # type: ignore[union-attr]
        for number in range(20):
            await first.publish(b"%d" % number)
        _slow_tail(second, 0.2, 20)
        details = [await second.sink.reports("degraded")]
        await second.sink.reports("live")
        details += [detail for state, detail in second.sink.states if state == "degraded"]
        assert any("reading the missed records" in detail for detail in details)
        assert len(second.sink.records) == 20


@virtual
async def test_wire_that_cannot_be_closed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with StreamDesk() as desk:
        for trouble in (RuntimeError("a defect"), HANG):
            desk.troubles.next["close"].append(trouble)
            await desk.cut()
    found = [record for record in caplog.records if "could not be closed" in record.message]
    assert [record.levelno for record in found] == [logging.ERROR] * 2


async def _in_each_tick(count: int, act: Callable[[], object]) -> None:
    for _ in range(count):
        act()
        await asyncio.sleep(0)


@virtual
async def test_publish_while_a_session_ends_is_sent_by_the_next() -> None:
    async with StreamDesk() as desk:
        desk.troubles.next["close"].append(0.5)
        desk.server.cut()
        late: list[asyncio.Future[Receipt]] = []
        await _in_each_tick(20, lambda: late.append(desk.publish(b"late")))
        await asyncio.gather(*late)
        assert desk.sink.payloads == [b"late"] * 20


@virtual
async def test_publish_while_a_node_stops_is_certainly_not_sent() -> None:
    desk = StreamDesk(settings=StreamSettings(envelope_records=1, in_flight=1))
    await desk.start()
    node = desk.broker._node
    assert node is not None
    futures = [desk.publish(b"late") for _ in range(20)]
    stopping = asyncio.get_running_loop().create_task(desk.broker.stop(drain_s=0.0))
    spawned: list[bool] = []
    await _in_each_tick(20, lambda: node._session and spawned.append(node._session._spawn(asyncio.sleep(0), "late")))
    await stopping
    assert spawned == sorted(spawned, reverse=True)
    assert set(spawned) == {True, False}
    results = await asyncio.gather(*futures, return_exceptions=True)
    unsent = sum(isinstance(result, BrokerClosed) for result in results)
    stored = sum(b"late" in data for data in desk.server.channels["c"][0].records)
    assert unsent == 20 - stored > 0


# -- a broker that cannot store


@virtual
async def test_unstored_messages_are_delivered_in_order() -> None:
    async with StreamDesk(wire=UnstoredWire) as desk:
        other = StreamDesk(wire=UnstoredWire, server=desk.server)
        async with other:
            receipts = await asyncio.gather(*(desk.publish(b"%d" % n, size=n % 2) for n in range(200)))
        assert {receipt.offset for receipt in receipts} == {None}
        for sink in (desk.sink, other.sink):
            assert sink.payloads == [b"%d" % n for n in range(200)]
            assert sink.gaps == []


@virtual
async def test_unstored_messages_are_a_gap_after_a_lost_connection() -> None:
    async with StreamDesk(wire=UnstoredWire, partitions=2) as desk:
        await desk.publish(b"before")
        await desk.cut()
        assert desk.sink.gaps == [(0, GapReason.INTERRUPTED), (1, GapReason.INTERRUPTED)]
        await desk.publish(b"after")
        assert desk.sink.payloads == [b"before", b"after"]


@virtual
async def test_unstored_publish_is_sent_again_once() -> None:
    async with StreamDesk(wire=UnstoredWire) as desk:
        await desk.publish(b"before")
        desk.troubles.next["send_control"].append(WireLost("no reply", sent=True))
        await desk.publish(b"again")
        assert desk.sink.payloads == [b"before", b"again"]


@virtual
async def test_silent_connection_without_streams_is_given_up() -> None:
    async with StreamDesk(wire=UnstoredWire) as desk:
        await asyncio.sleep(30.0)
        assert desk.troubles.opened == 1, "its own probes arrive"
        desk.troubles.next["send_control"] += [HANG] * 9
        await desk.sink.reports("degraded")
        assert "nothing arrived from partition 0 for 3 s" in desk.sink.states[-1][1]
        desk.troubles.next["send_control"].clear()
        await desk.sink.reports("live")


@virtual
async def test_blocked_broker_without_streams_fails_the_start() -> None:
    desk = StreamDesk(wire=UnstoredWire)
    desk.troubles.next["send_control"].append(WireBlocked("an alarm"))
    with pytest.raises(BrokerUnavailable, match="an alarm"):
        await desk.start()


@virtual
async def test_blocked_broker_without_streams_is_not_dead() -> None:
    async with StreamDesk(wire=UnstoredWire) as desk:
        desk.troubles.next["send_control"] += [WireBlocked("an alarm")] * 20
        assert "an alarm" in await desk.sink.reports("blocked")
        await asyncio.sleep(10.0)
        desk.troubles.next["send_control"].clear()
        await desk.sink.reports("live")
        assert desk.troubles.opened == 1
