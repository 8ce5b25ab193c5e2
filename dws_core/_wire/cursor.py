"""Positions and cursors: where in the logs a client stands, as clients hold it (`docs/reference/protocol.md`).

A position is `partition:epoch:offset`, a cursor a comma-separated list of positions, at most one for each partition. A
client moves its cursor by two rules and no others: `merge` and `replace`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dws_core._errors import InvalidMessage

MAX_CURSOR_BYTES: Final = 16_384
"""Longest cursor that is read, in bytes: 400 partitions and more. A position has at most 40 up to partition 999."""

_POSITION: Final = re.compile(r"(0|[1-9][0-9]{0,4}):([0-9a-z]{1,16}):(0|[1-9][0-9]{0,18})")
_MAX_OFFSET: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the log of one partition.

    Attributes:
        partition: Number of the partition, from 0.
        epoch: Of that partition; 1 to 16 characters of `[0-9a-z]`.
        offset: Below 2**63. Everything up to it is known to the holder.
    """

    partition: int
    epoch: str
    offset: int

    def __str__(self) -> str:
        return format_position(self.partition, self.epoch, self.offset)


def format_position(partition: int, epoch: str, offset: int) -> str:
    """Write a position as clients see it: `partition:epoch:offset`, for example `3:k9x2p0aa:1042`."""
    return f"{partition}:{epoch}:{offset}"


def parse_position(text: str) -> Position:
    """Read one position.

    Raises:
        InvalidMessage: Malformed.
    """
    return _position(text, 0)


def format_cursor(cursor: Mapping[int, Position]) -> str:
    """Write a cursor as clients see it, by partition; empty for an empty one."""
    return ",".join(str(cursor[partition]) for partition in sorted(cursor))


def parse_cursor(text: str) -> dict[int, Position]:
    """Read a cursor into its positions by partition. Empty text is the empty cursor.

    Raises:
        InvalidMessage: Malformed, longer than `MAX_CURSOR_BYTES`, or a partition comes twice; says where and why.
    """
    if len(text) > MAX_CURSOR_BYTES:
        raise _malformed(MAX_CURSOR_BYTES, f"it has {len(text):,} characters, the limit is {MAX_CURSOR_BYTES:,}")
    cursor: dict[int, Position] = {}
    start = 0
    for entry in text.split(",") if text else ():
        position = _position(entry, start)
        if position.partition in cursor:
            raise _malformed(start, f"partition {position.partition} comes twice")
        cursor[position.partition] = position
        start += len(entry) + 1
    return cursor


def merge(held: Mapping[int, Position], news: Mapping[int, Position]) -> dict[int, Position]:
    """Return a client's cursor after the `pos` of a message, a `pos` frame, or a gap on an open connection.

    Their entries replace those of the same partitions, whatever stood there: they are news of the log's owner.
    """
    return {**held, **news}


def replace(held: Mapping[int, Position], answer: Mapping[int, Position]) -> dict[int, Position]:
    """Return a client's cursor after an answer, or after the gap that follows an answer: nothing held before counts."""
    return dict(answer)


def _position(text: str, start: int) -> Position:
    found = _POSITION.fullmatch(text)
    if found is None:
        shown = text if len(text) <= 40 else text[:37] + "..."
        raise _malformed(start, f"{shown!r} is not partition:epoch:offset")
    partition, epoch, offset = int(found[1]), found[2], int(found[3])
    if offset > _MAX_OFFSET:
        raise _malformed(start, "an offset is below 2**63")
    return Position(partition, epoch, offset)


def _malformed(position: int, reason: str) -> InvalidMessage:
    return InvalidMessage(
        f"a cursor is malformed at position {position}: {reason}.", fix="send back what the node sent, unchanged"
    )
