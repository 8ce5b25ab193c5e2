"""Starlette alone, which stores nothing for a connection. The baseline of the memory comparison."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket


async def serve(websocket: WebSocket) -> None:
    await websocket.accept()
    async for _ in websocket.iter_text():
        await websocket.send_text('{"type":"ack","id":1}')


app = Starlette(routes=[WebSocketRoute("/ws", serve)])
