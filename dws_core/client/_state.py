"""The state of a client across its connections, and its implementation of the protocol. No I/O, no clock.

It makes the first message of a connection, updates the cursor, selects the requests to repeat, and turns frames of the
node into events. `docs/reference/protocol.md` is the specification.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dws_core._errors import PublishOutcomeUnknown
from dws_core._wire.client_errors import Refused
from dws_core._wire.cursor import Position, format_cursor, merge, parse_cursor, parse_position, replace
from dws_core._wire.message import JSON
from dws_core.client._events import (
    Answered,
    Connected,
    Event,
    Expiring,
    Failed,
    Gap,
    HelloRefused,
    Leave,
    Message,
    NotSubscribed,
    Requested,
    Subscribed,
)
from dws_core.client._members import broken, seconds_of, text_of, text_or_none, texts_of
from dws_core.client._replays import Replays

KEY_WINDOW_S: Final = 50.0
"""Time in which a publish may be repeated with the same key, in seconds. Brokers remember keys for 60 s."""


@dataclass(slots=True)
class _Request:
    message: dict[str, Any]
    sent_s: float | None = None  # when it was sent for the first time


def stored_messages(topic: str, reply: Mapping[str, Any]) -> list[Message]:
    """Return the messages of a reply to `history`.

    Raises:
        InvalidMessage: The reply breaks the protocol.
    """
    try:
        return [
            Message(
                data=found["data"],
                topic=topic,
                position=text_or_none(found, "pos"),
                sender=text_or_none(found, "from"),
            )
            for found in reply["messages"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise broken() from error


class ClientState:
    """The state of one client across all its connections.

    Args:
        key_prefix: Unguessable text that makes the keys of this client unique.
        client_id: Unguessable text that lets every node recognise the keys of this client.
        cursor: Cursor of an earlier client. If None, the client receives only new messages.

    Attributes:
        online: Whether the node has accepted the first message of the current connection.
        in_force: The filters that the node has accepted.

    Raises:
        InvalidMessage: The cursor is malformed.
    """

    def __init__(self, *, key_prefix: str, client_id: str | None = None, cursor: str | None = None) -> None:
        self.online: bool = False
        self.in_force: set[str] = set()
        self._key_prefix = key_prefix
        self._client_id = client_id
        self._cursor: dict[int, Position] | None = None if cursor is None else parse_cursor(cursor)
        self._filters: dict[str, int] = {}  # number of subscriptions of each
        self._number = 0
        self._hello_id = 0
        self._hello_filters: tuple[str, ...] = ()
        self._subscribing: dict[int, str] = {}
        self._replays = Replays()
        self._pending: dict[int, _Request] = {}  # in the order they were made
        self._gap_follows = False
        self._plain = False  # the node does not support `connect`, so clients cannot resume
        self._owes_gap = False  # messages may be lost, and the gap is not reported yet

    # -- requests of the application

    @property
    def cursor(self) -> str | None:
        """The current cursor, to resume from. None if the node has not sent one yet."""
        return None if self._cursor is None else format_cursor(self._cursor)

    @property
    def filters(self) -> tuple[str, ...]:
        """The filters of all subscriptions, each once."""
        return tuple(self._filters)

    @property
    def waits(self) -> bool:
        """Whether a request is unanswered."""
        return bool(self._pending or self._subscribing or self._replays.waits)

    def new_key(self) -> str:
        """Return a new, unique idempotency key."""
        return f"{self._key_prefix}{self._next_id():x}"

    def subscribe(self, filter_: str) -> dict[str, Any] | None:
        """Add a subscription of a filter. Return the message to send now, or None."""
        self._filters[filter_] = self._filters.get(filter_, 0) + 1
        return self._subscribe(filter_) if self.online and self._filters[filter_] == 1 else None

    def open(self, subscription: int, filter_: str, last: int) -> dict[str, Any] | None:
        """Add a subscription with a past of `last` messages. Return the message to send now, or None."""
        self._replays.open(subscription, filter_, last)
        return self.reopen(subscription)

    def reopen(self, subscription: int) -> dict[str, Any] | None:
        """Return the message that requests the rest of a past, or None if it cannot be sent now or is not needed."""
        return self._replays.request(subscription, self._next_id) if self.online else None

    def unsubscribe(self, filter_: str, subscription: int | None = None) -> dict[str, Any] | None:
        """Remove a subscription of a filter. Return the message to send now, or None.

        `subscription` is its number if it was opened with a past.
        """
        if not self._replays.close(subscription) and not self._uncount(filter_):
            return None
        needed = filter_ in self._filters or self._replays.need(filter_)
        return self._unsubscribe(filter_) if self.online and not needed else None

    def request(self, members: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Number a request. It is sent again on each new connection until it is answered or forgotten.

        A publish must have a `key`. Without a key, the repeat would be a second message.
        """
        number = self._next_id()
        message = {**members, "id": number}
        self._pending[number] = _Request(message)
        return number, message

    def sent(self, number: int, now: float) -> None:
        """Report that a request is sent at the time `now`, in seconds."""
        if (request := self._pending.get(number)) is not None and request.sent_s is None:
            request.sent_s = now

    def forget(self, number: int) -> None:
        """Drop a request whose reply is no longer needed."""
        self._pending.pop(number, None)

    # -- connections begin and end

    def hello(self) -> dict[str, Any]:
        """Return the first message of a new connection."""
        self._hello_id = self._next_id()
        self._hello_filters = self.filters
        data: dict[str, Any] = {"filters": list(self._hello_filters)}
        if self._client_id is not None:
            data["client_id"] = self._client_id
        if self._cursor is not None:
            data["cursor"] = format_cursor(self._cursor)
        return {"type": "connect", "id": self._hello_id, "data": data}

    def resume(self, now: float) -> tuple[list[dict[str, Any]], list[Failed]]:
        """Return the messages to send after the first one was accepted, and the requests that are too old to repeat."""
        accepted = () if self._plain else self._hello_filters
        messages = [self._unsubscribe(filter_) for filter_ in accepted if filter_ not in self._filters]
        messages += [self._subscribe(filter_) for filter_ in self._filters if filter_ not in accepted]
        messages += self._replays.requests(self._next_id)
        failed: list[Failed] = []
        for number, request in list(self._pending.items()):
            key = request.message.get("key")
            if key is not None and request.sent_s is not None and now - request.sent_s > KEY_WINDOW_S:
                topic = str(request.message.get("topic", request.message["type"]))
                failed.append(Failed(id=number, error=PublishOutcomeUnknown(topic)))
                self.forget(number)
            else:
                self.sent(number, now)
                messages.append(request.message)
        return messages, failed

    def offline(self) -> None:
        """Report that the connection is closed."""
        self._owes_gap |= self.online and self._cursor is None
        self.online = False
        self._gap_follows = False
        self._subscribing.clear()
        self._replays.offline()
        self.in_force.clear()

    # -- frames of the node

    def receive(self, frame: JSON) -> list[Event]:
        """Return the events of a frame. Frames of unknown types are ignored.

        Raises:
            InvalidMessage: The frame breaks the protocol. The connection must be closed.
        """
        try:
            read = self._READERS.get(frame["type"])
            return [] if read is None else list(read(self, frame))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise broken() from error

    def _read_message(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        if not (self.online or self._plain):
            return  # the replay starts at the cursor, so messages before the reply to `connect` are sent again
        names = ("pos", "topic", "conn_id", "user", "from")
        text, topic, conn_id, user, sender = (text_or_none(frame, name) for name in names)
        message = Message(data=frame["data"], topic=topic, conn_id=conn_id, user=user, position=text, sender=sender)
        position = None if text is None else parse_position(text)
        news = {} if position is None else {position.partition: position}
        if "replay" in frame:
            yield from self._replays.on_message(frame["replay"], message, news)
            return
        self._merge(news)
        yield message

    def _read_request(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        timeout_s = seconds_of(frame, "timeout_s")
        yield Requested(data=frame["data"], reply_to=text_of(frame, "reply_to"), timeout_s=timeout_s)

    def _read_connected(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        recovered, cursor = frame.get("recovered"), parse_cursor(frame["cursor"])
        self._plain, self._gap_follows = False, recovered is False
        if not self._gap_follows:  # otherwise the gap moves it, so that a connection lost before cannot hide the loss
            self._cursor = replace(self._cursor or {}, cursor)
        yield from self._connected(Connected(conn_id=text_of(frame, "conn_id"), recovered=recovered))
        for filter_ in self._hello_filters:
            yield self._subscribed(filter_)

    def _read_ack(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        number = frame["id"]
        if "recovered" in frame and number in self._replays:
            yield from self._replays.on_ack(number, parse_cursor(frame["cursor"]), recovered=frame["recovered"] is True)
        elif number in self._replays:  # the node does not support `last`
            yield from self._replayed(frame)
        elif (filter_ := self._subscribing.pop(number, None)) is not None:
            self._replace(frame)
            yield self._subscribed(filter_)
        else:
            yield from self._answered(frame)

    def _read_replayed(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        yield from self._replayed(frame)

    def _read_history(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        yield from self._answered(frame)

    def _read_error(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        retry_in_s = None if frame.get("retry_in_s") is None else seconds_of(frame, "retry_in_s")
        temporary = frame["temporary"] is True
        error = Refused(text_of(frame, "code"), text_of(frame, "message"), temporary=temporary, retry_in_s=retry_in_s)
        number = frame.get("id", 0)  # 0 is the id of no request
        if number == self._hello_id and not self.online:
            yield from self._refused(error)
        elif number in self._replays:
            yield from self._replays.on_error(number, error)
        elif (filter_ := self._subscribing.pop(number, None)) is not None:
            self._filters.pop(filter_, None)
            yield NotSubscribed(filter=filter_, error=error)
        elif self._pending.pop(number, None) is not None:
            yield Failed(id=number, error=error)

    def _refused(self, error: Refused) -> Iterable[Event]:
        had_cursor = self._cursor is not None
        if error.code == "unknown-type":  # subscribe to each filter instead
            self._plain, self._cursor = True, None
            self._owes_gap |= had_cursor
            yield from self._connected(Connected(conn_id=None, recovered=None))
        elif error.code == "invalid-message" and had_cursor:  # try again without the cursor
            self._cursor, self._owes_gap = None, True
            yield HelloRefused(error=Refused(error.code, error.message, temporary=True))
        else:
            yield HelloRefused(error=error)

    def _read_gap(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        news, reason, filters = parse_cursor(frame["cursor"]), text_of(frame, "reason"), texts_of(frame, "filters")
        gap = Gap(filters=filters, reason=reason)
        if "replay" in frame:
            yield from self._replays.on_gap(frame["replay"], gap, news)
            return
        if self._gap_follows:
            self._gap_follows = False
            self._cursor = replace(self._cursor or {}, news)
        else:
            self._merge(news)
        yield gap

    def _read_pos(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        self._merge(parse_cursor(frame["cursor"]))
        return ()

    def _read_reconnect(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        yield Leave(in_s=seconds_of(frame, "in_s"))

    def _read_expiring(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        yield Expiring(in_s=seconds_of(frame, "in_s"))

    def _read_unsubscribed(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        filter_, reason = text_of(frame, "topic"), text_of(frame, "reason")
        error = Refused(reason, f"the node has removed the filter {filter_!r}")
        self.in_force.discard(filter_)
        if self._filters.pop(filter_, None) is not None:
            yield NotSubscribed(filter=filter_, error=error)
        yield from self._replays.on_unsubscribed(filter_, error)

    _READERS: Final = {
        "message": _read_message,
        "request": _read_request,
        "connected": _read_connected,
        "ack": _read_ack,
        "history": _read_history,
        "error": _read_error,
        "gap": _read_gap,
        "pos": _read_pos,
        "replayed": _read_replayed,
        "reconnect": _read_reconnect,
        "expiring": _read_expiring,
        "unsubscribed": _read_unsubscribed,
    }

    # -- inside

    def _answered(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        if self._pending.pop(frame["id"], None) is not None:
            yield Answered(id=frame["id"], frame=frame)

    def _connected(self, event: Connected) -> Iterable[Event]:
        self.online = True
        yield event
        if self._owes_gap:
            self._owes_gap = False
            if self._filters:
                yield Gap(filters=self.filters, reason="unsupported")

    def _replayed(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        """End a past: the cursor now covers its filter as well."""
        self._replace(frame)
        for event in self._replays.on_end(frame["id"]):
            if isinstance(event, Subscribed):
                self._filters[event.filter] = self._filters.get(event.filter, 0) + 1
                self.in_force.add(event.filter)
            yield event

    def _uncount(self, filter_: str) -> bool:
        """Remove one of the subscriptions without a past. Return False if the filter has none."""
        count = self._filters.pop(filter_, 0)
        if count > 1:
            self._filters[filter_] = count - 1
        return count > 0

    def _replace(self, frame: Mapping[str, Any]) -> None:
        if "cursor" in frame and not self._plain:
            self._cursor = replace(self._cursor or {}, parse_cursor(frame["cursor"]))

    def _subscribed(self, filter_: str) -> Subscribed:
        self.in_force.add(filter_)
        return Subscribed(filter=filter_)

    def _merge(self, news: Mapping[int, Position]) -> None:
        if not self._plain:
            self._cursor = merge(self._cursor or {}, news)

    def _subscribe(self, filter_: str) -> dict[str, Any]:
        number = self._next_id()
        self._subscribing[number] = filter_
        return {"type": "subscribe", "topic": filter_, "id": number}

    def _unsubscribe(self, filter_: str) -> dict[str, Any]:
        self.in_force.discard(filter_)
        return {"type": "unsubscribe", "topic": filter_}

    def _next_id(self) -> int:
        self._number += 1
        return self._number
