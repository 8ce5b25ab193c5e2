"""A simple application without a library: a set of sockets for each topic, and `await send_text` to each of them."""

from __future__ import annotations

import json

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

app = FastAPI()
topics: dict[str, set[WebSocket]] = {}


@app.websocket("/ws")
async def serve(websocket: WebSocket) -> None:
    await websocket.accept()
    joined: set[str] = set()
    try:
        while True:
            text = await websocket.receive_text()
            message = json.loads(text)
            topic = message["topic"]
            if message["type"] == "subscribe":
                topics.setdefault(topic, set()).add(websocket)
                joined.add(topic)
            else:
                for receiver in list(topics.get(topic, ())):
                    await receiver.send_text(text)
            if "id" in message:
                await websocket.send_text(json.dumps({"type": "ack", "id": message["id"]}))
    except WebSocketDisconnect:
        for topic in joined:
            topics[topic].discard(websocket)
