"""dws with tokens such as `ann:1767225600.5`: the user, and the time at which the token expires, if it does."""

from __future__ import annotations

from fastapi import FastAPI, WebSocket

from dws_core import Limits, Principal, WebSocketManager


def verify(token: str) -> Principal:
    user, _, expires_at = token.partition(":")
    return Principal(id=user, expires_at=float(expires_at) if expires_at else None)


def authorize(principal: Principal | None, action: str, topic: str) -> bool:
    return topic.startswith("bench")


manager = WebSocketManager(
    "bench",
    broker_url="memory://",
    verify_token=verify,
    authorize=authorize,
    limits=Limits(messages_per_s=None),
)
app = FastAPI(lifespan=manager.lifespan)


@app.websocket("/ws")
async def serve(websocket: WebSocket) -> None:
    async with manager.connect(websocket) as connection:
        async for message in connection:
            await manager.receive(connection, message)
