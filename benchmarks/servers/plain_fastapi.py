"""FastAPI alone, which stores nothing for a connection. Shows how much memory FastAPI adds to Starlette."""

from __future__ import annotations

from fastapi import FastAPI, WebSocket

app = FastAPI()


@app.websocket("/ws")
async def serve(websocket: WebSocket) -> None:
    await websocket.accept()
    async for _ in websocket.iter_text():
        await websocket.send_text('{"type":"ack","id":1}')
