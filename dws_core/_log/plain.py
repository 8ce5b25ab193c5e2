"""The contract of a broker without a log: `BrokerInterface`, six methods, at most once, no history."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import msgspec

from dws_core._wire.message import Message

if TYPE_CHECKING:
    from dws_core._url import BrokerURL


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerCapabilities:
    """Guarantees of a `BrokerInterface`. They select its conformance tests.

    Attributes:
        cross_process: Whether nodes in different processes receive each other's messages.
        ordering: `per-publisher`: the messages of one publisher to a channel arrive in order. `total`: all nodes receive
            all messages in one order. `none`: no order.
        delivery: Delivery guarantee for a connected node.
        max_payload_bytes: Maximum payload size, in bytes. A larger one raises `PayloadTooLarge`.
    """

    cross_process: bool
    ordering: Literal["none", "per-publisher", "total"] = "per-publisher"
    delivery: Literal["at-most-once", "at-least-once"] = "at-most-once"
    max_payload_bytes: int = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message that a `BrokerInterface` delivers to its node.

    Attributes:
        channel: The subscribed channel.
        payload: The published bytes.
    """

    channel: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _NoOptions:
    """The options of a URL that has none."""


class BrokerInterface(ABC):
    """Publish/subscribe on channels, at most once, no history.

    **Lost connections.** The node tells its clients that messages may be lost if, and only if, `deliveries` reports it:
    it raises an exception, or it ends. The node then calls `disconnect`, waits, and calls `connect` and `subscribe` on
    the same object. If one of them fails, it calls `disconnect` again and repeats both later. After success it reads a new
    `deliveries` iterator. A broker may reconnect on its own, without a report, only if no message was lost. Otherwise
    clients miss messages and receive no gap.

    One object serves one node, on one event loop. Override `deliveries` or `get_message`. A broker that was written for
    the original library overrides `get_message` and works unchanged: the core uses one channel, publishes a `dict` and
    expects a `Message`.
    """

    capabilities: ClassVar[BrokerCapabilities] = BrokerCapabilities(cross_process=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.deliveries is BrokerInterface.deliveries and cls.get_message is BrokerInterface.get_message:
            raise TypeError(
                f"{cls.__module__}.{cls.__qualname__} overrides neither deliveries() nor get_message(), so nothing "
                "could be received. Fix: override deliveries(), an async iterator of Delivery"
            )

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        """Build a broker without I/O. The default uses nothing of the URL.

        Raises:
            InvalidBrokerURL: The URL has an option. The default has none.
        """
        url.read_options(_NoOptions)
        return cls()

    @abstractmethod
    async def connect(self) -> None:
        """Connect. Called again after `disconnect`, on the same object, when a connection was lost.

        Raises:
            BrokerUnavailable: The broker cannot be reached. The message names the masked URL. The object can be connected
                later.
        """

    @abstractmethod
    async def disconnect(self) -> None:
        """Disconnect, end `deliveries()`, and forget all subscriptions. Idempotent. Leaves no task or socket.

        Called in every state: connected, after a lost connection, after a failed `connect`, and before the first. Do not
        wait for a server that does not answer: the node waits for 5 s. If it raises an exception, the node logs it and
        goes on.
        """

    @abstractmethod
    async def subscribe(self, channel: str) -> None:
        """Start to receive a channel. Return once every later publish to it is certain to arrive. Idempotent."""

    @abstractmethod
    async def unsubscribe(self, channel: str) -> None:
        """Stop receiving a channel. A channel that is not subscribed is no error."""

    @abstractmethod
    async def publish(self, channel: str, message: Any) -> None:
        """Send to every node that subscribes to the channel, including this one. Return once the broker has it.

        Args:
            channel: Literal name, no wildcards.
            message: `bytes`. A broker of the original library (one that overrides `get_message`) receives a `dict`.

        Raises:
            PayloadTooLarge: Over `capabilities.max_payload_bytes`.
            BrokerClosed: Before `connect` or after `disconnect`.
            BrokerUnavailable: The broker cannot be reached, or the connection is lost.
        """

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """Iterate over arriving messages until `disconnect`. One consumer. Cancelling a wait loses no message.

        If the connection is lost and messages may be lost with it, raise an exception, or end. Messages that have arrived
        before may be delivered first. Never deliver a later message without this report.

        Raises:
            Exception: Messages may be lost. Any class will do. The node logs it.

        Not called on a broker that overrides `get_message` instead.
        """
        raise NotImplementedError(f"{type(self).__qualname__} is read through get_message()")
        yield  # type: ignore[unreachable]  # makes this an async generator, as overriding methods are

    async def get_message(self, **kwargs: Any) -> Message | None:
        """Return the next message in the form of the original library, or None if there is none.

        An exception reports that messages may be lost, as in `deliveries`.

        The default reads the payload of the next delivery as JSON. It returns None once `deliveries()` has ended.
        """
        async for delivery in self.deliveries():
            return Message.from_client_message(data=msgspec.json.decode(delivery.payload))
        return None
