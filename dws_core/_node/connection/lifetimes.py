"""The ends of connections that are known beforehand: the expiry of the principal, and the maximum age."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable
from typing import Final

from dws_core._limits.deadlines import Deadlines
from dws_core._limits.limits import Limits
from dws_core._node.connection.connection import Connection
from dws_core._node.pacing import Pacer
from dws_core._node.sending.fanout import Fanout
from dws_core._wire import server_messages
from dws_core._wire.close_codes import CloseCode

logger = logging.getLogger("dws")

_AGE_SPREAD: Final = 0.1
"""Part of the maximum age by which connections end earlier, at random, so that they do not reconnect together."""

_MAX_SLEEP_S: Final = 3600.0


class Lifetimes:
    """Warns connections before their principal expires, and closes them at its expiry or at their maximum age.

    One timer serves all connections of a node. Connections that have no such end need no memory here. Thousands that end
    in the same second take turns, so that live messages continue in between. Times are monotonic: a jump of the system's
    clock does not move an end.

    Args:
        limits: Limits of the node.
        fanout: Sends the warnings.
        pacer: Limits how many connections end per tick.
        clock: Returns the time of `Principal.expires_at`, in seconds since the Unix epoch.
    """

    def __init__(self, limits: Limits, *, fanout: Fanout, pacer: Pacer, clock: Callable[[], float] = time.time) -> None:
        self._warning_s = limits.expiry_warning_s
        self._age_s = limits.connection_age_s
        self._fanout = fanout
        self._pacer = pacer
        self._clock = clock
        self._expiries: dict[Connection, float] = {}
        self._ages: dict[Connection, float] = {}
        self._next: Deadlines[Connection] = Deadlines()
        self._earlier = asyncio.Event()

    def begin(self, connection: Connection) -> None:
        """Watch a new connection."""
        if self._age_s is not None:
            spread = _AGE_SPREAD * random.random()  # noqa: S311 -- not a secret
            self._ages[connection] = self._now() + self._age_s * (1.0 - spread)
        self.renew(connection)

    def renew(self, connection: Connection) -> None:
        """Watch for the expiry of the connection's current principal, in place of an earlier one."""
        principal = connection.principal
        left_s = math.inf if principal is None or principal.expires_at is None else principal.expires_at - self._clock()
        if left_s == math.inf:
            self._expiries.pop(connection, None)
            self._schedule(connection, math.inf)
            return
        expiry = self._expiries[connection] = self._now() + left_s
        ahead_s = 0.0 if self._warning_s is None else max(0.0, min(self._warning_s, left_s / 2))
        self._schedule(connection, expiry - ahead_s)

    def left_s(self, connection: Connection) -> float | None:
        """Return the time until the principal of a connection expires, in seconds. None if it does not expire."""
        expiry = self._expiries.get(connection)
        return None if expiry is None else max(0.0, expiry - self._now())

    def forget(self, connection: Connection) -> None:
        """Stop watching a closed connection. A connection without an end is no error."""
        self._expiries.pop(connection, None)
        self._ages.pop(connection, None)
        self._next.discard(connection)

    async def run(self) -> None:
        """Warn and close connections, until cancelled."""
        while True:
            await self._until_due()
            while (connection := self._next.pop(self._now())) is not None:
                self._end_or_warn(connection)
                await self._pacer.wait_turn()

    async def _until_due(self) -> None:
        while (first := self._next.first) is None or first > self._now():
            left_s = _MAX_SLEEP_S if first is None else first - self._now()
            self._earlier.clear()
            try:
                async with asyncio.timeout(min(left_s, _MAX_SLEEP_S)):
                    await self._earlier.wait()
            except TimeoutError:
                pass

    def _end_or_warn(self, connection: Connection) -> None:
        now, expiry = self._now(), self._expiries.get(connection, math.inf)
        if connection.closed:
            return
        if expiry <= now:
            connection.disconnect(CloseCode.TOKEN_EXPIRED)
        elif self._ages.get(connection, math.inf) <= now:
            connection.disconnect(CloseCode.DRAINED, "connection_age_s is over")
        else:
            self._schedule(connection, expiry)
            self._warn(connection, expiry - now)

    def _warn(self, connection: Connection, left_s: float) -> None:
        try:
            self._fanout.send(connection, server_messages.expiring(left_s))
        except Exception:  # a plugin's codec may raise anything, and the others must end in any case
            logger.exception("connection %r could not be warned that its token expires", connection.id)

    def _schedule(self, connection: Connection, at: float) -> None:
        at = min(at, self._ages.get(connection, math.inf))
        if at == math.inf:
            self._next.discard(connection)
            return
        first = self._next.first
        self._next.set(connection, at)
        if first is None or at < first:
            self._earlier.set()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
