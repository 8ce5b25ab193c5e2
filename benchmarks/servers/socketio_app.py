"""python-socketio: rooms, its own JSON, acknowledgements by callback id. Uses Redis if BENCH_REDIS_URL is set."""

from __future__ import annotations

import os
from typing import Any

import socketio

_redis = os.environ.get("BENCH_REDIS_URL")
server = socketio.AsyncServer(async_mode="asgi", client_manager=socketio.AsyncRedisManager(_redis) if _redis else None)
app = socketio.ASGIApp(server)


@server.event
async def subscribe(sid: str, topic: str) -> str:
    await server.enter_room(sid, topic)
    return "ok"


@server.event
async def send(sid: str, message: dict[str, Any]) -> str:
    await server.emit("message", message, room=message["topic"])
    return "ok"
