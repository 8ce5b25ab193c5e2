"""fastapi-distributed-websocket as in its README. Uses its Redis broker if BENCH_REDIS_URL is set."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from distributed_websocket import WebSocketManager
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

manager = WebSocketManager("bench", broker_url=os.environ.get("BENCH_REDIS_URL", "memory://"))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with manager:
        yield


app = FastAPI(lifespan=lifespan)


@app.websocket("/ws")
async def serve(websocket: WebSocket) -> None:
    connection = await manager.new_connection(websocket, str(id(websocket)))
    try:
        while True:
            message = await websocket.receive_json()
            await manager.receive(connection, message)
            if "id" in message:  # the library has no acknowledgements
                await connection.send_json({"type": "ack", "id": message["id"]})
    except WebSocketDisconnect:
        manager.remove_connection(connection)
