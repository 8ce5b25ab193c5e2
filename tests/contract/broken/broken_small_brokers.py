"""A minimal `BrokerInterface`, and ones with one flaw each."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from factory import BrokerSuite, BrokerSuiteInNoHurry, found_by

from dws_core.plugin import (
    BrokerCapabilities,
    BrokerClosed,
    BrokerInterface,
    BrokerUnavailable,
    BrokerURL,
    Delivery,
    PayloadTooLarge,
)
from dws_core.testing import BrokerFaults


@dataclass(frozen=True)
class NoOptions:
    """The options of `SmallBroker`'s URL, which has none."""


class SmallBroker(BrokerInterface):
    """A minimal broker."""

    capabilities = BrokerCapabilities(cross_process=False, ordering="total", max_payload_bytes=100_000)
    everybody: list[SmallBroker]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.everybody = []

    def __init__(self) -> None:
        self.channels: set[str] = set()
        self.queue: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self.open = False

    @classmethod
    def from_url(cls, url: BrokerURL) -> SmallBroker:
        url.read_options(NoOptions)
        return cls()

    async def connect(self) -> None:
        self.open = True
        self.everybody.append(self)

    async def disconnect(self) -> None:
        if self.open:
            self.open = False
            self.everybody.remove(self)
            self.queue.put_nowait(None)

    async def subscribe(self, channel: str) -> None:
        self.channels.add(channel)

    async def unsubscribe(self, channel: str) -> None:
        self.channels.discard(channel)

    async def publish(self, channel: str, message: bytes) -> None:
        if not self.open:
            raise BrokerClosed("this broker is not connected.")
        if len(message) > self.capabilities.max_payload_bytes:
            raise PayloadTooLarge(len(message), self.capabilities.max_payload_bytes)
        for broker in self.everybody:
            if broker.wants(channel):
                broker.queue.put_nowait(Delivery(channel=channel, payload=message))

    def wants(self, channel: str) -> bool:
        return channel in self.channels

    async def deliveries(self) -> AsyncIterator[Delivery]:
        while (delivery := await self.queue.get()) is not None:
            yield delivery


class CorrectSmallBroker(SmallBroker):
    """A correct broker. It loses three messages when its connection is cut."""

    lost = 0

    @classmethod
    async def sever(cls) -> None:
        cls.lost = 3

    async def publish(self, channel: str, message: bytes) -> None:
        if self.lost:
            type(self).lost -= 1
            raise BrokerUnavailable("this broker was cut off.")
        await super().publish(channel, message)


class TestCorrectSmallBroker(BrokerSuiteInNoHurry):
    kind = CorrectSmallBroker


def flawed_broker(test: str) -> Callable[[type[Any]], type[Any]]:
    return found_by(test, BrokerSuite)


@flawed_broker("test_thousand_messages_arrive_in_order")
class LosesOneInAThousand(SmallBroker):
    count = 0

    async def publish(self, channel: str, message: bytes) -> None:
        self.count += 1
        if self.count % 900:
            await super().publish(channel, message)


@flawed_broker("test_repeated_subscribe_delivers_once")
class CountsSubscriptions(SmallBroker):
    def __init__(self) -> None:
        super().__init__()
        self.subscriptions: list[str] = []

    async def subscribe(self, channel: str) -> None:
        await super().subscribe(channel)
        self.subscriptions.append(channel)

    async def deliveries(self) -> AsyncIterator[Delivery]:
        async for delivery in super().deliveries():
            for _ in range(self.subscriptions.count(delivery.channel)):
                yield delivery


@flawed_broker("test_channel_name_is_literal")
class TakesChannelsForPatterns(SmallBroker):
    def wants(self, channel: str) -> bool:
        return any(fnmatch.fnmatchcase(channel, pattern) for pattern in self.channels)


@flawed_broker("test_unsubscribed_node_receives_nothing")
class NeverUnsubscribes(SmallBroker):
    async def unsubscribe(self, channel: str) -> None:
        pass


@flawed_broker("test_unsubscribe_without_subscription_is_no_error")
class ComplainsAboutUnknownChannels(SmallBroker):
    async def unsubscribe(self, channel: str) -> None:
        self.channels.remove(channel)


@flawed_broker("test_every_node_receives_publish_once")
class DoesNotHearItself(SmallBroker):
    async def publish(self, channel: str, message: bytes) -> None:
        self.channels.discard(channel)
        await super().publish(channel, message)
        self.channels.add(channel)


