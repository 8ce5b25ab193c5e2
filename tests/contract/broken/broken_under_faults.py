"""Memory brokers with a server that can fail: correct ones, and ones with one flaw each.

`FaultyBroker` simulates the connections to the server. A wipe changes the log itself.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import pytest
from dws_memory import MemoryBroker
from factory import BrokerSuite, BrokerSuiteInNoHurry, found_by

from dws_core.plugin import (
    BrokerOverloaded,
    BrokerUnavailable,
    BrokerURL,
    GapReason,
    PublishOutcomeUnknown,
    ReadResult,
    Receipt,
)
from dws_core.testing import BrokerFaults, FaultyBroker


class Fragile(FaultyBroker):
    """A broker that recovers when its server is disconnected, frozen, stopped or wiped."""

    capabilities = MemoryBroker.capabilities
    everybody: list[Any]
    copies: list[dict[str, Any]]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.everybody = []

    @classmethod
    def from_url(cls, url: BrokerURL) -> Any:
        return cls(MemoryBroker.from_url(url))

    async def start(self, **arguments: Any) -> None:
        await super().start(**arguments)
        self.everybody.append(self)

    async def stop(self, **arguments: Any) -> None:
        await super().stop(**arguments)
        if self in self.everybody:
            self.everybody.remove(self)

    def cut_tail(self) -> None:
        self.cut_both()

    def cut_both(self) -> None:
        """Delay all events for a moment, and catch up."""
        stack = ExitStack()
        stack.enter_context(self.frozen())
        asyncio.get_running_loop().call_soon(stack.close)

    async def cut_commands(self) -> None:
        """Lose the replies to the publishes of a moment. Every second call also loses the publishes themselves."""
        self.count = getattr(self, "count", 0) + 1
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, over.set)
        with self.losing_answers(stored=bool(self.count % 2)):
            await over.wait()

    def wipe(self) -> None:
        wipe(self.broker, "00wiped0")

    def snapshot(self) -> None:
        Fragile.copies = [copy_of(partition) for partition in log_of(self).partitions]

    def set_back(self) -> None:
        """Return to the copy. Brokers notice that, and start a new epoch."""
        for partition, copied in zip(log_of(self).partitions, Fragile.copies, strict=True):
            restore(partition, copied)
        wipe_tails(self.broker, "00setback0")

    async def freeze(self) -> None:
        self.trouble = AsyncExitStack()
        self.trouble.enter_context(self.frozen())

    async def take_down(self) -> None:
        self.trouble = AsyncExitStack()
        await self.trouble.enter_async_context(self.unreachable())

    async def recover(self) -> None:
        await self.trouble.aclose()


def wipe(broker: Any, epoch: str) -> None:
    """Wipe a node's log, unless another node has done it, and report the loss to the node."""
    for partition in broker._log.partitions:
        if partition.epoch != epoch:
            readers = partition.readers
            partition.__init__(partition.number, epoch)
            partition.readers = readers
    wipe_tails(broker, epoch)


def wipe_tails(broker: Any, epoch: str) -> None:
    """Give the tails of a node a new baseline in this epoch."""
    for number, tail in broker._node._tails.items():
        tail.partition.epoch = epoch
        tail.pending, tail.seen = [], tail.partition.end
        broker._node._sink.on_discontinuity(number, GapReason.EPOCH, tail.partition.head)


def log_of(broker: Any) -> Any:
    return broker.broker._log


def copy_of(partition: Any) -> dict[str, Any]:
    """Copy what a partition stores, without its readers."""
    kept = {name: value for name, value in vars(partition).items() if name != "readers"}
    return copy.deepcopy(kept)


def restore(partition: Any, copied: dict[str, Any]) -> None:
    vars(partition).update(copy.deepcopy(copied))


class Faults(BrokerFaults):
    """Applies each fault to every node."""

    def __init__(self, kind: type[Fragile]) -> None:
        self.kind = kind

    async def cut_tail(self) -> None:
        await self.each("cut_tail")

    async def cut_commands(self) -> None:
        await self.each("cut_commands")

    async def restart(self) -> None:
        await self.each("cut_both")

    async def wipe(self) -> None:
        await self.each("wipe")

    async def snapshot(self) -> None:
        await self.each("snapshot")

    async def set_back(self) -> None:
        await self.each("set_back")

    async def freeze(self) -> None:
        await self.each("freeze")

    async def thaw(self) -> None:
        await self.each("recover")

    async def take_down(self) -> None:
        await self.each("take_down")
        self.kind.down = True  # type: ignore[attr-defined]

    async def bring_up(self) -> None:
        self.kind.down = False  # type: ignore[attr-defined]
        await self.each("recover")

    async def each(self, name: str) -> None:
        for broker in tuple(self.kind.everybody):
            if (done := getattr(broker, name)()) is not None:
                await done


class FaultSuite(BrokerSuite):
    @pytest.fixture
    def fault(self) -> BrokerFaults:
        return Faults(self.kind)


class Correct(Fragile):
    """A correct broker."""

    down = False

    async def start(self, **arguments: Any) -> None:
        if not self.down:
            await super().start(**arguments)
            return
        async with self.unreachable():
            await super().start(**arguments)


