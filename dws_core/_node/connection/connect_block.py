"""The `async with manager.connect(...)` block, in which an application serves one client."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect

from dws_core._auth.interface import Principal
from dws_core._errors import ConnectionClosed
from dws_core._limits.backlog import SlowConsumer
from dws_core._node.connection.connection import Connection
from dws_core._wire.close_codes import CloseCode


class ConnectionOwner(Protocol):
    """Creates and removes connections: the manager."""

    async def new_connection(
        self,
        websocket: WebSocket,
        conn_id: str | None = None,
        topic: str | None = None,
        *,
        principal: Principal | None = None,
        slow_consumer: SlowConsumer | None = None,
    ) -> Connection:
        """Accept a handshake and add the connection."""
        ...

    def remove_connection(self, connection: Connection) -> object:
        """Remove a closed connection."""
        ...


class ConnectBlock:
    """The block of `connect`. A class and not a generator, to save memory on idle connections.

    Arguments: see `WebSocketManager.new_connection`.
    """

    __slots__ = ("_arguments", "_connection", "_owner")

    def __init__(
        self,
        owner: ConnectionOwner,
        websocket: WebSocket,
        *,
        conn_id: str | None,
        topic: str | None,
        principal: Principal | None,
        slow_consumer: SlowConsumer | None,
    ) -> None:
        self._owner = owner
        self._arguments = (websocket, conn_id, topic, principal, slow_consumer)

    async def __aenter__(self) -> Connection:
        websocket, conn_id, topic, principal, slow_consumer = self._arguments
        del self._arguments  # the block lives as long as the connection
        self._connection = await self._owner.new_connection(
            websocket, conn_id, topic, principal=principal, slow_consumer=slow_consumer
        )
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        disconnected, guard = self._connection.closed, self._connection._guard
        if guard is not None:
            guard.release()
        code, swallowed = CloseCode.NORMAL, False
        if isinstance(error, asyncio.CancelledError):
            code, swallowed = CloseCode.GOING_AWAY, guard is not None and guard.swallow()
        elif error is not None:
            code = CloseCode.INTERNAL_ERROR
            swallowed = disconnected and isinstance(error, ConnectionClosed | WebSocketDisconnect)
        await self._connection.close(code)
        self._owner.remove_connection(self._connection)
        return swallowed