@flawed_broker("test_node_misses_nothing_once_subscribed")
class SubscribesALittleLater(SmallBroker):
    async def subscribe(self, channel: str) -> None:
        asyncio.get_running_loop().call_soon(self.channels.add, channel)


@flawed_broker("test_publish_before_start_raises_broker_closed")
class TakesMessagesBeforeTheStart(SmallBroker):
    async def publish(self, channel: str, message: bytes) -> None:
        if self.open:
            await super().publish(channel, message)


@flawed_broker("test_disconnect_ends_deliveries")
class NeverEndsItsDeliveries(SmallBroker):
    async def deliveries(self) -> AsyncIterator[Delivery]:
        while True:
            if (delivery := await self.queue.get()) is not None:
                yield delivery


@flawed_broker("test_cancelled_receive_loses_nothing")
class LosesWhatACancelledWaitWouldHaveGiven(SmallBroker):
    async def deliveries(self) -> AsyncIterator[Delivery]:
        try:
            async for delivery in super().deliveries():
                yield delivery
        except asyncio.CancelledError:
            self.channels.clear()
            raise


@flawed_broker("test_node_that_does_not_read_delays_no_other")
class WaitsForSlowReaders(SmallBroker):
    async def publish(self, channel: str, message: bytes) -> None:
        await super().publish(channel, message)
        if any(broker.queue.qsize() > 50 for broker in self.everybody if broker is not self):
            await asyncio.Event().wait()


@flawed_broker("test_any_bytes_arrive_unchanged")
class ThinksEverythingIsText(SmallBroker):
    async def publish(self, channel: str, message: bytes) -> None:
        await super().publish(channel, message.decode(errors="replace").encode())


@flawed_broker("test_messages_of_many_channels_do_not_mix")
class MixesUpChannels(SmallBroker):
    last = ""

    async def publish(self, channel: str, message: bytes) -> None:
        self.last, channel = channel, self.last or channel
        await super().publish(channel, message)


@flawed_broker("test_all_nodes_see_one_order_if_promised")
class HasAnOrderForEachNode(SmallBroker):
    async def publish(self, channel: str, message: bytes) -> None:
        delivery = Delivery(channel=channel, payload=message)
        self.queue.put_nowait(delivery)
        await asyncio.sleep(0)
        for broker in self.everybody:
            if broker is not self:
                broker.queue.put_nowait(delivery)


@flawed_broker("test_loaded_class_matches_record")
class PromisesMoreThanItHas(SmallBroker):
    promised = BrokerCapabilities(cross_process=True)


@flawed_broker("test_messages_arrive_again_after_broken_connection")
class StaysAwayWhenItWasCutOff(SmallBroker):
    @classmethod
    async def sever(cls) -> None:
        for broker in cls.everybody:
            broker.channels.clear()


# -- lost connections


class CorrectInterruptedBroker(SmallBroker):
    """A correct broker whose server can fail. Its deliveries end or raise when the connection is lost."""

    down = False
    attempts = 0
    running = asyncio.Event()
    running.set()

    async def connect(self) -> None:
        if self.down:
            raise BrokerUnavailable("this broker is down.")
        self.queue = asyncio.Queue()
        await super().connect()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.running = asyncio.Event()
        cls.running.set()

    async def disconnect(self) -> None:
        self.channels.clear()
        if self in self.everybody:
            self.everybody.remove(self)
        if self.open:
            self.open = False
            self.queue.put_nowait(None)

    async def publish(self, channel: str, message: bytes) -> None:
        await self.running.wait()
        if self.open and self not in self.everybody:
            raise BrokerUnavailable("this broker has lost its connection.")
        await super().publish(channel, message)

    async def deliveries(self) -> AsyncIterator[Delivery]:
        async for delivery in super().deliveries():
            yield delivery
        if self.open and self.attempts % 2:
            raise BrokerUnavailable("this broker has lost its connection.")

    def lose_connection(self) -> None:
        self.attempts += 1
        self.everybody.remove(self)
        self.queue.put_nowait(None)

    @classmethod
    async def sever(cls) -> None:
        for broker in list(cls.everybody):
            broker.lose_connection()