def flawed_broker(test: str, text: str = "") -> Callable[[type[Any]], type[Any]]:
    return found_by(test, FaultSuite, text)


@flawed_broker("test_broken_connections_lose_and_repeat_nothing")
class ComesBackWithoutCatchingUp(Correct):
    def cut_tail(self) -> None:
        """Lose all events in between, and continue the tail without a gap."""
        tail: Any = self._tail
        real, tail.on_records = tail.on_records, lambda *_: None
        asyncio.get_running_loop().call_later(0.005, setattr, tail, "on_records", real)


@flawed_broker("test_broken_connections_lose_and_repeat_nothing")
class TellsAGapInsteadOfCatchingUp(Correct):
    async def cut_tail(self) -> None:  # type: ignore[override]
        async with self.tail_cut():
            pass


@flawed_broker("test_broken_connections_lose_and_repeat_nothing")
class StoresTwiceAfterARetry(Correct):
    def publish(self, *args: Any, key: str | None = None, **options: Any) -> Any:
        return super().publish(*args, **options)


@flawed_broker("test_broken_connections_lose_and_repeat_nothing")
class SaysStoredWhatIsNot(Correct):
    def publish(self, *args: Any, **options: Any) -> Any:
        future = super().publish(*args, **options)
        if not future.done() or not isinstance(future.exception(), PublishOutcomeUnknown):
            return future
        lie = asyncio.get_running_loop().create_future()
        lie.set_result(Receipt(epoch="0", offset=1))
        return lie


@flawed_broker("test_wiped_log_starts_new_epoch_on_every_node")
class KeepsTheEpochAfterAWipe(Correct):
    def wipe(self) -> None:
        epoch = self.broker._log.partitions[0].epoch  # type: ignore[attr-defined]
        for partition in self.broker._log.partitions:  # type: ignore[attr-defined]
            partition.epoch = ""
        wipe(self.broker, epoch)


@flawed_broker("test_wiped_log_starts_new_epoch_on_every_node")
class TellsNobodyOfAWipe(Correct):
    def wipe(self) -> None:
        tail: Any = self._tail
        tail.on_discontinuity = lambda *_: None
        wipe(self.broker, "00wiped0")


@flawed_broker("test_frozen_broker_is_noticed_and_loses_nothing")
class NoticesNothing(Correct):
    async def freeze(self) -> None:
        tail: Any = self._tail
        tail.on_state, tail.hold = (lambda *_: None), (lambda: None)
        await super().freeze()


@flawed_broker("test_frozen_broker_is_noticed_and_loses_nothing")
class WaitsForEver(Correct):
    def publish(self, *args: Any, deadline_s: float = 10.0, **options: Any) -> Any:
        return super().publish(*args, deadline_s=1e6, **options)


@flawed_broker("test_unreachable_broker_fails_fast_and_recovers")
class StartsWhateverIsThere(Correct):
    async def start(self, **arguments: Any) -> None:
        await Fragile.start(self, **arguments)


@flawed_broker("test_unreachable_broker_fails_fast_and_recovers")
class DoesNotComeBack(Correct):
    async def recover(self) -> None: ...


class PatientSuite(BrokerSuiteInNoHurry, FaultSuite):
    """For flaws that are not found by a hang. A busy machine must not look like one."""


def flawed_outcome(test: str, text: str = "") -> Callable[[type[Any]], type[Any]]:
    return found_by(test, PatientSuite, text)


# -- outcomes of publishes without keys


@flawed_outcome("test_random_cuts_store_each_message_once", "messages arrived twice")
class ResendsUnderANewNumber(Correct):
    def publish(self, *args: Any, **options: Any) -> Any:
        """A reply was lost, but the message may be stored: publish it again, as another message."""
        future = super().publish(*args, **options)
        if not future.done() or not isinstance(future.exception(), PublishOutcomeUnknown):
            return future
        return self.broker.publish(*args, **options)


@flawed_outcome("test_random_cuts_store_each_message_once", "cuts lost no reply")
class LosesNoReply(Correct):
    """A fault of a driver, not of the broker: the connections break when all replies have arrived."""

    async def cut_commands(self) -> None: ...

    def cut_tail(self) -> None: ...


@flawed_outcome(
    "test_publish_without_reply_has_unknown_outcome", "which means that it is certainly not stored. But it arrived"
)
class DeniesWhatItHasSent(Correct):
    def publish(self, *args: Any, **options: Any) -> Any:
        return changed(super().publish(*args, **options), PublishOutcomeUnknown, BrokerUnavailable("no reply in time."))


@flawed_outcome("test_publish_without_reply_has_unknown_outcome", "let freeze() return when the server has stopped")
class IsNotReallyFrozen(Correct):
    def publish(self, *args: Any, **options: Any) -> Any:
        return self.broker.publish(*args, **options)


