from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.stream_nodes import HANG, ControlledWire, StreamDesk, TroubledWire, UnstoredWire
from support.virtual_time import virtual

from dws_core._errors import BrokerUnavailable
from dws_core._log.records import GapReason, Head, ReadResult
from dws_core._log.stream.tail import INDEX_BITS
from dws_core._log.stream.wire import WireLost


@virtual
async def test_interest_chooses_the_delivered_partitions() -> None:
    async with StreamDesk(partitions=2) as desk:
        await desk.publish(b"a")
        assert list(await desk.broker.set_interest(frozenset({1}))) == [1]
        await desk.publish(b"b")
        heads = await desk.broker.set_interest(frozenset({0}))
        receipt = await desk.publish(b"c")
        assert desk.sink.payloads == [b"a", b"c"]
        assert heads[0].offset < (receipt.offset or 0)


@virtual
async def test_interest_waits_for_a_live_partition() -> None:
    async with StreamDesk() as desk:
        desk.server.cut()
        await desk.sink.reports("degraded")
        assert 0 in await desk.broker.set_interest(frozenset({0}))
        assert desk.sink.states[-1][0] == "live"


@virtual
async def test_calls_fail_while_the_broker_is_down() -> None:
    async with StreamDesk() as desk:
        desk.server.up = False
        desk.server.cut()
        await desk.sink.reports("degraded")
        for call in (
            desk.broker.set_interest(frozenset({0})),
            desk.broker.heads([0]),
            desk.broker.read(desk.span(0, 5, epoch="e")),
            desk.broker.send_control(b"hi"),
        ):
            with pytest.raises(BrokerUnavailable, match=r"cut|down"):
                await call


@pytest.mark.parametrize("quiet", [False, True])
@virtual
async def test_heads_are_the_ends_of_the_streams(quiet: bool) -> None:
    async with StreamDesk(quiet=quiet, partitions=2) as desk:
        receipt = await desk.publish(b"a")
        heads = await desk.broker.heads([0, 1])
        assert (receipt.offset or 0) <= heads[0].offset
        assert heads[0].epoch == receipt.epoch
        assert heads[1].partition == 1


@virtual
async def test_few_reads_run_at_the_same_time() -> None:
    """Each may need a connection."""

    class Counting(TroubledWire):
        running = 0
        most = 0

        async def scan(self, partition: int, start: int, stop: int) -> AsyncIterator[tuple[int, bytes]]:
            Counting.running += 1
            Counting.most = max(Counting.most, Counting.running)
            try:
                await asyncio.sleep(0.1)
                async for item in super().scan(partition, start, stop):
                    yield item
            finally:
                Counting.running -= 1

    async with StreamDesk(wire=Counting) as desk:
        first, last = [await desk.publish(b"x") for _ in range(2)]
        span = desk.span(first.offset or 0, last.offset or 0)
        results = await asyncio.gather(*(desk.broker.read(span) for _ in range(30)))
    assert [len(result.records) for result in results] == [1] * 30
    assert Counting.most == 8


@virtual
async def test_heads_wait_until_the_tail_is_there() -> None:
    async with StreamDesk() as first, StreamDesk(server=first.server) as second:
        second.troubles.next["followed"].append(0.5)
        receipt = await first.publish(b"a")
        assert (await second.broker.heads([0]))[0].offset >= (receipt.offset or 0)


@virtual
async def test_reads_wait_until_the_tail_is_there() -> None:
    """A client comes from another node with a position that this node has not reached yet."""
    async with StreamDesk() as first, StreamDesk(server=first.server) as second:
        receipts = [await first.publish(b"%d" % number) for number in range(3)]
        result = await second.broker.read(second.span(receipts[0].offset or 0, receipts[2].offset or 0))
        assert [record.payload for record in result.records] == [b"1", b"2"]


@virtual
async def test_heads_without_an_answer_are_unavailable() -> None:
    for name, quiet in (("bounds", False), ("append", True)):
        async with StreamDesk(quiet=quiet) as desk:
            desk.troubles.next[name].append(HANG)
            with pytest.raises(BrokerUnavailable, match="does not answer"):
                await desk.broker.heads([0])


