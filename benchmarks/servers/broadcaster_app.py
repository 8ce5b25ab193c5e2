"""encode/broadcaster in FastAPI: a queue and a task per subscription. Uses Redis if BENCH_REDIS_URL is set."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broadcaster import Broadcast
from fastapi import FastAPI, WebSocket

broadcast = Broadcast(os.environ.get("BENCH_REDIS_URL", "memory://"))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with broadcast:
        yield


app = FastAPI(lifespan=lifespan)


async def acknowledge(websocket: WebSocket, message: dict[str, object]) -> None:
    if "id" in message:
        await websocket.send_text(json.dumps({"type": "ack", "id": message["id"]}))


async def follow(websocket: WebSocket, message: dict[str, object]) -> None:
    async with broadcast.subscribe(channel=str(message["topic"])) as subscriber:
        await acknowledge(websocket, message)
        async for event in subscriber:
            await websocket.send_text(event.message)


@app.websocket("/ws")
async def serve(websocket: WebSocket) -> None:
    await websocket.accept()
    async with asyncio.TaskGroup() as tasks:
        following = []
        async for text in websocket.iter_text():
            message = json.loads(text)
            if message["type"] == "subscribe":
                following.append(tasks.create_task(follow(websocket, message)))
            else:
                await broadcast.publish(channel=message["topic"], message=text)
                await acknowledge(websocket, message)
        for task in following:
            task.cancel()
