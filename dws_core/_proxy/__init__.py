"""`WebSocketProxy`: forwards a client's WebSocket to another server."""

from __future__ import annotations

from dws_core._proxy.proxy import WebSocketProxy

__all__ = ["WebSocketProxy"]
