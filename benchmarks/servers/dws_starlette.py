"""dws in a plain Starlette route, for the memory comparison with a server that does not use FastAPI either."""

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
