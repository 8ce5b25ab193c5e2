"""Where the past of a `subscribe` begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dws_core._errors import InvalidMessage
from dws_core._wire.connect_request import read_cursor
from dws_core._wire.cursor import Position
from dws_core._wire.message import JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRequest:
    """The past that a client requests with `subscribe`. One of the attributes is None.

    Attributes:
        cursor: Positions after which it begins.
        last: Number of messages.
    """

    cursor: Mapping[int, Position] | None = None
    last: int | None = None


def read_past_request(data: JSON) -> PastRequest | None:
    """Read the members of a `subscribe`. Return None if it requests only new messages.

    Raises:
        InvalidMessage: A member has the wrong type, the cursor is malformed, or both members are present.
    """
    if not isinstance(data, Mapping):
        return None
    cursor, last = read_cursor(data), data.get("last")
    if last is None:
        return None if cursor is None else PastRequest(cursor=cursor)
    if not isinstance(last, int) or isinstance(last, bool) or last < 1:
        raise InvalidMessage("member 'last' of subscribe must be a positive integer.")
    if cursor is not None:
        raise InvalidMessage("a subscribe has either 'last' or 'cursor'.", fix="omit one of them")
    return PastRequest(last=last)
