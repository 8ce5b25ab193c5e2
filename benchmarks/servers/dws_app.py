"""dws as in its README, with every check enabled. Only the rate limit is off, because the load is high on purpose."""

from __future__ import annotations

import os

from fastapi import FastAPI, WebSocket

from dws_core import Limits, Principal, WebSocketManager


def authorize(principal: Principal | None, action: str, topic: str) -> bool:
    return topic.startswith("bench")


manager = WebSocketManager(
    "bench",
    broker_url=os.environ.get("BROKER_URL", "memory://"),
    authorize=authorize,
    limits=Limits(messages_per_s=None),
)
app = FastAPI(lifespan=manager.lifespan)


@app.websocket("/ws")
async def serve(websocket: WebSocket) -> None:
    async with manager.connect(websocket) as connection:
        async for message in connection:
            await manager.receive(connection, message)
