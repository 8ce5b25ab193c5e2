"""The `async with manager.connect(...)` block, in which an application serves one client."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Protocol

from starlette.websockets import WebSocket, WebSocketState

from dws_core._auth.interface import Principal
from dws_core._auth.refusal import can_answer
from dws_core._limits.backlog import SlowConsumer
from dws_core._node.connection.block_ending import BlockEnding, ending_of, has_own_handler
from dws_core._node.connection.connection import Connection
from dws_core._node.connection.reader import SOCKET_CLOSED
from dws_core._reason import shorten_reason
from dws_core._wire.close_codes import ABNORMAL, reason_of


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
        try:
            self._connection = await self._owner.new_connection(
                websocket, conn_id, topic, principal=principal, slow_consumer=slow_consumer
            )
        except Exception as error:
            if not can_answer(websocket):
                await _refuse(websocket, error)
            raise
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        connection, guard = self._connection, self._connection._guard
        disconnected, ending = connection.closed, ending_of(error)
        if guard is not None:
            guard.release()
        await self._close(ending)
        self._owner.remove_connection(connection)
        if isinstance(error, asyncio.CancelledError):
            return guard is not None and guard.swallow()
        _raise_refusal(ending, error, connection.websocket)
        return disconnected and ending.left

    async def _close(self, ending: BlockEnding) -> None:
        """Close the connection, unless an exception handler of the application will do it."""
        connection = self._connection
        if isinstance(ending.error, GeneratorExit):  # the event loop has ended, so nothing can be awaited
            connection._end(ABNORMAL, "")
        elif not connection.closed and has_own_handler(ending.error, connection.websocket.scope):
            await connection._leave_open(ending.code)
        else:
            await connection.close(ending.code, ending.reason)
            connection.websocket.close = _already_closed  # type: ignore[method-assign]


async def _refuse(websocket: WebSocket, error: Exception) -> None:
    """Refuse a client whose handshake cannot be answered with an HTTP response, usually because it is accepted."""
    ending = ending_of(error)
    accepted = websocket.application_state is WebSocketState.CONNECTED
    if accepted and not has_own_handler(ending.error, websocket.scope):
        reason = reason_of(ending.code) if ending.reason is None else ending.reason
        with suppress(*SOCKET_CLOSED):
            await websocket.close(ending.code, shorten_reason(reason))
        websocket.close = _already_closed  # type: ignore[method-assign]
    _raise_refusal(ending, error, websocket)


def _raise_refusal(ending: BlockEnding, error: BaseException | None, websocket: WebSocket) -> None:
    """Raise the exception that Starlette handles, if it is another than that of the block."""
    if ending.error is None or ending.error is error:
        return
    if ending.is_refusal or has_own_handler(ending.error, websocket.scope):
        raise ending.error


async def _already_closed(code: int = 1000, reason: str | None = None) -> None:
    """Stand in for `WebSocket.close` after the block, because the exception handler of Starlette closes again."""
