"""The streams and the exchange of a channel: their names, their creation, and the checks of the server."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2s
from typing import Final

import aiormq
from pamqp.common import FieldTable

from dws_amqp._link import reason
from dws_amqp._options import AmqpOptions
from dws_core.plugin import Layout, LayoutMismatch, WireUnusable

_MAX_LENGTH: Final = 120
"""RabbitMQ uses the name of a stream for a folder, so it cannot be long."""


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a channel's objects in RabbitMQ.

    Attributes:
        prefix: Prefix of all names.
        layout: The channel.
    """

    prefix: str
    layout: Layout

    @property
    def streams(self) -> dict[int, str]:
        """Names of the streams by partition."""
        return {number: self._name(f"log.{number}") for number in range(self.layout.partitions)}

    @property
    def control(self) -> str:
        """Name of the exchange for messages that are not stored."""
        return self._name("control")

    @property
    def mark(self) -> str:
        """A name that describes the layout."""
        return self._name(f"layout.{self.layout.partitions}.{self.layout.shard_levels}")

    def queue(self, node: str) -> str:
        """Return the name of a node's queue."""
        return self._name(f"node.{node}")

    def _name(self, part: str) -> str:
        return f"{self.prefix}.{_encoded(self.layout.channel)}.{part}"


def _encoded(channel: str) -> str:
    """Return a name with letters that AMQP allows. A long one ends with a hash."""
    name = "".join(map(_escaped, channel))
    if len(name) <= _MAX_LENGTH:
        return name
    return f"{name[: _MAX_LENGTH // 2]}:{blake2s(channel.encode(), digest_size=16).hexdigest()}"


def _escaped(letter: str) -> str:
    if letter.isascii() and (letter.isalnum() or letter in "-_."):
        return letter
    return "".join(f":{byte:02x}" for byte in letter.encode())


async def declare_exchange(channel: aiormq.Channel, names: Names) -> None:
    """Create the exchange, or check the existing one.

    RabbitMQ compares the alternate exchange of a declaration with the existing one. So its name, which nothing else uses,
    makes nodes with another layout fail.

    Raises:
        LayoutMismatch: The channel exists with another layout.
        WireUnusable: A permission is missing.
    """
    async with _explained(names.control):
        await channel.exchange_declare(
            names.control, exchange_type="fanout", durable=True, arguments={"alternate-exchange": names.mark}
        )


async def declare_streams(channel: aiormq.Channel, names: Names, options: AmqpOptions) -> bool:
    """Create the streams, or check those that exist.

    Returns:
        False if the server forbids streams. Then it has closed the connection.

    Raises:
        WireUnusable: A stream exists with other arguments, or a permission is missing.
    """
    try:
        for name in names.streams.values():
            async with _explained(name):
                await channel.queue_declare(name, durable=True, arguments=_arguments(options))
    except aiormq.exceptions.ConnectionInternalError as error:
        if "is disabled" not in reason(error):
            raise
        return False
    return True


def _arguments(options: AmqpOptions) -> FieldTable:
    return {
        "x-queue-type": "stream",
        "x-max-age": f"{int(options.max_age_s)}s",
        "x-max-length-bytes": options.max_stream_bytes,
        "x-stream-max-segment-size-bytes": options.segment_bytes,
    }


@asynccontextmanager
async def _explained(name: str) -> AsyncIterator[None]:
    try:
        yield
    except aiormq.exceptions.ChannelAccessRefused as error:
        raise WireUnusable(f"the user may not create or use {name!r}: {reason(error)}") from error
    except aiormq.exceptions.ChannelPreconditionFailed as error:
        text = reason(error)
        if layouts := re.findall(r"layout\.(\d+)\.(\d+)'", text):
            (partitions, levels), *_ = layouts[-1:]
            raise LayoutMismatch(
                f"{name!r} belongs to a channel with {partitions} partitions and shard_levels={levels}.",
                fix="use the same layout on all nodes",
            ) from error
        raise WireUnusable(f"{name!r} exists with other arguments: {text}") from error
