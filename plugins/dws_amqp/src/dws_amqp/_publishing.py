"""Publishes to one stream, on a channel that is used for nothing else."""

from __future__ import annotations

import asyncio
from typing import Final

import aiormq
from aiormq import spec

from dws_amqp._link import Link, translated
from dws_core.plugin import WireBlocked, WireLost

_LOOK_S: Final = 0.1
"""Time between two looks whether an alarm blocks an append that is not confirmed yet."""

_ALARM: Final = "a memory or disk alarm"


class Publisher:
    """The publishing channel of one stream.

    RabbitMQ before 4.0 can confirm messages that it drops, if a channel publishes to several streams, or goes on after a
    message was returned or not confirmed. So each stream has its own channel, and the first failure ends it.

    Args:
        link: The connection.
        channel: A channel of its own, with confirmations.
        exchange: The exchange, empty for the stream with the name `key`.
        key: Routing key.
        timeout_s: Maximum duration of an append, in seconds.
    """

    def __init__(self, link: Link, channel: aiormq.Channel, exchange: str, key: str, timeout_s: float) -> None:
        self._link = link
        self._channel = channel
        self._exchange = exchange
        self._key = key
        self._timeout_s = timeout_s
        self._failed = False
        self._order = asyncio.Lock()
        self._delayed: set[asyncio.Task[None]] = set()

    async def append(self, data: bytes) -> None:
        """Publish, and return when RabbitMQ has confirmed it.

        Raises:
            WireLost: That failed, or an earlier append has failed.
            WireBlocked: An alarm blocks the connection.
        """
        async with self._order:
            if self._link.is_blocked:
                raise WireBlocked(_ALARM)
            if await self._outlasts_alarm(self._delayed):  # one that is never confirmed spoils the channel
                raise WireBlocked(_ALARM)
            if self._failed:
                raise WireLost("an earlier append has failed", sent=False)
            task = asyncio.get_running_loop().create_task(self._publish(data), name="dws amqp publish")
            task.add_done_callback(_ignore)
        if await self._outlasts_alarm({task}):
            self._delayed.add(task)
            raise WireBlocked(_ALARM, sent=True)
        if not task.done():
            self._failed = True
            raise WireLost(f"RabbitMQ has not confirmed within {self._timeout_s:g} s")
        task.result()
        if self._failed:
            raise WireLost("confirmed after an earlier append had failed")

    async def _outlasts_alarm(self, tasks: set[asyncio.Task[None]]) -> bool:
        """Wait for confirmations until the timeout. Return True as soon as an alarm delays them."""
        loop = asyncio.get_running_loop()
        due = loop.time() + self._timeout_s
        while pending := {task for task in tasks if not task.done()}:
            if self._link.is_blocked:
                return True
            if loop.time() >= due:
                self._failed = True
                break
            await asyncio.wait(pending, timeout=_LOOK_S)
        return False

    async def _publish(self, data: bytes) -> None:
        try:
            async with translated():
                await self._channel.basic_publish(
                    data,
                    exchange=self._exchange,
                    routing_key=self._key,
                    properties=spec.Basic.Properties(delivery_mode=2),
                    mandatory=True,
                    wait=False,
                )
        except WireLost as error:
            first, self._failed = not self._failed, True
            unsent = isinstance(error.__cause__, aiormq.exceptions.PublishError | aiormq.ChannelInvalidStateError)
            raise WireLost(error.reason, sent=not (first and unsent)) from error


def _ignore(task: asyncio.Task[None]) -> None:
    """Mark the exception as seen, because an append that was interrupted does not wait for it."""
    if not task.cancelled():
        task.exception()
