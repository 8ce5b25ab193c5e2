"""A chat on several worker processes with Redis: `uvicorn app:app --workers 4 --ws dws_core.server:WebSocketProtocol`.

Each worker is a node of its own; Redis joins them. `BROKER_URL` says where it is.
"""

from __future__ import annotations

import os

from fastapi import FastAPI, Response, WebSocket

from dws_core import History, WebSocketManager

manager = WebSocketManager(  # anyone may read and write here: `verify_token` and `authorize` change that
    "chat",
    broker_url=os.environ.get("BROKER_URL", "redis://localhost:6379/0"),
    history={"chat/#": History(size=500, ttl_s=3600), "pointer/#": History.none()},
    startup_patience_s=30,  # a worker that is started while Redis is away waits for it
)
app = FastAPI(lifespan=manager.lifespan)


@app.websocket("/ws")
async def chat(websocket: WebSocket) -> None:
    """Serve one client, on whichever worker it came to."""
    async with manager.connect(websocket) as connection:  # the node makes an unguessable connection id
        async for message in connection:
            await manager.receive(connection, message)


@app.get("/ready")
async def ready(response: Response) -> dict[str, str | int]:
    """Tell the load balancer whether this worker can serve."""
    health = manager.health()
    response.status_code = 200 if health.ready else 503
    return {
        "worker": os.getpid(),
        "connections": health.connections,
        "broker": health.broker,
        "detail": health.detail,
    }
