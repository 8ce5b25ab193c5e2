"""A chat on several worker processes: `uvicorn app:app --workers 4`.

Each worker is a separate node, and a Redis connects them. Set `BROKER_URL` to use another Redis, a RabbitMQ or a Kafka.
"""

from __future__ import annotations

import os

from fastapi import FastAPI, Response, WebSocket

from dws_core import History, WebSocketManager

manager = WebSocketManager(  # all clients may read and write, `verify_token` and `authorize` would restrict them
    "chat",
    broker_url=os.environ.get("BROKER_URL", "redis://localhost:6379/0"),
    history={"chat/#": History(size=500, ttl_s=3600), "pointer/#": History.none()},
    startup_patience_s=30,  # how long a starting worker waits for an unavailable broker
)
app = FastAPI(lifespan=manager.lifespan)


@app.websocket("/ws")
async def chat(websocket: WebSocket) -> None:
    """Serve one client on the worker that accepted its connection."""
    async with manager.connect(websocket) as connection:  # the node assigns a random connection id
        async for message in connection:
            await manager.receive(connection, message)


@app.get("/ready")
async def ready(response: Response) -> dict[str, str | int]:
    """Report to the load balancer whether this worker can serve clients."""
    health = manager.health()
    response.status_code = 200 if health.ready else 503
    return {
        "worker": os.getpid(),
        "connections": health.connections,
        "broker": health.broker,
        "detail": health.detail,
    }
