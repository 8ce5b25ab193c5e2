"""Positions and cursors, which mark a client's place in the logs (`docs/reference/protocol.md`).

A position is `partition:epoch:offset`. A cursor is a comma-separated list of positions, with at most one for each
partition. A client changes its cursor only by two rules: `merge` and `replace`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dws_core._errors import InvalidMessage

MAX_CURSOR_BYTES: Final = 16_384
"""Maximum length of a cursor, in bytes.

It has room for 400 partitions, since a position up to partition 999 has at most 40 bytes.
"""

_POSITION: Final = re.compile(r"(0|[1-9][0-9]{0,4}):([0-9a-z]{1,16}):(0|[1-9][0-9]{0,18})")
_MAX_OFFSET: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the log of one partition.

    Attributes:
        partition: Number of the partition, from 0.
        epoch: Epoch of that partition, 1 to 16 characters of `[0-9a-z]`.
        offset: Offset below 2**63. The client has every message up to it.
    """

    partition: int
    epoch: str
    offset: int

    def __str__(self) -> str:
        return format_position(self.partition, self.epoch, self.offset)


def format_position(partition: int, epoch: str, offset: int) -> str:
    """Format a position for clients: `partition:epoch:offset`, for example `3:k9x2p0aa:1042`."""
    return f"{partition}:{epoch}:{offset}"


def parse_position(text: str) -> Position:
    """Parse one position.

    Raises:
        InvalidMessage: The text is malformed.
    """
    return _position(text, 0)


def format_cursor(cursor: Mapping[int, Position]) -> str:
    """Format a cursor for clients, sorted by partition. An empty cursor is an empty text."""
    return ",".join(str(cursor[partition]) for partition in sorted(cursor))


def parse_cursor(text: str) -> dict[int, Position]:
    """Parse a cursor into its positions by partition. An empty text is an empty cursor.

    Raises:
        InvalidMessage: The text is malformed, is longer than `MAX_CURSOR_BYTES`, or has a partition twice. The error
            names the place and the reason.
    """
    if len(text) > MAX_CURSOR_BYTES:
        raise _malformed(MAX_CURSOR_BYTES, f"it has {len(text):,} characters, the limit is {MAX_CURSOR_BYTES:,}")
    cursor: dict[int, Position] = {}
    start = 0
    for entry in text.split(",") if text else ():
        position = _position(entry, start)
        if position.partition in cursor:
            raise _malformed(start, f"partition {position.partition} appears twice")
        cursor[position.partition] = position
        start += len(entry) + 1
    return cursor


def merge(held: Mapping[int, Position], news: Mapping[int, Position]) -> dict[int, Position]:
    """Return a client's cursor after the `pos` of a message, a `pos` frame, or a gap on an open connection.

    New positions always replace the old ones of the same partitions, even with another epoch or a lower offset, because
    only the node can tell which position is right.
    """
    return {**held, **news}


def replace(held: Mapping[int, Position], answer: Mapping[int, Position]) -> dict[int, Position]:
    """Return a client's cursor after a reply, or after the gap that follows a reply. The old cursor is discarded."""
    return dict(answer)


def _position(text: str, start: int) -> Position:
    found = _POSITION.fullmatch(text)
    if found is None:
        shown = text if len(text) <= 40 else text[:37] + "..."
        raise _malformed(start, f"{shown!r} is not partition:epoch:offset")
    partition, epoch, offset = int(found[1]), found[2], int(found[3])
    if offset > _MAX_OFFSET:
        raise _malformed(start, "an offset must be below 2**63")
    return Position(partition, epoch, offset)


def _malformed(position: int, reason: str) -> InvalidMessage:
    return InvalidMessage(
        f"a cursor is malformed at position {position}: {reason}.", fix="send the node's cursor unchanged"
    )
