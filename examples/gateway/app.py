"""A gateway in front of the chat: browsers connect to this server, which connects to the chat.

Run the chat (`nox -s demo`), then `uvicorn app:app --port 8000` in this folder. Set `CHAT_URL` to use another upstream.
"""

from __future__ import annotations

import os

from fastapi import FastAPI, WebSocket

from dws_core import WebSocketProxy

app = FastAPI(title="Gateway")


@app.websocket("/ws")
async def proxy(websocket: WebSocket) -> None:
    """Forward all messages in both directions. The client receives the subprotocol and close code of the upstream."""
    await WebSocketProxy(websocket, os.environ.get("CHAT_URL", "ws://127.0.0.1:8001/ws"))()
