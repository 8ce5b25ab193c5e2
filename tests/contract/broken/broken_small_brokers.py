"""A minimal `BrokerInterface`, and ones with one flaw each."""

from __future__ import annotations

import asyncio
import fnmatch
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

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
