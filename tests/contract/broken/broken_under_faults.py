"""Memory brokers with a server that can fail: correct ones, and ones with one flaw each.

`FaultyBroker` simulates the connections to the server. A wipe changes the log itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import pytest
from dws_memory import MemoryBroker
from factory import BrokerSuite, BrokerSuiteInNoHurry, found_by

from dws_core.plugin import BrokerURL, GapReason, PublishOutcomeUnknown, Receipt
from dws_core.testing import BrokerFaults, FaultyBroker


class Fragile(FaultyBroker):
    """A broker that recovers when its server is disconnected, frozen, stopped or wiped."""

    capabilities = MemoryBroker.capabilities
    everybody: list[Any]

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

    def cut_commands(self) -> None:
        """Lose the replies to the next publishes. Every second call also loses the publishes themselves."""
        stack = ExitStack()
        self.count = getattr(self, "count", 0) + 1
        stack.enter_context(self.losing_answers(stored=bool(self.count % 2)))
        asyncio.get_running_loop().call_soon(stack.close)

    def wipe(self) -> None:
        wipe(self.broker, "00wiped0")

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
    for number, tail in broker._node._tails.items():
        tail.pending, tail.seen = [], 0
        broker._node._sink.on_discontinuity(number, GapReason.EPOCH, tail.partition.head)


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


class TestCorrectUnderFaults(BrokerSuiteInNoHurry, FaultSuite):
    kind = Correct


def flawed_broker(test: str) -> Callable[[type[Any]], type[Any]]:
    return found_by(test, FaultSuite)


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
