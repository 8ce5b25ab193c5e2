"""A gateway in front of the chat: browsers talk to this server, and it talks to the chat.

Run the chat (`nox -s demo`), then `uvicorn app:app --port 8000` in this folder; `CHAT_URL` names another upstream.
"""

from __future__ import annotations

import os

from fastapi import FastAPI, WebSocket

from dws_core import WebSocketProxy

app = FastAPI(title="Gateway")


@app.websocket("/ws")
async def proxy(websocket: WebSocket) -> None:
    """Pass everything on, both ways; the upstream's subprotocol and close code become the client's."""
    await WebSocketProxy(websocket, os.environ.get("CHAT_URL", "ws://127.0.0.1:8001/ws"))()
