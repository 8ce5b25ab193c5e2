"""What a client remembers between its connections, and how it reads the protocol. No I/O, no clock.

It decides what the first message says, how the cursor moves, what is sent again after a lost connection, and what a
frame of the node means. `docs/reference/protocol.md` is the text that it follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from dws_core._errors import DWSError, InvalidMessage, PublishOutcomeUnknown
from dws_core._wire.client_errors import Refused
from dws_core._wire.cursor import Position, format_cursor, merge, parse_cursor, parse_position, replace
from dws_core._wire.message import JSON

KEY_WINDOW_S: Final = 50.0
"""Seconds for which a repeat under the same key is safe: a little less than the minute for which nodes know a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message that arrived.

    Attributes:
        data: Any JSON value.
        topic: What it was published to; None: a broadcast or a direct message.
        conn_id: The connection id that a direct message was sent to; None: not a direct one.
        position: Where it stands in its log; None: its topic has no history.
    """

    data: JSON
    topic: str | None = None
    conn_id: str | None = None
    position: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Messages may have been lost: reload your state.

    Attributes:
        filters: Which of the client's filters are concerned.
        reason: `epoch`, `trimmed`, `ahead`, `layout-changed`, `too-many` or `unavailable`, as the node says it;
            `overflow`: this client did not take its messages fast enough.
    """

    filters: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """The node has taken the first message.

    Attributes:
        conn_id: Of this connection; None: a node that does not say.
        recovered: Whether everything that was missed follows; None: there was nothing to resume.
    """

    conn_id: str | None
    recovered: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribed:
    """A filter is in force."""

    filter: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSubscribed:
    """A filter was refused."""

    filter: str
    error: DWSError


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A request was carried out."""

    id: int
    frame: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A request was not carried out."""

    id: int
    error: DWSError


@dataclass(frozen=True, slots=True, kw_only=True)
class HelloRefused:
    """The node does not take this client as it is."""

    error: Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Leave:
    """Connect elsewhere after so many seconds."""

    in_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiring:
    """The token runs out in so many seconds."""

    in_s: float


Event: TypeAlias = (
    Message | Gap | Connected | Subscribed | NotSubscribed | Answered | Failed | HelloRefused | Leave | Expiring
)


@dataclass(slots=True)
class _Request:
    message: dict[str, Any]
    sent_s: float | None = None  # when it left for the first time