@virtual
async def test_lost_connection_during_heads_is_unavailable() -> None:
    async with StreamDesk() as desk:
        desk.troubles.next["bounds"].append(WireLost("refused"))
        with pytest.raises(BrokerUnavailable, match="refused"):
            await desk.broker.heads([0])


@virtual
async def test_read_in_another_epoch_is_a_gap() -> None:
    async with StreamDesk() as desk:
        assert (await desk.broker.read(desk.span(0, 5, epoch="other"))).gap is GapReason.EPOCH


@pytest.mark.parametrize("quiet", [False, True])
@virtual
async def test_read_after_the_end_is_ahead(quiet: bool) -> None:
    async with StreamDesk(quiet=quiet) as desk:
        await desk.publish(b"a")
        far = 1000 << INDEX_BITS
        assert (await desk.broker.read(desk.span(far, far + 1))).gap is GapReason.AHEAD


@virtual
async def test_failed_read_is_unavailable() -> None:
    async with StreamDesk() as desk:
        receipt = await desk.publish(b"a")
        for trouble, reason in ((WireLost("refused"), "refused"), (HANG, "no progress")):
            desk.troubles.next["scan"].append(trouble)
            with pytest.raises(BrokerUnavailable, match=reason):
                await desk.broker.read(desk.span((receipt.offset or 0) - 1, receipt.offset or 0))


@virtual
async def test_read_across_a_reconnect_is_no_answer() -> None:
    """The stream may have changed in the meantime, so the records may belong to another epoch."""
    async with StreamDesk() as desk:
        receipt = await desk.publish(b"a")
        span = desk.span((receipt.offset or 0) - 1, receipt.offset or 0)
        desk.troubles.next["scanned"].append(HANG)
        reading = asyncio.get_running_loop().create_task(desk.broker.read(span))
        await asyncio.sleep(0.1)
        desk.server.wipe()
        with pytest.raises(BrokerUnavailable):
            await reading


@virtual
async def test_node_that_is_reopened_during_a_read_is_unavailable() -> None:
    async with StreamDesk() as desk:
        receipt = await desk.publish(b"a")
        span = desk.span((receipt.offset or 0) - 1, receipt.offset or 0)
        node = desk.broker._node
        assert node is not None

        original = desk.broker._node.queries.wire.scan  # type: ignore[union-attr]

        async def scan(partition: int, start: int, stop: int):  # type: ignore[no-untyped-def]
            async for item in original(partition, start, stop):
                yield item
            node.logs[0].lost()

        node.queries.wire.scan = scan  # type: ignore[union-attr,method-assign]
        with pytest.raises(BrokerUnavailable, match="opened again"):
            await desk.broker.read(span)


@pytest.mark.parametrize("wire", [None, ControlledWire])
@virtual
async def test_control_messages_reach_all_nodes(wire: type[ControlledWire] | None) -> None:
    kinds = {} if wire is None else {"wire": wire}
    first = StreamDesk(**kinds)
    second = StreamDesk(**kinds, server=first.server)
    await first.start(b"node-1..")
    await second.start(b"node-2..")
    await first.broker.send_control(b"hi")
    await asyncio.sleep(0.1)
    assert first.sink.controls == second.sink.controls == [(b"node-1..", b"hi")]
    await first.broker.stop()
    await second.broker.stop()


@virtual
async def test_lost_control_message_is_unavailable() -> None:
    for name, wire in (("append", None), ("send_control", ControlledWire)):
        async with StreamDesk(**({"wire": wire} if wire else {})) as desk:
            desk.troubles.next[name].append(WireLost("refused"))
            with pytest.raises(BrokerUnavailable, match="refused"):
                await desk.broker.send_control(b"hi")


@virtual
async def test_broker_that_cannot_store_has_no_past() -> None:
    async with StreamDesk(wire=UnstoredWire) as desk:
        await desk.publish()
        (head,) = (await desk.broker.heads([0])).values()
        assert head == Head(partition=0, epoch=desk.epoch, offset=0)
        assert await desk.broker.read(desk.span(0, 1)) == ReadResult(gap=GapReason.UNSUPPORTED)
