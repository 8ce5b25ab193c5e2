"""Sends the messages of an existing RabbitMQ queue to browsers.

Run `uvicorn rabbitmq_orders:app --ws dws_core.server:WebSocketProtocol` in this folder.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, WebSocket
from faststream import AckPolicy
from faststream.rabbit import RabbitBroker, RabbitMessage, RabbitQueue

from dws_core import WebSocketManager

manager = WebSocketManager("shop", broker_url=os.environ.get("DWS_BROKER", "memory://"))
rabbit = RabbitBroker(os.environ.get("RABBITMQ", "amqp://guest:guest@localhost:5672/"))


@rabbit.subscriber(RabbitQueue("orders", durable=True), ack_policy=AckPolicy.NACK_ON_ERROR)
async def forward(order: dict[str, Any], message: RabbitMessage) -> None:
    """Publish an order. RabbitMQ sends it again if this fails, and the key makes a repeat harmless."""
    await manager.publish(f"orders/{order['id']}", order, key=message.message_id)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start the node first, and stop it last, so that every order can be published."""
    async with manager.lifespan(app):
        await rabbit.start()
        try:
            yield
        finally:
            await rabbit.stop()


app = FastAPI(title="Orders", lifespan=lifespan)


@app.websocket("/ws")
async def orders(websocket: WebSocket) -> None:
    """Let a browser subscribe to `orders/7` or `orders/+`."""
    async with manager.connect(websocket) as connection:
        async for message in connection:
            await manager.receive(connection, message)
