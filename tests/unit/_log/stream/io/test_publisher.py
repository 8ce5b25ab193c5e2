from __future__ import annotations

import asyncio

import pytest
from support.stream_nodes import HANG, LATER, ControlledWire, StreamDesk
from support.virtual_time import virtual

from dws_core._errors import (
    BrokerClosed,
    BrokerOverloaded,
    BrokerUnavailable,
    PayloadTooLarge,
    PublishOutcomeUnknown,
)
from dws_core._log.records import History
from dws_core._log.stream.publishing import PublishQueue
from dws_core._log.stream.settings import StreamSettings
from dws_core._log.stream.wire import WireBlocked, WireLost, WireRefused


def _stored(desk: StreamDesk, payload: bytes) -> int:
    """Return how many envelopes of the stream contain a payload."""
    return sum(payload in data for data in desk.server.channels["c"][0].records)


@virtual
async def test_publish_completes_with_the_place_of_its_record() -> None:
    async with StreamDesk() as desk:
        receipt = await desk.publish(b"a")
        assert [record.offset for record in desk.sink.records] == [receipt.offset]
        assert (receipt.epoch, receipt.duplicate) == (desk.epoch, False)


@virtual
async def test_publishes_of_one_tick_share_an_envelope() -> None:
    async with StreamDesk() as desk:
        await desk.publish(b"first")
        before = desk.server.channels["c"][0].next
        await asyncio.gather(*(desk.publish(b"%d" % number) for number in range(10)))
        assert desk.server.channels["c"][0].next == before + 1
        assert desk.sink.payloads[1:] == [b"%d" % number for number in range(10)]


@virtual
async def test_repeat_of_a_key_returns_the_first_receipt() -> None:
    async with StreamDesk() as desk:
        first = await desk.publish(b"a", key="k")
        again = desk.publish(b"b", key="k")
        assert again.done(), "nothing needs to be sent"
        assert (again.result().offset, again.result().duplicate) == (first.offset, True)
        both = await asyncio.gather(desk.publish(b"c", key="l"), desk.publish(b"d", key="l"))
        assert [receipt.duplicate for receipt in both] == [False, True]
        assert desk.sink.payloads == [b"a", b"c"]


@virtual
async def test_payload_over_a_limit_is_too_large() -> None:
    """The capability limits it, or the largest envelope of the stream does."""
    async with StreamDesk() as desk:
        for payload, topic in ((bytes(8001), "t"), (bytes(8000), "t" * 2000)):
            with pytest.raises(PayloadTooLarge):
                await desk.publish(payload, topic=topic)
        assert (await desk.publish(bytes(8000))).offset


@virtual
async def test_full_queue_is_overloaded() -> None:
    async with StreamDesk(settings=StreamSettings(queue_bytes=20_000)) as desk:
        futures = [desk.publish(bytes(1000)) for _ in range(30)]
        done, _ = await asyncio.wait(futures)
        refused = [future for future in done if future.exception()]
        assert 10 < len(refused) < 20
        assert all(isinstance(future.exception(), BrokerOverloaded) for future in refused)
        assert (await desk.publish(b"later")).offset, "there is room again"


@virtual
async def test_unsent_publish_is_unavailable_after_its_deadline() -> None:
    async with StreamDesk() as desk:
        desk.troubles.next["append"] += [WireBlocked("an alarm")] * 100
        with pytest.raises(BrokerUnavailable):
            await desk.publish(b"never", deadline_s=1.0)
        desk.troubles.next["append"].clear()
        await desk.publish(b"later")
        assert _stored(desk, b"never") == 0


@virtual
async def test_sent_publish_is_unknown_after_its_deadline() -> None:
    async with StreamDesk() as desk:
        desk.troubles.next["append"].append(HANG)
        with pytest.raises(PublishOutcomeUnknown):
            await desk.publish(b"perhaps", deadline_s=1.0)


@virtual
async def test_record_in_the_tail_is_stored_without_a_confirmation() -> None:
    async with StreamDesk() as desk:
        desk.troubles.next["append"].append(LATER)
        assert (await desk.publish(b"a", deadline_s=1.0)).offset


@virtual
async def test_lost_append_is_sent_again_once() -> None:
    async with StreamDesk() as desk:
        desk.troubles.next["append"].append(WireLost("cut"))
        receipts = await asyncio.gather(desk.publish(b"a"), desk.publish(b"b"))
        assert receipts[0].offset < receipts[1].offset  # type: ignore[operator]
        assert desk.sink.payloads == [b"a", b"b"]
        assert _stored(desk, b"a") == 1


@virtual
async def test_refused_publish_is_certainly_not_stored() -> None:
    async with StreamDesk() as desk:
        desk.troubles.next["append"].append(WireRefused("too large"))
        with pytest.raises(BrokerUnavailable):
            await desk.publish(b"refused")
        await desk.publish(b"next")
        assert desk.sink.payloads == [b"next"]


