"""Memory brokers with one flaw each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dws_memory import MemoryBroker
from factory import BrokerSuite, BrokerSuiteInNoHurry, found_by
from msgspec import structs

from dws_core.plugin import BrokerURL, GapReason, Head, History, ReadResult, ReadSpan, Receipt


class CorrectLogBroker(MemoryBroker):
    """A correct broker without connections to cut."""

    @classmethod
    async def sever(cls) -> None: ...


class TestCorrectLogBroker(BrokerSuiteInNoHurry):
    kind = CorrectLogBroker


def flawed_broker(test: str, text: str = "") -> Callable[[type[Any]], type[Any]]:
    return found_by(test, BrokerSuite, text)


# -- logs with a flaw in the events for the node


class Between:
    """A sink in front of the real sink, which passes every event on."""

    def __init__(self, sink: Any) -> None:
        self.sink = sink
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sink, name)


class Tampered(MemoryBroker):
    """A memory broker with another sink in front of the real one."""

    between: type[Between]

    async def start(self, *, node: bytes, layout: Any, sink: Any) -> None:
        await super().start(node=node, layout=layout, sink=self.between(sink))


@flawed_broker("test_thousand_messages_arrive_in_order")
class LosesOneMessage(Tampered):
    class between(Between):  # noqa: N801 -- an attribute
        def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: list[Any]) -> None:
            kept = [r for r in records if r.offset != 700]
            self.sink.on_records(partition, epoch, lo, hi, kept)


@flawed_broker("test_publishes_of_one_tick_keep_their_order")
class ReordersTwo(Tampered):
    class between(Between):  # noqa: N801 -- an attribute
        def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: list[Any]) -> None:
            if len(records) > 20:
                records[10], records[11] = records[11], records[10]
            self.sink.on_records(partition, epoch, lo, hi, records)


@flawed_broker("test_every_node_receives_publish_once")
class DeliversTwice(Tampered):
    class between(Between):  # noqa: N801 -- an attribute
        def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: list[Any]) -> None:
            self.sink.on_records(partition, epoch, lo, hi, [*records, records[-1]])


@flawed_broker("test_publishes_of_one_tick_keep_their_order")
class MovesTheWatermarkPastWhatIsNotDelivered(Tampered):
    class between(Between):  # noqa: N801 -- an attribute
        def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: list[Any]) -> None:
            self.sink.on_records(partition, epoch, lo, hi, records[:-1])
            self.sink.on_records(partition, epoch, hi, hi, records[-1:])


@flawed_broker("test_nodes_receive_from_each_other")
class LeavesAHoleBetweenRanges(Tampered):
    class between(Between):  # noqa: N801 -- an attribute
        def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: list[Any]) -> None:
            self.count += 1
            self.sink.on_records(partition, epoch, lo + (self.count == 2), hi, records)


@flawed_broker("test_thousand_messages_arrive_in_order")
class ReportsGapsOfAHealthyLog(Tampered):
    class between(Between):  # noqa: N801 -- an attribute
        def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: list[Any]) -> None:
            self.sink.on_records(partition, epoch, lo, hi, records)
            self.sink.on_discontinuity(partition, GapReason.TRIMMED, Head(partition=partition, epoch=epoch, offset=hi))


@flawed_broker("test_stopped_node_receives_nothing")
class TalksAfterTheStop(Tampered):
    class between(Between):  # noqa: N801 -- an attribute
        pass

    async def stop(self, *, drain_s: float = 5.0) -> None:
        node = self._node
        await super().stop(drain_s=drain_s)
        if node is not None:
            asyncio.get_running_loop().call_soon(node._sink.on_state, "degraded", "still here")


@flawed_broker("test_control_message_reaches_all_nodes_of_channel")
class KeepsControlMessagesFromTheSender(Tampered):
    class between(Between):  # noqa: N801 -- an attribute
        own = b""

        def on_control(self, sender: bytes, payload: bytes) -> None:
            if sender != self.sink_owner:
                self.sink.on_control(sender, payload)

    async def start(self, *, node: bytes, layout: Any, sink: Any) -> None:
        self.between = type("between", (type(self).between,), {"sink_owner": node})
        await super().start(node=node, layout=layout, sink=sink)


@flawed_broker("test_control_message_reaches_all_nodes_of_channel")
class SendsControlsToAllChannels(MemoryBroker):
    async def send_control(self, payload: bytes) -> None:
        for node in LIVE:
            node.receive_control(self._started().id, payload)

    async def start(self, **arguments: Any) -> None:
        await super().start(**arguments)
        LIVE.append(self._node)

    async def stop(self, **arguments: Any) -> None:
        if self._node in LIVE:
            LIVE.remove(self._node)
        await super().stop(**arguments)


LIVE: list[Any] = []


@flawed_broker("test_control_payload_arrives_unchanged")
class SendsNoEmptyControl(MemoryBroker):
    async def send_control(self, payload: bytes) -> None:
        if payload:
            await super().send_control(payload)


@flawed_broker("test_control_message_reaches_node_that_tails_nothing")
class SendsControlsThroughTheTail(Tampered):
    class between(Between):  # noqa: N801 -- an attribute
        def on_control(self, sender: bytes, payload: bytes) -> None:
            if self.sink.wanted:
                self.sink.on_control(sender, payload)


@flawed_broker("test_control_message_is_not_in_history")
class KeepsControlMessages(MemoryBroker):
    async def send_control(self, payload: bytes) -> None:
        self.publish(0, "control", payload, history=History())
        await super().send_control(payload)


# -- nodes that fall far behind


@flawed_broker("test_node_that_stood_still_receives_everything")
class DropsWhatItCannotDeliverAtOnce(Tampered):
    class between(Between):  # noqa: N801 -- an attribute
        def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: list[Any]) -> None:
            self.sink.on_records(partition, epoch, lo, hi, records[-5000:])


@flawed_broker("test_node_that_stood_still_receives_everything", "is the gap")
class ReadsNoMoreThanAThousand(MemoryBroker):
    async def read(self, span: ReadSpan) -> ReadResult:
        return await super().read(replace(span, limit=min(span.limit, 1000)))


class RepeatsControls(Tampered):
    """A correct broker: control messages may arrive twice."""

    class between(Between):  # noqa: N801 -- an attribute
        def on_control(self, sender: bytes, payload: bytes) -> None:
            self.sink.on_control(sender, payload)
            self.sink.on_control(sender, payload)

    lost = 0

    async def send_control(self, payload: bytes) -> None:
        self.lost += 1
        if self.lost % 3:  # and every third one is lost
            await super().send_control(payload)


class TestRepeatsControls(BrokerSuiteInNoHurry):
    kind = RepeatsControls


# -- logs with a flaw in their operations


@flawed_broker("test_repeated_key_is_stored_once_on_any_node")
class StoresARepeatAgain(MemoryBroker):
    def publish(self, *args: Any, key: str | None = None, **options: Any) -> Any:
        return super().publish(*args, **options)


@flawed_broker("test_concurrent_repeats_are_delivered_once")
class KnowsOnlyItsOwnKeys(MemoryBroker):
    def publish(self, *args: Any, key: str | None = None, **options: Any) -> Any:
        return super().publish(*args, key=key and f"{id(self)}:{key}", **options)


@flawed_broker("test_key_applies_to_one_topic_and_channel")
class HasOneNamespaceForKeys(MemoryBroker):
    used: dict[str, Any] = {}  # noqa: RUF012 -- shared on purpose

    def publish(self, *args: Any, key: str | None = None, **options: Any) -> Any:
        if key in self.used:
            future = asyncio.get_running_loop().create_future()
            future.set_result(self.used[key])
            return future
        future = super().publish(*args, key=key, **options)
        if key is not None:
            self.used[key] = structs.replace(future.result(), duplicate=True)
        return future


@flawed_broker("test_channels_are_separate")
class DoesNotSeparateChannels(MemoryBroker):
    async def start(self, *, node: bytes, layout: Any, sink: Any) -> None:
        await super().start(node=node, layout=replace(layout, channel="one for all"), sink=sink)


@flawed_broker("test_publish_after_stop_raises_broker_closed")
class TakesMessagesAfterTheStop(MemoryBroker):
    def publish(self, *args: Any, **options: Any) -> Any:
        future = super().publish(*args, **options)
        if future.exception() is None:
            return future
        accepted = asyncio.get_running_loop().create_future()
        accepted.set_result(Receipt(epoch="", offset=None))
        return accepted


@flawed_broker("test_node_misses_nothing_once_subscribed")
class SaysItIsActiveBeforeItIs(MemoryBroker):
    async def set_interest(self, partitions: frozenset[int]) -> Any:
        if partitions:
            asyncio.get_running_loop().call_soon(self._node.tail, partitions)  # type: ignore[union-attr]
            return await self.heads(partitions)
        return await super().set_interest(partitions)


@flawed_broker("test_start_and_stop_leak_nothing")
class LeavesATaskBehind(MemoryBroker):
    async def start(self, **arguments: Any) -> None:
        await super().start(**arguments)
        self.task = asyncio.get_running_loop().create_task(asyncio.sleep(60))


@flawed_broker("test_stop_sends_queue_and_completes_every_publish")
class ForgetsWhatWaitsWhenItStops(MemoryBroker):
    def publish(self, *args: Any, **options: Any) -> Any:
        future = asyncio.get_running_loop().create_future()

        def later() -> None:
            if self._node is not None and not future.done():
                future.set_result(super(ForgetsWhatWaitsWhenItStops, self).publish(*args, **options).result())

        asyncio.get_running_loop().call_soon(later)
        return future


@flawed_broker("test_cancelled_publish_is_stored_in_order")
class WithdrawsWhatIsCancelled(MemoryBroker):
    def publish(self, *args: Any, **options: Any) -> Any:
        future = asyncio.get_running_loop().create_future()

        def later() -> None:
            if not future.cancelled():
                future.set_result(super(WithdrawsWhatIsCancelled, self).publish(*args, **options).result())

        asyncio.get_running_loop().call_soon(later)
        return future


@flawed_broker("test_all_nodes_see_one_order_with_growing_offsets")
class NamesTheWrongPlace(MemoryBroker):
    def publish(self, *args: Any, **options: Any) -> Any:
        told = asyncio.get_running_loop().create_future()
        receipt = super().publish(*args, **options).result()
        told.set_result(structs.replace(receipt, offset=(receipt.offset or 0) + 1))
        return told


@flawed_broker("test_restarted_node_finds_same_epoch")
class HasAnEpochForEachNode(MemoryBroker):
    def publish(self, *args: Any, **options: Any) -> Any:
        told = asyncio.get_running_loop().create_future()
        told.set_result(structs.replace(super().publish(*args, **options).result(), epoch=hex(id(self))))
        return told


@flawed_broker("test_different_partition_count_is_rejected")
class MixesLayouts(MemoryBroker):
    async def start(self, *, node: bytes, layout: Any, sink: Any) -> None:
        channel = f"{layout.channel}/{layout.partitions}"
        await super().start(node=node, layout=replace(layout, channel=channel), sink=sink)


@flawed_broker("test_stored_records_can_be_read")
class ReadsAPart(MemoryBroker):
    async def read(self, span: ReadSpan) -> ReadResult:
        result = await super().read(span)
        return ReadResult(records=result.records[:-1], gap=result.gap)


@flawed_broker("test_read_ends_at_given_offset")
class ReadsTooMuch(MemoryBroker):
    async def read(self, span: ReadSpan) -> ReadResult:
        return await super().read(replace(span, until=span.until + 1))


@flawed_broker("test_messages_without_history_have_no_position")
class KeepsWhatHasNoHistory(MemoryBroker):
    def publish(self, *args: Any, history: Any, **options: Any) -> Any:
        return super().publish(*args, history=history if history.size else History(size=1), **options)


@flawed_broker("test_partition_without_interest_is_not_received")
class TailsEverything(MemoryBroker):
    async def set_interest(self, partitions: frozenset[int]) -> Any:
        every = frozenset(range(len(self._node.log.partitions)))  # type: ignore[union-attr]
        heads = await super().set_interest(every if partitions else partitions)
        return {number: heads[number] for number in partitions}


@flawed_broker("test_payload_limit_is_exact")
class TakesAnySize(MemoryBroker):
    @classmethod
    def from_url(cls, url: BrokerURL) -> Any:
        broker = super().from_url(url)
        broker._max_payload_bytes = 10**9
        return broker


@flawed_broker("test_broker_repr_hides_password")
class ShowsThePassword(MemoryBroker):
    @classmethod
    def from_url(cls, url: BrokerURL) -> Any:
        broker = super().from_url(url)
        broker.url = url  # type: ignore[attr-defined]
        return broker

    def __repr__(self) -> str:
        return f"<broker of {self.url.username}:{self.url.password}>"  # type: ignore[attr-defined]


@flawed_broker("test_unknown_option_is_rejected_with_valid_ones")
class IgnoresOptions(MemoryBroker):
    @classmethod
    def from_url(cls, url: BrokerURL) -> Any:
        return cls(url.name)


@flawed_broker("test_nothing_is_missing_after_broken_connection")
class ComesBackWithoutCatchingUp(Tampered):
    class between(Between):  # noqa: N801 -- an attribute
        def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: list[Any]) -> None:
            kept = [r for r in records if r.payload != b"after"]
            self.sink.on_records(partition, epoch, lo, hi, kept)

    @classmethod
    async def sever(cls) -> None: ...


@flawed_broker("test_cancelled_publish_is_stored_before_stop")
class WithdrawsWhatIsCancelledAtAStop(MemoryBroker):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.later: list[Callable[[], None]] = []

    def publish(self, *args: Any, **options: Any) -> Any:
        future = asyncio.get_running_loop().create_future()

        def now() -> None:
            receipt = super(WithdrawsWhatIsCancelledAtAStop, self).publish(*args, **options).result()
            if not future.done():
                future.set_result(receipt)

        self.later.append(lambda: None if future.cancelled() else now())
        asyncio.get_running_loop().call_soon(self.do_what_waits)
        return future

    def do_what_waits(self) -> None:
        while self.later:
            self.later.pop(0)()

    async def stop(self, **options: Any) -> None:
        self.do_what_waits()
        await super().stop(**options)


@flawed_broker("test_cancelled_stop_leaks_nothing")
class GivesUpItsStop(MemoryBroker):
    task: Any = None

    async def start(self, **options: Any) -> None:
        await super().start(**options)
        self.task = asyncio.get_running_loop().create_task(asyncio.Event().wait())

    async def stop(self, **options: Any) -> None:
        task, self.task = self.task, None
        await super().stop(**options)
        if task is not None:
            await asyncio.sleep(0)
            task.cancel()


@flawed_broker("test_cancelled_set_interest_does_not_affect_others")
class SharesTheWaitForAnInterest(MemoryBroker):
    confirmed: Any = None

    async def set_interest(self, partitions: frozenset[int]) -> Any:
        loop = asyncio.get_running_loop()
        if self.confirmed is None:
            self.confirmed = loop.create_future()
            loop.call_soon(loop.call_soon, self.confirm, self.confirmed)
        await self.confirmed
        self.confirmed = None
        return await super().set_interest(partitions)

    @staticmethod
    def confirm(future: Any) -> None:
        if not future.done():
            future.set_result(None)
