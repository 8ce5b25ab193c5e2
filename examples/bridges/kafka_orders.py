"""Sends the records of an existing Kafka topic to browsers.

Run `uvicorn kafka_orders:app --ws dws_core.server:WebSocketProtocol` in this folder.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, WebSocket
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from dws_core import WebSocketManager

manager = WebSocketManager("shop", broker_url=os.environ.get("DWS_BROKER", "memory://"))
kafka = KafkaBroker(os.environ.get("KAFKA", "localhost:9092"))


@kafka.subscriber("orders", group_id="dws-bridge", auto_offset_reset="earliest", ack_policy=AckPolicy.NACK_ON_ERROR)
async def forward(order: dict[str, Any], message: KafkaMessage) -> None:
    """Publish an order. Kafka sends it again if this fails, and the key makes a repeat harmless."""
    record: Any = message.raw_message
    await manager.publish(f"orders/{order['id']}", order, key=f"{record.topic}-{record.partition}-{record.offset}")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start the node first, and stop it last, so that every order can be published."""
    async with manager.lifespan(app):
        await kafka.start()
        try:
            yield
        finally:
            await kafka.stop()


app = FastAPI(title="Orders", lifespan=lifespan)


@app.websocket("/ws")
async def orders(websocket: WebSocket) -> None:
    """Let a browser subscribe to `orders/7` or `orders/+`."""
    async with manager.connect(websocket) as connection:
        async for message in connection:
            await manager.receive(connection, message)
