"""`WebSocketProxy`: pass one client's WebSocket on to another server."""

from __future__ import annotations

from dws_core._proxy.proxy import WebSocketProxy

__all__ = ["WebSocketProxy"]
