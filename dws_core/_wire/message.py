"""The `Message` that applications receive."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from dws_core._errors import InvalidMessage

JSON: TypeAlias = Any
"""A JSON value: None, bool, int, float, str, or a list or str-keyed dict of these."""

Untyped: TypeAlias = Literal["refuse", "broadcast"]
"""How to treat a message with neither a `type` nor a `topic`."""

_HEADERS = ("type", "topic", "conn_id", "id", "key")


class Message:  # noqa: PLW1641 -- mutable, so not hashable
    """A message between a client and the node, or between nodes.

    Attributes:
        data: The payload, any JSON value.
        type: Type of the message, for example `send`. Also available as `typ`, its name in the original library.
        topic: The topic or filter, or None.
        conn_id: Connection id, or list of ids, of a direct message. None for any other message.
        id: Request id chosen by the client, repeated in the reply. If None, the client wants no reply.
        key: Idempotency key. If None, a repeat is a new message.
        echo: Whether a published message is also delivered to its sender.
        to: The `reply_to` of the request that a `reply` answers. None for any other message.
    """

    __slots__ = ("conn_id", "data", "echo", "id", "key", "to", "topic", "type")

    def __init__(
        self,
        *,
        data: JSON,
        typ: str,
        topic: str | None = None,
        conn_id: str | list[str] | None = None,
        id: str | int | None = None,
        key: str | None = None,
        echo: bool = True,
        to: str | None = None,
    ) -> None:
        self.data: JSON = data
        self.type: str = typ
        self.topic: str | None = topic
        self.conn_id: str | list[str] | None = conn_id
        self.id: str | int | None = id
        self.key: str | None = key
        self.echo: bool = echo
        self.to: str | None = to

    @property
    def typ(self) -> str:
        """The message type, under its name in the original library."""
        return self.type

    @classmethod
    def from_client_message(cls, *, data: Any, untyped: Untyped = "broadcast") -> Message:
        """Read a client's decoded message. The given object is not changed.

        If there is no member `data`, the data is an object of all other members except `type`, `id`, `topic`, `key`,
        `conn_id`, `echo` of a publish and `to` of a reply. If there is no `type`, the message is a `send` if it has a
        topic.

        Args:
            data: The decoded message.
            untyped: How to treat a message with neither a `type` nor a `topic`: `broadcast` makes it a broadcast, as in
                the original library. `refuse` raises an error.

        Raises:
            InvalidMessage: The value is not an object, a member has the wrong type, or the message is refused.
        """
        if not isinstance(data, Mapping):
            raise InvalidMessage(
                f"a message must be an object, got {_kind(data)}.", fix='send an object such as {"type": "ping"}'
            )
        for name, is_valid, expected in _CHECKS:
            if (value := data.get(name)) is not None and not is_valid(value):
                raise _mistyped(name, expected, value)
        topic = data.get("topic")
        if untyped == "refuse" and topic is None and not data.get("type"):
            raise InvalidMessage(
                "the message has neither a type nor a topic.", fix='add a member such as "type": "ping"'
            )
        message = cls(
            data=data.get("data"),
            typ=data.get("type") or ("broadcast" if topic is None else "send"),
            topic=topic,
            conn_id=data.get("conn_id"),
            id=data.get("id"),
            key=data.get("key"),
        )
        own = _OWN_MEMBERS.get(message.type)
        if own is not None and (value := data.get(own[0])) is not None:
            name, is_valid, expected = own
            if not is_valid(value):
                raise _mistyped(name, expected, value)
            setattr(message, name, value)
        if "data" not in data:
            headers = _HEADERS if own is None else (*_HEADERS, own[0])
            message.data = {k: v for k, v in data.items() if k not in headers}
        return message

    def __serialize__(self) -> dict[str, Any]:
        """Return the message as a new `dict`, as in the original library.

        It has `type`, `topic`, `conn_id`, and the members of the data. Data that is not an object, or that has a member
        with a reserved name, is put under `data` instead.
        """
        mergeable = isinstance(self.data, dict) and not self.data.keys() & {"data", *_HEADERS}
        members = self.data if mergeable else {"data": self.data}
        return {**members, "type": self.type, "topic": self.topic, "conn_id": self.conn_id}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in ("type", "topic", "conn_id", "id", "key", "to", "data")}
        echo = "" if self.echo else ", echo=False"
        return "Message(" + ", ".join(f"{k}={v!r}" for k, v in shown.items() if v is not None) + echo + ")"


def _mistyped(name: str, expected: str, value: object) -> InvalidMessage:
    return InvalidMessage(f"member {name!r} must be {expected}, got {_kind(value)}.", fix=f"send {expected}")


def _kind(value: object) -> str:
    names = {type(None): "null", bool: "a boolean", str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_id(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


def _is_conn_id(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(v, str) for v in value))


_CHECKS = (
    ("type", _is_text, "a string"),
    ("topic", _is_text, "a string"),
    ("conn_id", _is_conn_id, "a string or an array of strings"),
    ("id", _is_id, "a string or an integer"),
    ("key", _is_text, "a string"),
)

_ECHO = ("echo", _is_bool, "a boolean")
_OWN_MEMBERS = {"send": _ECHO, "broadcast": _ECHO, "reply": ("to", _is_text, "a string")}
"""The further member of a type. In messages of other types it belongs to the data."""
