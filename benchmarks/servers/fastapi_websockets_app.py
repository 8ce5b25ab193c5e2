"""fastapi-websockets: consumers and groups similar to Channels. Uses its Redis layer if BENCH_REDIS_URL is set."""

from __future__ import annotations

import json
import os
from typing import Any

from fastapi import FastAPI, WebSocket
from fastapi_websockets import AsyncWebSocketConsumer, InMemoryChannelLayer, RedisChannelLayer

_redis = os.environ.get("BENCH_REDIS_URL")
_CAPACITY = 10_000  # the default of 100 fails under this load
layer = RedisChannelLayer(url=_redis) if _redis else InMemoryChannelLayer(capacity=_CAPACITY)
app = FastAPI()


class Consumer(AsyncWebSocketConsumer):
    async def receive_text(self, text_data: str) -> None:
        message = json.loads(text_data)
        if message["type"] == "subscribe":
            await self.group_add(message["topic"])
        else:
            await self.channel_layer.group_send(message["topic"], {"type": "deliver", "text": text_data})
        if "id" in message:
            await self.send_text(json.dumps({"type": "ack", "id": message["id"]}))

    async def deliver(self, event: dict[str, Any]) -> None:
        await self.send_text(event["text"])


@app.websocket("/ws")
async def serve(websocket: WebSocket) -> None:
    await Consumer(layer=layer)(websocket)