class ClientState:
    """One client, over all its connections.

    Args:
        key_prefix: Unguessable text that makes this client's keys its own.
        cursor: Where an earlier client left off; None: start with what is new.

    Attributes:
        online: Whether the node has taken the first message of the present connection.
        in_force: The filters that the node has.
    """

    def __init__(self, *, key_prefix: str, cursor: str | None = None) -> None:
        self.online: bool = False
        self.in_force: set[str] = set()
        self._key_prefix = key_prefix
        self._cursor: dict[int, Position] | None = None if cursor is None else parse_cursor(cursor)
        self._filters: dict[str, int] = {}  # how many want each
        self._number = 0
        self._hello_id = 0
        self._hello_filters: tuple[str, ...] = ()
        self._subscribing: dict[int, str] = {}
        self._pending: dict[int, _Request] = {}  # in the order they were made
        self._gap_follows = False
        self._plain = False  # the node does not know `connect`: nothing can be resumed there
        self._owes_gap = False  # what could have been resumed was not

    # -- what the application asks

    @property
    def cursor(self) -> str | None:
        """Where this client stands, to resume from; None: nowhere yet."""
        return None if self._cursor is None else format_cursor(self._cursor)

    @property
    def filters(self) -> tuple[str, ...]:
        """The filters that are wanted."""
        return tuple(self._filters)

    @property
    def waits(self) -> bool:
        """Whether an answer is awaited."""
        return bool(self._pending or self._subscribing)

    def new_key(self) -> str:
        """Return a key that no other message has."""
        return f"{self._key_prefix}{self._next_id():x}"

    def subscribe(self, filter_: str) -> dict[str, Any] | None:
        """Want a filter; return what to send now, if anything."""
        self._filters[filter_] = self._filters.get(filter_, 0) + 1
        return self._subscribe(filter_) if self.online and self._filters[filter_] == 1 else None

    def unsubscribe(self, filter_: str) -> dict[str, Any] | None:
        """Want a filter once less; return what to send now, if anything."""
        if (count := self._filters.get(filter_, 0)) > 1:
            self._filters[filter_] = count - 1
            return None
        return self._unsubscribe(filter_) if self._filters.pop(filter_, None) and self.online else None

    def request(self, members: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Number a request; it is kept, and sent again on the next connection, until it is answered or forgotten.

        A publish must have a `key`: without one, a repeat would be another message.
        """
        number = self._next_id()
        message = {**members, "id": number}
        self._pending[number] = _Request(message)
        return number, message

    def sent(self, number: int, now: float) -> None:
        """Note that a request left; `now` in seconds."""
        if (request := self._pending.get(number)) is not None and request.sent_s is None:
            request.sent_s = now

    def forget(self, number: int) -> None:
        """Nobody waits for this request any more."""
        self._pending.pop(number, None)

    # -- connections come and go

    def hello(self) -> dict[str, Any]:
        """Return the first message of a new connection."""
        self._hello_id = self._next_id()
        self._hello_filters = self.filters
        data: dict[str, Any] = {"filters": list(self._hello_filters)}
        if self._cursor is not None:
            data["cursor"] = format_cursor(self._cursor)
        return {"type": "connect", "id": self._hello_id, "data": data}

    def resume(self, now: float) -> tuple[list[dict[str, Any]], list[Failed]]:
        """Return what to send once the node has taken the first message, and what is too old to be repeated."""
        known = () if self._plain else self._hello_filters
        messages = [self._unsubscribe(filter_) for filter_ in known if filter_ not in self._filters]
        messages += [self._subscribe(filter_) for filter_ in self._filters if filter_ not in known]
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
        """Note that the connection is gone."""
        self._owes_gap |= self.online and self._cursor is None
        self.online = False
        self._gap_follows = False
        self._subscribing.clear()
        self.in_force.clear()

    # -- what the node says

    def receive(self, frame: JSON) -> list[Event]:
        """Read a frame; types that are not known are passed over.

        Raises:
            InvalidMessage: Not what the protocol says; the connection is of no use.
        """
        try:
            read = self._READERS.get(frame["type"])
            return [] if read is None else list(read(self, frame))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidMessage("the node sent a frame that is not of the protocol.", fix="look at its log") from error

    def _read_message(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        if not (self.online or self._plain):
            return  # the answer to `connect` counts from the cursor: what comes before it comes again
        if (text := frame.get("pos")) is not None:
            position = parse_position(text)
            self._merge({position.partition: position})
        yield Message(data=frame["data"], topic=frame.get("topic"), conn_id=frame.get("conn_id"), position=text)

    def _read_connected(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        recovered, cursor = frame.get("recovered"), parse_cursor(frame["cursor"])
        self._plain, self._gap_follows = False, recovered is False
        if not self._gap_follows:  # else the gap moves it: a connection lost before that must not hide the loss
            self._cursor = replace(self._cursor or {}, cursor)
        yield from self._connected(Connected(conn_id=frame["conn_id"], recovered=recovered))
        for filter_ in self._hello_filters:
            yield self._subscribed(filter_)

    def _read_ack(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        number = frame["id"]
        if (filter_ := self._subscribing.pop(number, None)) is not None:
            if "cursor" in frame:
                self._cursor = replace(self._cursor or {}, parse_cursor(frame["cursor"]))
            yield self._subscribed(filter_)
        else:
            yield from self._answered(frame)

    def _read_history(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        yield from self._answered(frame)

    def _read_error(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        code = frame["code"]
        retry_in_s = frame.get("retry_in_s")
        error = Refused(code, frame["message"], temporary=frame["temporary"], retry_in_s=retry_in_s)
        number = frame.get("id", 0)  # 0: of no request
        if number == self._hello_id and not self.online:
            yield from self._refused(error)
        elif (filter_ := self._subscribing.pop(number, None)) is not None:
            self._filters.pop(filter_, None)
            yield NotSubscribed(filter=filter_, error=error)
        elif self._pending.pop(number, None) is not None:
            yield Failed(id=number, error=error)

    def _refused(self, error: Refused) -> Iterable[Event]:
        had_cursor = self._cursor is not None
        if error.code == "unknown-type":  # it is served all the same, filter by filter
            self._plain, self._cursor = True, None
            self._owes_gap |= had_cursor
            yield from self._connected(Connected(conn_id=None, recovered=None))
        elif error.code == "invalid-message" and had_cursor:  # the next attempt does without
            self._cursor, self._owes_gap = None, True
            yield HelloRefused(error=Refused(error.code, error.message, temporary=True))
        else:
            yield HelloRefused(error=error)

    def _read_gap(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        news = parse_cursor(frame["cursor"])
        if self._gap_follows:
            self._gap_follows = False
            self._cursor = replace(self._cursor or {}, news)
        else:
            self._merge(news)
        yield Gap(filters=tuple(frame["filters"]), reason=frame["reason"])

    def _read_pos(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        self._merge(parse_cursor(frame["cursor"]))
        return ()

    def _read_reconnect(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        yield Leave(in_s=float(frame["in_s"]))

    def _read_expiring(self, frame: Mapping[str, Any]) -> Iterable[Event]:
        yield Expiring(in_s=float(frame["in_s"]))

    _READERS: Final = {
        "message": _read_message,
        "connected": _read_connected,
        "ack": _read_ack,
        "history": _read_history,
        "error": _read_error,
        "gap": _read_gap,
        "pos": _read_pos,
        "reconnect": _read_reconnect,
        "expiring": _read_expiring,
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
                yield Gap(filters=self.filters, reason="unavailable")

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