@virtual
async def test_many_deadlines_need_few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look goes through all publishes that wait. All of them fail within a tenth of a second of their deadline."""
    looks, expire = 0, PublishQueue.expire

    def counting(self: PublishQueue[object], now: float) -> object:
        nonlocal looks
        looks += 1
        return expire(self, now)

    async with StreamDesk() as desk:
        desk.server.up = False
        desk.server.cut()
        await desk.sink.reports("degraded")
        monkeypatch.setattr(PublishQueue, "expire", counting)
        loop, late = asyncio.get_running_loop(), list[float]()
        for number in range(1000):
            due = loop.time() + 1.0 + number / 1000
            future = desk.publish(b"x", deadline_s=1.0 + number / 1000)
            future.add_done_callback(lambda done, due=due: late.append(loop.time() - due) or done.exception())  # type: ignore[misc]
        await asyncio.wait({future})
        assert looks <= 2 * 12
        assert 0 <= min(late) <= max(late) <= 0.11


@virtual
async def test_earlier_deadline_is_noticed() -> None:
    async with StreamDesk() as desk:
        desk.troubles.next["append"] += [WireBlocked("an alarm")] * 1000
        loop = asyncio.get_running_loop()
        began = loop.time()
        late, early = desk.publish(b"late", deadline_s=5.0), desk.publish(b"early", deadline_s=1.0)
        with pytest.raises(BrokerUnavailable):
            await early
        assert loop.time() - began == pytest.approx(1.0, abs=0.01)
        with pytest.raises(BrokerUnavailable):
            await late
        assert loop.time() - began == pytest.approx(5.0, abs=0.01)
        desk.troubles.next["append"].clear()


@virtual
async def test_cancelled_publish_does_not_disturb_the_others() -> None:
    async with StreamDesk() as desk:
        cancelled, other = desk.publish(b"a"), desk.publish(b"b")
        cancelled.cancel()
        assert (await other).offset
        assert desk.sink.payloads == [b"a", b"b"], "it is not withdrawn"


@virtual
async def test_stop_sends_waiting_publishes() -> None:
    desk = StreamDesk()
    await desk.start()
    future = desk.publish(b"a")
    await desk.broker.stop()
    assert future.result().offset


@virtual
async def test_stop_fails_what_cannot_be_sent() -> None:
    desk = StreamDesk()
    await desk.start()
    desk.troubles.next["append"] += [WireBlocked("an alarm")] * 100
    future = desk.publish(b"a")
    await desk.broker.stop(drain_s=1.0)
    with pytest.raises(BrokerClosed):
        await future


@virtual
async def test_stop_without_drain_fails_at_once() -> None:
    desk = StreamDesk(settings=StreamSettings(envelope_records=1))
    await desk.start()
    desk.troubles.next["append"].append(HANG)
    sent, waiting = desk.publish(b"a"), desk.publish(b"b")
    await desk.broker.stop(drain_s=0.0)
    with pytest.raises(PublishOutcomeUnknown):
        await sent
    with pytest.raises(BrokerClosed):
        await waiting


@virtual
async def test_partitions_are_flushed_together() -> None:
    async with StreamDesk(partitions=2) as desk:
        history = History()
        receipts = [desk.broker.publish(number, "t", b"a", history=history) for number in (0, 1)]
        await asyncio.gather(*receipts)
        assert len(desk.sink.payloads) == 2


@virtual
async def test_publish_without_history_does_not_pass_through_the_stream() -> None:
    async with StreamDesk(wire=ControlledWire) as desk:
        assert (await desk.publish(b"a", size=0)).offset is None
        assert desk.sink.payloads == [b"a"]
        assert _stored(desk, b"a") == 0


@virtual
async def test_topic_keeps_its_order_on_both_ways() -> None:
    async with StreamDesk(wire=ControlledWire) as desk:
        await asyncio.gather(*(desk.publish(b"%d" % number, size=number % 2) for number in range(6)))
        assert desk.sink.payloads == [b"%d" % number for number in range(6)]


@virtual
async def test_both_ways_are_bounded() -> None:
    async with StreamDesk(wire=ControlledWire, settings=StreamSettings(queue_bytes=20_000)) as desk:
        futures = [desk.publish(bytes(1000), size=0) for _ in range(30)]
        done, _ = await asyncio.wait(futures)
        assert {type(future.exception()) for future in done} == {type(None), BrokerOverloaded}


@virtual
async def test_lost_message_to_all_is_sent_again() -> None:
    async with StreamDesk(wire=ControlledWire) as desk:
        desk.troubles.next["send_control"].append(WireLost("cut"))
        assert (await desk.publish(b"a", size=0)).offset is None
        assert desk.sink.payloads == [b"a"]


@virtual
async def test_followers_of_expired_publish_fail_with_it() -> None:
    """A publish of another order is stored."""
    async with StreamDesk() as desk:
        desk.troubles.next["append"] += [WireBlocked("an alarm")] * 100
        first = desk.publish(b"first", deadline_s=1.0, order="a")
        later = desk.publish(b"later", deadline_s=60.0, order="a")
        other = desk.publish(b"other", deadline_s=60.0, order="b")
        with pytest.raises(BrokerUnavailable):
            await first
        assert isinstance(later.exception(), BrokerUnavailable)
        assert not other.done()
        desk.troubles.next["append"].clear()
        await other
        again = [desk.publish(payload, order="a") for payload in (b"first", b"later")]
        await asyncio.gather(*again)
        assert desk.sink.payloads == [b"other", b"first", b"later"]


@virtual
async def test_followers_in_both_queues_fail() -> None:
    async with StreamDesk() as desk:
        desk.troubles.next["append"] += [WireBlocked("an alarm")] * 100
        first = desk.publish(b"first", deadline_s=1.0, order="a")
        later = desk.publish(b"later", deadline_s=60.0, order="a", size=0)
        with pytest.raises(BrokerUnavailable):
            await first
        assert later.done()
        assert isinstance(later.exception(), BrokerUnavailable)
