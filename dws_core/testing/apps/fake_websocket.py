"""A fake WebSocket for tests of applications."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

from fastapi import WebSocket

_MAX_SHOWN: Final = 5


class FakeWebSocket(WebSocket):
    """A real `WebSocket` whose client is the test.

    The application uses it like any WebSocket of Starlette. The test acts as the client. `client_sends`,
    `client_sends_json` and `client_leaves` queue actions of the client. `frames`, `accepted`, `subprotocol` and
    `close_code` contain the actions of the application, and `next_frame` waits for its next frame. Clear the `gate` to
    simulate a client that does not read. A send then waits until the gate is set.

    Args:
        path: Path of the request.
        headers: Header fields of the handshake.
        query_string: Query of the request, without the question mark.
        subprotocols: Subprotocols that the client offers.
        host: The `Host` header field, and the host part of the server's address.

    Attributes:
        sent: The ASGI messages that the application sent.
        gate: Event that lets sends continue. While it is cleared, the client does not read.

    Example:
        ```python
        socket = FakeWebSocket()
        async with manager.connect(socket, "alice"):
            socket.client_sends_json({"type": "ping", "id": 1})
        ```
    """

    def __init__(
        self,
        path: str = "/ws",
        *,
        headers: Mapping[str, str] | None = None,
        query_string: str = "",
        subprotocols: Iterable[str] = (),
        host: str = "testserver",
    ) -> None:
        fields = {"host": host, **{name.lower(): value for name, value in (headers or {}).items()}}
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": path,
            "raw_path": quote(path).encode(),
            "root_path": "",
            "query_string": query_string.encode(),
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()],
            "client": ("127.0.0.1", 50_000),
            "server": (host, 80),
            "subprotocols": list(subprotocols),
            "state": {},
            "extensions": {"websocket.http.response": {}},
        }
        self.sent: list[dict[str, Any]] = []
        self.gate: asyncio.Event = asyncio.Event()
        self.gate.set()
        self._frames: asyncio.Queue[str | bytes] = asyncio.Queue()
        self._from_client: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_client.put_nowait({"type": "websocket.connect"})
        self._disconnected = False
        super().__init__(scope, receive=self._from_client.get, send=self._on_sent)

    def client_sends(self, frame: str | bytes) -> None:
        """Queue a text or binary frame of the client."""
        text, data = (frame, None) if isinstance(frame, str) else (None, frame)
        self._from_client.put_nowait({"type": "websocket.receive", "text": text, "bytes": data})

    def client_sends_json(self, value: Any) -> None:
        """Queue a text frame with a value as JSON."""
        self.client_sends(json.dumps(value))

    def client_leaves(self, code: int = 1000, reason: str = "") -> None:
        """Queue the client's close frame. From now on, sends of the application fail like on a broken connection."""
        self._disconnected = True
        self.gate.set()
        self._from_client.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})

    @property
    def frames(self) -> list[str | bytes]:
        """The frames that the application sent."""
        return [_frame(message) for message in self.sent if message["type"] == "websocket.send"]

    @property
    def accepted(self) -> bool:
        """Whether the application accepted the handshake."""
        return any(message["type"] == "websocket.accept" for message in self.sent)

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that the application selected, or None."""
        return self._last("websocket.accept", "subprotocol")  # type: ignore[no-any-return]  # of ASGI: str or None

    @property
    def close_code(self) -> int | None:
        """The close code of the application, or None if it has not closed."""
        return self._last("websocket.close", "code")  # type: ignore[no-any-return]  # of ASGI: int

    @property
    def refused_with(self) -> int | None:
        """The HTTP status of a refused handshake, or None if it was not refused."""
        return self._last("websocket.http.response.start", "status")  # type: ignore[no-any-return]  # of ASGI: int

    async def next_frame(self, *, within_s: float = 10.0) -> str | bytes:
        """Wait for the next frame that the application sends.

        Raises:
            TimeoutError: No frame arrived in time. The text lists the actions of the application.
        """
        try:
            async with asyncio.timeout(within_s):
                return await self._frames.get()
        except TimeoutError:
            actions = ", ".join(message["type"] for message in self.sent[-_MAX_SHOWN:]) or "nothing"
            raise TimeoutError(
                f"waited {within_s} s for a frame of the application, which has sent: {actions}"
            ) from None

    async def next_json(self, *, within_s: float = 10.0) -> Any:
        """Wait for the next frame and decode it as JSON."""
        return json.loads(await self.next_frame(within_s=within_s))

    async def _on_sent(self, message: Mapping[str, Any]) -> None:
        await self.gate.wait()
        if self._disconnected:
            raise OSError("the client of this FakeWebSocket has left")
        self.sent.append(dict(message))
        if message["type"] == "websocket.send":
            self._frames.put_nowait(_frame(message))

    def _last(self, kind: str, member: str) -> Any:
        return next((message.get(member) for message in reversed(self.sent) if message["type"] == kind), None)


def _frame(message: Mapping[str, Any]) -> str | bytes:
    text: str | None = message.get("text")
    return message["bytes"] if text is None else text
