"""One subscribed connection to one server."""

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
    """A connection that subscribes to channels.

    Args:
        connection: An open connection.
        settings: Timeouts of a silent connection, and whether channels belong to servers (in a cluster they do).
        on_message: Called with the channel and payload of each message.
    """

    def __init__(
        self, connection: AbstractConnection, settings: Settings, on_message: Callable[[bytes, bytes], None]
    ) -> None:
        self._settings = settings
        self._on_message = on_message
        self._sharded = settings.kind == "cluster"
        self._subscribed: set[bytes] = set()
        self._confirmations: dict[bytes, list[asyncio.Future[None]]] = {}
        self._loop = asyncio.get_running_loop()
        self._wire = Wire(connection, settings, self._on_reply)

    async def subscribe(self, *channels: str) -> None:
        """Subscribe to more channels. Return when the server has confirmed it.

        Raises:
            BrokerUnavailable: The connection was lost before the confirmation, or the server refuses.
        """
        if self._wire.lost.is_set():
            raise BrokerUnavailable("the connection to Redis is lost.", fix="try again")
        names = [channel.encode() for channel in channels]
        waits = [self._loop.create_future() for _ in names]
        for name, wait in zip(names, waits, strict=True):
            self._confirmations.setdefault(name, []).append(wait)
        self._subscribed.update(names)
        if self._sharded:  # one command for each, because their slots may differ
            for channel in channels:
                self._write("SSUBSCRIBE", channel)
        else:
            self._write("SUBSCRIBE", *channels)
        await asyncio.gather(*waits)

    def unsubscribe(self, channel: str) -> None:
        """Unsubscribe from a channel."""
        self._subscribed.discard(channel.encode())
        self._write("SUNSUBSCRIBE" if self._sharded else "UNSUBSCRIBE", channel)

    async def watch(self, probe: Callable[[], None]) -> None:
        """Return when the connection is lost. Cut it if no message arrives in time after a probe.

        Args:
            probe: Publishes a message that this connection receives.
        """
        await self._wire.watch(probe)

    def abort(self) -> None:
        """Cut the connection."""
        self._wire.abort()

    async def close(self) -> None:
        """Cut the connection and wait for its end. Waiting `subscribe` calls raise."""
        await self._wire.close()
        self._fail_confirmations("the connection to Redis was lost while subscribing.")

    def _fail_confirmations(self, why: str) -> None:
        """Raise an error in all `subscribe` calls that wait for a confirmation."""
        for wait in chain.from_iterable(self._confirmations.values()):
            if not wait.done():
                wait.set_exception(BrokerUnavailable(why, fix="try again"))
                wait.exception()  # marks the error as retrieved, because the waiting call may have been cancelled
        self._confirmations.clear()

    def _on_reply(self, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError) or not isinstance(reply, list):
            logger.warning("%s refuses a subscription, reconnecting: %s", self._settings.masked_url, reply)
            self._fail_confirmations(f"{self._settings.masked_url} refuses a subscription: {reply}.")
            self.abort()
            return
        kind, channel, payload = reply
        if kind in (b"message", b"smessage"):
            self._wire.confirm_alive()
            self._on_message(channel, payload)
        elif kind in (b"subscribe", b"ssubscribe"):
            for wait in self._confirmations.pop(channel, ()):
                if not wait.done():
                    wait.set_result(None)
        elif channel in self._subscribed and channel not in self._confirmations:
            logger.info("the channel %r has moved to another server, reconnecting", channel)
            self.abort()

    def _write(self, *command: str) -> None:
        packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # the stub accepts only a tuple of one
        self._wire.write(packed)
