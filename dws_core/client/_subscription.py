"""Subscriptions of a client: limited queues of messages to iterate over."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Self

from dws_core._errors import DWSError
from dws_core._topics.router import Router
from dws_core._topics.trie import MqttMatcher
from dws_core.client._events import Gap, Message, NotSubscribed, Past, PastEnded, Subscribed

HARD_BOUND: Final = 10
"""Maximum size of a queue while the client must continue to read for a reply, as a multiple of `queue_messages`."""


class Subscription:
    """An async iterator over messages. Use it as a context manager to unsubscribe at the end of the block.

    ```python
    async with client.subscribe("chat/#") as messages:
        async for message in messages:
            print(message.topic, message.data)
    ```

    `Client.subscribe` and `Client.inbox` return it. Entering the block waits until the node has accepted the filter, so
    every message that is sent after that arrives. You may also iterate without a block. The subscription then lasts
    until the client is closed.

    Attributes:
        filter: Filter of the subscription. None for broadcasts and direct messages.
    """

    def __init__(
        self,
        filter_: str | None,
        *,
        number: int | None = None,
        queue_messages: int,
        on_change: Callable[[], None],
        on_close: Callable[[Subscription], None],
    ) -> None:
        self.filter: str | None = filter_
        self._number = number
        self._queue: deque[Message] = deque()
        self._queue_messages = queue_messages
        self._on_change = on_change
        self._on_close = on_close
        self._in_force = asyncio.Event()
        self._news = asyncio.Event()
        self._end: DWSError | None = None
        self._closed = False
        self._overflowing = False

    @property
    def full(self) -> bool:
        """Whether the queue is full, so that the client should stop reading."""
        return len(self._queue) >= self._queue_messages

    def close(self) -> None:
        """Unsubscribe. Queued messages are dropped and the iteration ends. Closing again does nothing."""
        if not self._closed:
            self._closed = True
            self._queue.clear()
            self._wake()
            self._on_close(self)

    async def ready(self) -> None:
        """Wait until the node has accepted the filter.

        Raises:
            Refused: The node does not allow the filter, or the filter is invalid.
            ConnectionClosed: The client is closed.
        """
        await self._in_force.wait()
        if self._end is not None and not self._queue:
            raise self._end

    async def __aenter__(self) -> Self:
        try:
            await self.ready()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            if self._end is not None:
                raise self._end
            self._news.clear()
            await self._news.wait()
        message = self._queue.popleft()
        self._on_change()
        return message

    # -- called by the client

    def put(self, message: Message) -> bool:
        """Queue a message, or drop it if the queue is at its hard limit.

        Return False for the first of a series of dropped messages, and True otherwise.
        """
        was_overflowing = self._overflowing
        self._overflowing = len(self._queue) >= self._queue_messages * HARD_BOUND
        if self._overflowing:
            return was_overflowing
        self._queue.append(message)
        self._news.set()
        return True

    def in_force(self) -> None:
        """Report that the node has accepted the filter."""
        self._in_force.set()

    def fail(self, error: DWSError) -> None:
        """End the iteration with an error, after the queued messages."""
        self._end = self._end or error
        self._wake()

    def _wake(self) -> None:
        self._in_force.set()
        self._news.set()
        self._on_change()


class Subscriptions:
    """All subscriptions of a client.

    Args:
        queue_messages: Maximum number of queued messages in each, before the client stops reading.
        on_change: Called when a queue has more room or a subscription has ended.
        on_close: Called with a subscription that the application has closed.
    """

    def __init__(
        self, *, queue_messages: int, on_change: Callable[[], None], on_close: Callable[[Subscription], None]
    ) -> None:
        self._all: dict[Subscription, None] = {}
        self._with_past: dict[int, Subscription] = {}  # until their past has arrived
        self._opened = 0
        self._matcher = MqttMatcher()
        self._router: Router[Subscription] = Router(self._matcher)
        self._queue_messages = queue_messages
        self._on_change = on_change
        self._on_close = on_close

    @property
    def full(self) -> bool:
        """Whether any queue is full."""
        return any(subscription.full for subscription in self._all)

    def add(self, filter_: str | None, *, with_past: bool = False) -> Subscription:
        """Add a subscription.

        Args:
            filter_: Its filter. If None, it receives broadcasts and direct messages.
            with_past: Whether it receives only messages of its past until the past has ended.

        Raises:
            InvalidFilter: The filter breaks a rule of MQTT 5.0 §4.7.
        """
        if filter_ is not None:
            self._matcher.check_filter(filter_)
        self._opened += with_past
        made = Subscription(
            filter_,
            number=self._opened if with_past else None,
            queue_messages=self._queue_messages,
            on_change=self._on_change,
            on_close=self._closed,
        )
        self._all[made] = None
        if with_past:
            self._with_past[self._opened] = made
        elif filter_ is not None:
            self._router.subscribe(made, filter_)
        return made

    def receive(self, event: Message | Past | PastEnded | Subscribed | NotSubscribed) -> list[Gap]:
        """Process an event. Return a gap for each subscription that drops a message."""
        match event:
            case Message():
                return self._deliver(event, self._receivers(event))
            case Past(subscription=number, message=message):
                return self._deliver(message, [self._with_past[number]])
            case PastEnded(subscription=number):
                made = self._with_past.pop(number)
                self._router.subscribe(made, made.filter or "")
            case Subscribed() | NotSubscribed():
                self._answered(event)
        return []

    def _receivers(self, message: Message) -> Iterable[Subscription]:
        if message.topic is not None:
            return self._router.receivers(message.topic)
        return [subscription for subscription in self._all if subscription.filter is None]

    def _deliver(self, message: Message, receivers: Iterable[Subscription]) -> list[Gap]:
        slow = [subscription for subscription in receivers if not subscription.put(message)]
        return [Gap(filters=(subscription.filter or "",), reason="overflow") for subscription in slow]

    def _answered(self, event: Subscribed | NotSubscribed) -> None:
        waiting = self._with_past.values() if event.subscription is not None else self._all
        for subscription in [found for found in waiting if self._concerns(event, found)]:
            if isinstance(event, NotSubscribed):
                self._remove(subscription)
                subscription.fail(event.error)
            else:
                subscription.in_force()

    def _concerns(self, event: Subscribed | NotSubscribed, subscription: Subscription) -> bool:
        if event.subscription is not None:
            return subscription._number == event.subscription
        return subscription.filter == event.filter and subscription._number not in self._with_past

    def fail(self, error: DWSError) -> None:
        """End all iterations with an error, after the queued messages."""
        for subscription in self._all:
            subscription.fail(error)

    def close(self) -> None:
        """Close all subscriptions."""
        for subscription in tuple(self._all):
            subscription.close()

    def _closed(self, subscription: Subscription) -> None:
        if self._remove(subscription):
            self._on_close(subscription)

    def _remove(self, subscription: Subscription) -> bool:
        self._router.remove(subscription)
        self._with_past.pop(subscription._number or 0, None)
        return self._all.pop(subscription, self) is None