@flawed_outcome(
    "test_publish_without_reply_has_unknown_outcome", "Fix: let the server process what it received while it was frozen"
)
class ForgetsWhatArrivedWhileFrozen(Correct):
    def publish(self, *args: Any, deadline_s: float = 10.0, **options: Any) -> Any:
        if self._thawed.is_set() or deadline_s > 1.0:
            return super().publish(*args, deadline_s=deadline_s, **options)
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(deadline_s, give_up, future, PublishOutcomeUnknown("t"))
        return future


@flawed_broker("test_unsent_publish_is_certainly_not_stored", "publishes to raise BrokerUnavailable")
class DoesNotKnowWhatItHasSent(Correct):
    def publish(self, *args: Any, **options: Any) -> Any:
        return changed(super().publish(*args, **options), BrokerUnavailable, PublishOutcomeUnknown("t"))


class QueuesWhileDown(Correct):
    """A broker that keeps publishes for the time when its server is back, until their deadline."""

    most = 2**62
    queued = 0

    def publish(self, *args: Any, deadline_s: float = 10.0, **options: Any) -> Any:
        if not self._unreachable:
            return super().publish(*args, deadline_s=deadline_s, **options)
        if self.queued + len(args[2]) > self.most:
            return failed(BrokerOverloaded("too much waits."))
        self.queued += len(args[2])
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(deadline_s, give_up, future, BrokerUnavailable("the server is down."))
        return future


@flawed_outcome("test_full_queue_raises_broker_overloaded", "Fix: bound the queue in bytes")
class QueuesWithoutBound(QueuesWhileDown): ...


class QueuesWithBound(QueuesWhileDown):
    """A correct broker, like `Correct`, which queues nothing."""

    most = 10_000_000


class TestCorrectUnderFaults(PatientSuite):
    kind = QueuesWithBound


@flawed_outcome("test_second_fault_during_recovery_loses_nothing")
class ForgetsTheFirstFault(Correct):
    """While it catches up after one fault, another one makes it skip what is left."""

    catching_up = skips = False

    def cut_both(self) -> None:
        self.skips = self.catching_up
        if self.skips:
            return
        self.catching_up = True
        self._tail.hold()
        asyncio.get_running_loop().call_later(0.3, self.caught_up)

    def caught_up(self) -> None:
        self.catching_up = False
        if self.skips:
            self._tail._held.clear()
        self._tail.release()

    def cut_commands(self) -> None:
        self.cut_both()


# -- outages


@flawed_outcome("test_recovery_begun_during_outage_ends_after_it", "Fix: raise BrokerUnavailable")
class ReadsAGapWhileDown(Correct):
    async def freeze(self) -> None:
        self.trouble = AsyncExitStack()
        await self.trouble.enter_async_context(self.unreachable())

    async def read(self, span: Any) -> Any:
        return ReadResult(gap=GapReason.TRIMMED) if self._unreachable else await super().read(span)


@flawed_broker("test_recovery_given_up_during_outage_may_be_repeated")
class ReadsNothingAfterACancelledRead(Correct):
    cancelled = False

    async def read(self, span: Any) -> Any:
        if self.cancelled:
            raise BrokerUnavailable("the reader is lost.")
        try:
            return await super().read(span)
        except asyncio.CancelledError:
            self.cancelled = True
            raise


@flawed_outcome("test_failed_publish_is_not_overtaken", "Fix: fail them in the same step")
class LetsPublishesOvertake(Correct):
    def publish(self, *args: Any, order: Any = None, **options: Any) -> Any:
        return super().publish(*args, **options)


# -- logs that were set back


@flawed_outcome("test_log_that_was_set_back_starts_new_epoch", "stores new messages in the same epoch")
class BelievesALogThatWasSetBack(Correct):
    """It continues in the same epoch, with the offsets of the lost messages."""

    def set_back(self) -> None:
        for partition, copied in zip(log_of(self).partitions, Fragile.copies, strict=True):
            restore(partition, copied)
        for tail in self.broker._node._tails.values():  # type: ignore[attr-defined]
            tail.seen = tail.partition.end


@flawed_broker("test_log_that_was_set_back_starts_new_epoch")
class StartsANewEpochWithoutAGap(Correct):
    def set_back(self) -> None:
        tail: Any = self._tail
        tail.on_discontinuity = lambda *_: None
        super().set_back()


# -- control messages


@flawed_broker("test_control_messages_arrive_again_after_fault")
class SendsNoControlAfterACut(Correct):
    broken = False

    def cut_tail(self) -> None:
        self.broken = True
        super().cut_tail()

    async def send_control(self, payload: bytes) -> None:
        if not self.broken:
            await super().send_control(payload)


def changed(future: Any, before: type[Exception], after: Exception) -> Any:
    """Return a future with the same outcome, except for one kind of error."""
    result = asyncio.get_running_loop().create_future()

    def copy_outcome(done: Any) -> None:
        if result.done():
            return
        error = done.exception()
        if error is None:
            result.set_result(done.result())
        else:
            result.set_exception(after if isinstance(error, before) else error)

    if future.done():
        copy_outcome(future)
    else:
        future.add_done_callback(copy_outcome)
    return result


def failed(error: Exception) -> Any:
    future = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future


def give_up(future: Any, error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
