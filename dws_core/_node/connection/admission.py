"""Who may connect: the number of connections, of a user, and of an address, and the time of a handshake."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.websockets import WebSocket

from dws_core._auth.interface import Principal
from dws_core._auth.refusal import refuse_busy, refuse_crowd
from dws_core._auth.refused_by_app import reports_of
from dws_core._errors import WebSocketException
from dws_core._limits.limits import Limits
from dws_core._limits.places import Places
from dws_core._node.connection.connection import Connection
from dws_core._node.connection.handshake import HandshakeChecker
from dws_core._node.stats import Counters
from dws_core._wire.codecs import Codec


class Admission:
    """Admits clients within the limits of the node, and counts the refused ones.

    Args:
        handshakes: Checks and accepts handshakes.
        limits: Limits of the node.
        counters: Counts refusals by reason.
    """

    def __init__(self, handshakes: HandshakeChecker, limits: Limits, counters: Counters) -> None:
        self._handshakes = handshakes
        self._limits = limits
        self._counters = counters
        self._opening = 0
        self._users = Places(limits.connections_per_user)
        self._addresses = Places(limits.connections_per_address)

    async def admit(
        self, websocket: WebSocket, principal: Principal | None, *, connections: int
    ) -> tuple[Codec, Principal | None]:
        """Check and accept a handshake, in a block of `opening`. Call `leave` when the connection ends.

        Args:
            websocket: The WebSocket.
            principal: Identity of the client, if the application has established it.
            connections: Number of open connections of the node.

        Raises:
            WebSocketException: The client is refused.
        """
        self._check_room(websocket, connections)
        taken: Principal | None = None

        def identify(principal: Principal | None) -> None:
            nonlocal taken
            self.identify(websocket, principal)
            taken = principal

        try:
            async with asyncio.timeout(self._limits.handshake_s):
                return await self._handshakes.accept(websocket, principal, identify)
        except BaseException as error:
            self.leave(websocket, taken)
            if isinstance(error, TimeoutError):
                raise refuse_busy(websocket, "the handshake was not checked in time", reason="timeout") from error
            raise

    def identify(self, websocket: WebSocket, principal: Principal | None) -> None:
        """Count a connection of a user.

        Raises:
            WebSocketException: The user has too many connections.
        """
        if not self._users.take(None if principal is None else principal.id):
            text = f"a user may have {self._limits.connections_per_user} connections to this node"
            raise refuse_crowd(websocket, text, reason="user")

    def leave(self, websocket: WebSocket, principal: Principal | None) -> None:
        """Report the end of an admitted client. Call it once."""
        self._addresses.give_back(_address_of(websocket))
        self._users.give_back(None if principal is None else principal.id)

    def on_closed(self, connection: Connection) -> None:
        """Report the end of an open connection. Call it once."""
        self.leave(connection.websocket, connection.principal)

    @contextmanager
    def leaving_on_error(self, connection: Connection) -> Iterator[None]:
        """Report the end of an admitted client if the block raises."""
        try:
            yield
        except BaseException:
            self.on_closed(connection)
            raise

    @contextmanager
    def opening(self, websocket: WebSocket) -> Iterator[None]:
        """Count a client as a connection during the block, and as refused if the block refuses it."""
        self._opening += 1
        try:
            yield
        except WebSocketException as refusal:
            reason: str = getattr(refusal, "refused_for", "other")
            self._counters.count_refusal(reason)
            reports_of(websocket.scope).add("count")
            raise
        finally:
            self._opening -= 1

    def _check_room(self, websocket: WebSocket, connections: int) -> None:
        limit = self._limits.connections
        if limit is not None and connections + self._opening > limit:
            raise refuse_busy(websocket, f"the node has reached its limit of {limit} connections", reason="full")
        if not self._addresses.take(_address_of(websocket)):
            text = f"an address may have {self._limits.connections_per_address} connections to this node"
            raise refuse_crowd(websocket, text, reason="address")


def _address_of(websocket: WebSocket) -> str | None:
    return None if websocket.client is None else websocket.client.host
