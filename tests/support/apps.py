"""Applications that tests serve."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, WebSocket

from dws_core import History, WebSocketManager

HISTORY = {"t/#": History(size=10_000), "short": History(size=50)}
"""What nodes in processes of their own keep: all of the topics `t/…`, little of the topic `short`."""


def chat_app(manager: WebSocketManager) -> FastAPI:
    """The application of the README."""
    app = FastAPI(lifespan=manager.lifespan)

    @app.websocket("/ws/{conn_id}")
    async def chat(websocket: WebSocket, conn_id: str) -> None:
        async with manager.connect(websocket, conn_id) as connection:
            async for message in connection:
                await manager.receive(connection, message)

    @app.post("/announce")
    async def announce(text: str) -> None:
        await manager.publish("chat/lobby", {"text": text})

    return app


def chat(url: str = "memory://", **kwargs: Any) -> tuple[WebSocketManager, FastAPI]:
    """Return a node and its application."""
    manager = WebSocketManager("chat", broker_url=url, **kwargs)
    return manager, chat_app(manager)
