"""dws in a plain Starlette route: what its memory is compared with has no FastAPI in it either."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from dws_core import WebSocketManager

manager = WebSocketManager("bench", broker_url="memory://")


async def serve(websocket: WebSocket) -> None:
    async with manager.connect(websocket) as connection:
        async for message in connection:
            await manager.receive(connection, message)


app = Starlette(routes=[WebSocketRoute("/ws", serve)], lifespan=manager.lifespan)
