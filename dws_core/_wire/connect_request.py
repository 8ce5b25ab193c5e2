"""The data of a `connect` message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dws_core._errors import InvalidMessage
from dws_core._wire.cursor import Position, parse_cursor
from dws_core._wire.message import JSON

_MIN_CLIENT_ID: Final = 16
_MAX_CLIENT_ID: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectRequest:
    """The data of a client's `connect` message.

    Attributes:
        filters: Filters to subscribe to. They are not checked yet.
        cursor: Positions to resume from. If None, the client receives only new messages.
        client_id: Random text that the client repeats on each of its connections. None if it sent none.
    """

    filters: tuple[str, ...] = ()
    cursor: Mapping[int, Position] | None = None
    client_id: str | None = None


def read_connect_request(data: JSON) -> ConnectRequest:
    """Read the data of a `connect` message. Unknown members are ignored.

    Raises:
        InvalidMessage: A member has the wrong type, or the cursor is malformed.
    """
    if not isinstance(data, Mapping):
        raise InvalidMessage("the data of connect must be an object.", fix='send {"filters": [...]}')
    for name in ("token", "name", "version"):
        if not isinstance(data.get(name, ""), str):
            raise InvalidMessage(f"member {name!r} of connect must be a string.")
    filters = data.get("filters", ())
    if not isinstance(filters, list | tuple) or not all(isinstance(filter_, str) for filter_ in filters):
        raise InvalidMessage("member 'filters' of connect must be an array of strings.")
    return ConnectRequest(
        filters=tuple(dict.fromkeys(filters)), cursor=read_cursor(data), client_id=_read_client_id(data)
    )


def _read_client_id(data: Mapping[str, JSON]) -> str | None:
    client_id = data.get("client_id")
    if client_id is None:
        return None
    if not isinstance(client_id, str) or not _MIN_CLIENT_ID <= len(client_id) <= _MAX_CLIENT_ID:
        raise InvalidMessage(
            f"member 'client_id' of connect must be a string of {_MIN_CLIENT_ID} to {_MAX_CLIENT_ID} characters.",
            fix="send random text that nobody can guess, or omit it",
        )
    return client_id


def read_cursor(members: Mapping[str, JSON]) -> dict[int, Position] | None:
    """Read the member `cursor`. Return None if there is none.

    Raises:
        InvalidMessage: The cursor is not a string, or malformed.
    """
    text = members.get("cursor")
    if text is None:
        return None
    if not isinstance(text, str):
        raise InvalidMessage("member 'cursor' must be a string.", fix="send the node's cursor unchanged")
    return parse_cursor(text)
