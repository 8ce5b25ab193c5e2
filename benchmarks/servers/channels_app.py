"""Django Channels on uvicorn: a consumer and its groups. Uses channels_redis (pub/sub) if BENCH_REDIS_URL is set."""

from __future__ import annotations

import json
import os
from typing import Any

from django.conf import settings

_CAPACITY = 10_000  # the default of 100 drops messages under this load
_redis = os.environ.get("BENCH_REDIS_URL")
_memory = {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": _CAPACITY}}
_pubsub = {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [_redis]}}
settings.configure(CHANNEL_LAYERS={"default": _pubsub if _redis else _memory})

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402 -- the import reads the settings
from channels.routing import ProtocolTypeRouter  # noqa: E402


class Consumer(AsyncWebsocketConsumer):
    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        assert text_data is not None
        message = json.loads(text_data)
        group = message["topic"].replace("/", ".")  # group names have no slash
        if message["type"] == "subscribe":
            await self.channel_layer.group_add(group, self.channel_name)
        else:
            await self.channel_layer.group_send(group, {"type": "deliver", "text": text_data})
        if "id" in message:
            await self.send(text_data=json.dumps({"type": "ack", "id": message["id"]}))

    async def deliver(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event["text"])


async def _lifespan(scope: object, receive: Any, send: Any) -> None:
    while (event := await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": event["type"] + ".complete"})


app = ProtocolTypeRouter({"websocket": Consumer.as_asgi(), "lifespan": _lifespan})