class Outages(BrokerFaults):
    """Faults of the server of an interrupted broker."""

    def __init__(self, kind: type[CorrectInterruptedBroker]) -> None:
        self.kind = kind

    async def cut_tail(self) -> None:
        await self.kind.sever()

    async def restart(self) -> None:
        await self.take_down()
        await asyncio.sleep(0)
        await self.bring_up()

    async def take_down(self) -> None:
        self.kind.down = True
        await self.kind.sever()

    async def bring_up(self) -> None:
        self.kind.down = False

    async def freeze(self) -> None:
        self.kind.running = asyncio.Event()

    async def thaw(self) -> None:
        self.kind.running.set()


class InterruptedSuite(BrokerSuite):
    """The suite with all faults of plain brokers."""

    @pytest.fixture
    def fault(self) -> BrokerFaults:
        return Outages(self.kind)


class TestCorrectInterruptedBroker(InterruptedSuite, BrokerSuiteInNoHurry):
    kind = CorrectInterruptedBroker


def flawed_when_interrupted(test: str, text: str = "") -> Callable[[type[Any]], type[Any]]:
    return found_by(test, InterruptedSuite, text)


@flawed_when_interrupted("test_lost_connection_loses_nothing_or_is_reported")
class ReconnectsSilently(CorrectInterruptedBroker):
    deaf = 0

    def lose_connection(self) -> None:
        self.deaf = 3

    def wants(self, channel: str) -> bool:
        if self.deaf:
            self.deaf -= 1
            return False
        return super().wants(channel)


@flawed_when_interrupted("test_severed_connection_loses_nothing_or_is_reported")
class ReportsTheLossTooLate(ReconnectsSilently):
    async def deliveries(self) -> AsyncIterator[Delivery]:
        async for delivery in super().deliveries():
            yield delivery
            if delivery.payload.startswith(b"end"):
                raise BrokerUnavailable("messages were lost before.")


@flawed_when_interrupted("test_lost_connection_loses_nothing_or_is_reported")
class WaitsForAGoodbyeOfTheServer(CorrectInterruptedBroker):
    async def disconnect(self) -> None:
        if self.open and self not in self.everybody:
            await asyncio.Event().wait()
        await super().disconnect()


@flawed_when_interrupted("test_messages_arrive_again_after_broken_connection")
class KeepsItsDeadConnection(CorrectInterruptedBroker):
    async def connect(self) -> None:
        if not self.attempts:
            await super().connect()


@flawed_when_interrupted("test_interrupted_broker_connects_again")
class ConnectsOnlyOnce(CorrectInterruptedBroker):
    used = False

    async def connect(self) -> None:
        if self.used:
            raise RuntimeError("this object was connected before")
        self.used = True
        await super().connect()


@flawed_when_interrupted("test_interrupted_broker_connects_again")
class DeliversTwiceAfterAReconnect(CorrectInterruptedBroker):
    times = 0

    async def connect(self) -> None:
        await super().connect()
        self.times += 1

    async def publish(self, channel: str, message: bytes) -> None:
        await super().publish(channel, message)
        for broker in self.everybody:
            for _ in range(broker.times - 1):
                broker.queue.put_nowait(Delivery(channel=channel, payload=message))


@flawed_when_interrupted("test_unreachable_broker_is_reached_again")
class CannotHangUpAfterAFailedConnect(CorrectInterruptedBroker):
    async def disconnect(self) -> None:
        if not self.open:
            raise RuntimeError("there is no connection to close")
        await super().disconnect()


@flawed_when_interrupted("test_unreachable_broker_is_reached_again")
class StaysBlockedAfterAFailedConnect(CorrectInterruptedBroker):
    connecting = False

    async def connect(self) -> None:
        if self.connecting:
            raise RuntimeError("this broker is connecting already")
        self.connecting = True
        await super().connect()
        self.connecting = False


@flawed_when_interrupted("test_unreachable_broker_is_reached_again")
class RaisesItsClientsOwnError(CorrectInterruptedBroker):
    async def connect(self) -> None:
        if self.down:
            raise ConnectionRefusedError("port 1")
        await super().connect()


@flawed_when_interrupted("test_frozen_server_loses_nothing_or_is_reported")
class LosesWhatItSendsToAFrozenServer(CorrectInterruptedBroker):
    async def publish(self, channel: str, message: bytes) -> None:
        if self.running.is_set():
            await super().publish(channel, message)


@flawed_when_interrupted("test_disconnect_does_not_wait_for_frozen_server", "Fix: close the connection without a reply")
class SaysGoodbyeToAFrozenServer(CorrectInterruptedBroker):
    async def disconnect(self) -> None:
        await self.running.wait()
        await super().disconnect()
