"""The subscriptions of a client whose past is still arriving, and the rules for it. No I/O, no clock.

Each has its own cursor, up to where its past has arrived. After a lost connection, it requests the rest of its past. The
client's cursor covers the filter of a subscription from the end of its past on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dws_core._wire.client_errors import Refused
from dws_core._wire.cursor import Position, format_cursor, merge
from dws_core.client._events import Event, Gap, Message, NotSubscribed, Past, PastEnded, Postponed, Subscribed


@dataclass(slots=True)
class _Replay:
    subscription: int
    filter: str
    last: int
    number: int = 0  # id of its request on the current connection, 0 if there is none
    waits: bool = False  # the request is unanswered
    cursor: Mapping[int, Position] | None = None  # up to where the past has arrived, None before the first answer


class Replays:
    """All subscriptions of a client whose past is still arriving. They are numbered by the caller."""

    def __init__(self) -> None:
        self._all: dict[int, _Replay] = {}
        self._requested: dict[int, _Replay] = {}  # by the id of the request

    def __contains__(self, number: object) -> bool:
        """Return whether a request of the current connection belongs to a subscription here."""
        return number in self._requested

    @property
    def waits(self) -> bool:
        """Whether a request is unanswered."""
        return any(replay.waits for replay in self._requested.values())

    def open(self, subscription: int, filter_: str, last: int) -> None:
        """Add a subscription with a past of `last` messages."""
        self._all[subscription] = _Replay(subscription, filter_, last)

    def close(self, subscription: int | None) -> bool:
        """Remove a subscription. Return False if it is not here."""
        replay = None if subscription is None else self._all.pop(subscription, None)
        if replay is not None:
            self._requested.pop(replay.number, None)
        return replay is not None

    def need(self, filter_: str) -> bool:
        """Return whether a subscription has a filter."""
        return any(replay.filter == filter_ for replay in self._all.values())

    def request(self, subscription: int, new_id: Callable[[], int]) -> dict[str, Any] | None:
        """Return the message that requests the rest of a past. None if it is requested already, or not needed."""
        replay = self._all.get(subscription)
        if replay is None or replay.number:
            return None
        replay.number, replay.waits = new_id(), True
        self._requested[replay.number] = replay
        begin = {"last": replay.last} if replay.cursor is None else {"cursor": format_cursor(replay.cursor)}
        return {"type": "subscribe", "topic": replay.filter, "id": replay.number, **begin}

    def requests(self, new_id: Callable[[], int]) -> list[dict[str, Any]]:
        """Return the messages that request the rest of each past."""
        found = [self.request(subscription, new_id) for subscription in self._all]
        return [message for message in found if message is not None]

    def offline(self) -> None:
        """Report that the connection is closed."""
        for replay in self._requested.values():
            replay.number, replay.waits = 0, False
        self._requested.clear()

    # -- frames of the node

    def on_ack(self, number: int, begin: Mapping[int, Position], *, recovered: bool) -> Iterable[Event]:
        """Process the answer to a request. If it is not recovered, a gap follows and completes the answer.

        Until then, nothing changes, so that a connection that is lost before the gap cannot hide the loss.
        """
        replay = self._requested[number]
        if recovered:
            replay.cursor = begin
            yield _accepted(replay)

    def on_message(self, number: object, message: Message, news: Mapping[int, Position]) -> Iterable[Event]:
        """Process a message of a past. It is ignored if its subscription is closed."""
        if (replay := self._find(number)) is not None:
            replay.cursor = merge(replay.cursor or {}, news)
            yield Past(subscription=replay.subscription, message=message)

    def on_gap(self, number: object, gap: Gap, news: Mapping[int, Position]) -> Iterable[Event]:
        """Process a gap in a past."""
        if (replay := self._find(number)) is not None:
            replay.cursor = merge(replay.cursor or {}, news)
            yield gap
            if replay.waits:
                yield _accepted(replay)

    def on_end(self, number: int) -> Iterable[Event]:
        """Process the end of a past. The filter belongs to the client's other filters from now on."""
        if (replay := self._requested.pop(number, None)) is not None:
            del self._all[replay.subscription]
            yield _accepted(replay)
            yield PastEnded(subscription=replay.subscription)

    def on_error(self, number: int, error: Refused) -> Iterable[Event]:
        """Process the refusal of a request."""
        replay = self._requested.pop(number)
        if error.temporary:
            replay.number, replay.waits = 0, False
            yield Postponed(subscription=replay.subscription, retry_in_s=error.retry_in_s or 0.0)
        else:
            del self._all[replay.subscription]
            yield NotSubscribed(filter=replay.filter, error=error, subscription=replay.subscription)

    def on_unsubscribed(self, filter_: str, error: Refused) -> Iterable[Event]:
        """Process the removal of a filter by the node. A request that is unanswered gets its own answer."""
        for replay in [found for found in self._requested.values() if found.filter == filter_ and not found.waits]:
            self.close(replay.subscription)
            yield NotSubscribed(filter=filter_, error=error, subscription=replay.subscription)

    def _find(self, number: object) -> _Replay | None:
        return self._requested.get(number) if isinstance(number, int) else None


def _accepted(replay: _Replay) -> Subscribed:
    replay.waits = False
    return Subscribed(filter=replay.filter, subscription=replay.subscription)
