"""The block in which an application serves one client."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

from starlette.websockets import WebSocket, WebSocketDisconnect

from dws_core._auth.interface import Principal
from dws_core._errors import ConnectionClosed
from dws_core._limits.backlog import SlowConsumer
from dws_core._node.connection.connection import Connection
from dws_core._wire.close_codes import CloseCode

if TYPE_CHECKING:
    from dws_core._node.manager import WebSocketManager


class ConnectBlock:
    """The block of `connect`. A class and not a generator: an idle connection keeps a smaller one in memory."""

    __slots__ = ("_asked", "_connection", "_manager")

    def __init__(
        self,
        manager: WebSocketManager,
        websocket: WebSocket,
        conn_id: str | None,
        topic: str | None,
        principal: Principal | None,
        slow_consumer: SlowConsumer | None,
    ) -> None:
        self._manager = manager
        self._asked = (websocket, conn_id, topic, principal, slow_consumer)

    async def __aenter__(self) -> Connection:
        websocket, conn_id, topic, principal, slow_consumer = self._asked
        del self._asked  # the block lasts as long as the connection
        self._connection = await self._manager.new_connection(
            websocket, conn_id, topic, principal=principal, slow_consumer=slow_consumer
        )
        return self._connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        gone, guard = self._connection.closed, self._connection.guard
        if guard is not None:
            guard.release()
        code, swallowed = CloseCode.NORMAL, False
        if isinstance(error, asyncio.CancelledError):
            code, swallowed = CloseCode.GOING_AWAY, guard is not None and guard.swallow()
        elif error is not None:
            code = CloseCode.INTERNAL_ERROR
            swallowed = gone and isinstance(error, ConnectionClosed | WebSocketDisconnect)
        await self._connection.close(code)
        self._manager.remove_connection(self._connection)
        return swallowed
