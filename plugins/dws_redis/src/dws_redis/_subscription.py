"""One subscribed connection to one server, and whether it lives."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import chain
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection

from dws_core.plugin import BrokerUnavailable
from dws_redis._connection import Wire
from dws_redis._settings import Settings

logger = logging.getLogger("dws.redis")


class Subscription:
    """A connection that listens to channels.

    Args:
        connection: Open.
        settings: How long silence may last, and whether channels belong to servers (in a cluster they do).
        take: Called with channel and payload of each message.
    """

    def __init__(
        self, connection: AbstractConnection, settings: Settings, take: Callable[[bytes, bytes], None]
    ) -> None:
        self._settings = settings
        self._take = take
        self._sharded = settings.kind == "cluster"
        self._listening: set[bytes] = set()
        self._confirmed: dict[bytes, list[asyncio.Future[None]]] = {}
        self._loop = asyncio.get_running_loop()
        self._wire = Wire(connection, settings, self._heard)

    async def subscribe(self, *channels: str) -> None:
        """Listen to these too; return when the server has confirmed it.

        Raises:
            BrokerUnavailable: The connection was lost meanwhile, or the server refuses.
        """
        if self._wire.lost.is_set():
            raise BrokerUnavailable("the connection to Redis is lost.", fix="try again")
        names = [channel.encode() for channel in channels]
        waits = [self._loop.create_future() for _ in names]
        for name, wait in zip(names, waits, strict=True):
            self._confirmed.setdefault(name, []).append(wait)
        self._listening.update(names)
        if self._sharded:  # a command for each: they may be of several slots
            for channel in channels:
                self._write("SSUBSCRIBE", channel)
        else:
            self._write("SUBSCRIBE", *channels)
        await asyncio.gather(*waits)

    def unsubscribe(self, channel: str) -> None:
        """Listen to it no longer."""
        self._listening.discard(channel.encode())
        self._write("SUNSUBSCRIBE" if self._sharded else "UNSUBSCRIBE", channel)

    async def watch(self, probe: Callable[[], None]) -> None:
        """Stay until the connection is lost; cut it when the log says nothing though it was asked.

        Args:
            probe: Asks through the log for a sign of life.
        """
        await self._wire.watch(probe)

    def abort(self) -> None:
        """Cut the connection."""
        self._wire.abort()

    async def close(self) -> None:
        """Cut the connection and wait for its end; who waits for a confirmation is told."""
        await self._wire.close()
        self._refuse("the connection to Redis was lost while subscribing.")

    def _refuse(self, why: str) -> None:
        """Tell those that wait for a confirmation that none will come."""
        for wait in chain.from_iterable(self._confirmed.values()):
            if not wait.done():
                wait.set_exception(BrokerUnavailable(why, fix="try again"))
                wait.exception()  # whoever waited may be gone
        self._confirmed.clear()

    def _heard(self, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError) or not isinstance(reply, list):
            logger.warning("%s refuses a subscription: %s", self._settings.shown, reply)
            self._refuse(f"{self._settings.shown} refuses a subscription: {reply}.")
            self.abort()
            return
        kind, channel, payload = reply
        if kind in (b"message", b"smessage"):
            self._wire.heard()
            self._take(channel, payload)
        elif kind in (b"subscribe", b"ssubscribe"):
            for wait in self._confirmed.pop(channel, ()):
                if not wait.done():
                    wait.set_result(None)
        elif channel in self._listening and channel not in self._confirmed:
            logger.info("the channel %r has moved to another server", channel)
            self.abort()

    def _write(self, *command: str) -> None:
        packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub says a tuple of one
        self._wire.write(packed)
