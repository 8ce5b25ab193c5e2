"""The connection to the upstream, and the two pumps.

Each pump forwards messages in one direction. It awaits each send before it reads again, so a slow receiver slows down
the sender. Each pump reports only the end of the side that it *reads*. A failed write needs no report: the other pump
reads that side, and reaches its end after the last queued message. Both sides are closed before the call returns, no
matter which side ended first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from dws_core._auth.refusal import log_refusal
from dws_core._errors import ConfigurationError
from dws_core._proxy.ending import (
    BROKEN,
    CLIENT_LOST,
    CLIENT_STALLED,
    OTHER_SUBPROTOCOL,
    STOPPED,
    TOO_BIG,
    UPSTREAM_STALLED,
    Close,
    Ending,
    client_left,
    refusal_of,
    upstream_left,
)
from dws_core._proxy.settings import (
    TOKEN,
    checked_headers,
    checked_names,
    checked_subprotocols,
    masked,
    parsed_endpoint,
)

if TYPE_CHECKING:
    from ssl import SSLContext

logger = logging.getLogger("dws.proxy")

_QUEUE_FRAMES: Final = 1  # frames read ahead from the upstream, in addition to those of the last socket read

# The exceptions by which an ASGI server reports a closed connection: OSError since ASGI 2.4, which Starlette turns into
# WebSocketDisconnect after accept, and RuntimeError after a close frame was sent (Kludex/starlette#2766).
_CLIENT_CLOSED: Final = (WebSocketDisconnect, OSError, RuntimeError)


class _DirectConnect(connect):
    """Connects only to the configured address."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Follow no redirect: the client's headers are meant only for the configured upstream."""
        return exc


class WebSocketProxy:
    """Forward a client's WebSocket to another WebSocket server: `await WebSocketProxy(websocket, url)()`.

    Text and binary messages, their order, the subprotocol, close codes and reasons are forwarded in both directions.
    Call it before your endpoint accepts. The proxy then accepts after the upstream has accepted, with the upstream's
    subprotocol. If the upstream refuses the handshake with HTTP 4xx or 503, the client receives the same status. If the
    upstream is unavailable, the proxy refuses the client with 502 or 504. If your endpoint has accepted already, the proxy
    closes the connection instead: with 1008 for 4xx, after which clients do not reconnect, with 1013 for statuses that tell
    them to come later, and with 1014 or 1013 otherwise.

    Close codes that must not be sent (RFC 6455 §7.4.1) are replaced. If the client's connection is lost (1006), the
    upstream receives 1001. If the upstream's connection is lost, the client receives 1014. A close frame without a code
    (1005) is forwarded as 1000.

    The upstream receives the headers you choose, `Origin`, and `X-Forwarded-For`, `-Proto` and `-Host`. The proxy sets
    the `X-Forwarded` headers from the values of the ASGI server, not from those of the client. It always forwards
    `Origin`, because otherwise a page of another site could bypass the upstream's origin check. The upstream must
    therefore allow the origin that browsers see. Redirects are not followed, and proxies named in the environment are
    not used.

    Args:
        client: The client's WebSocket, accepted or not.
        server_endpoint: URL of the upstream, `ws://` or `wss://`. Quote inserted text with
            `urllib.parse.quote(text, safe="")`.
        forward_headers: Names of client headers to forward. The default forwards no credentials, because the upstream
            may belong to somebody else. Add `"authorization"` or `"cookie"` if the upstream needs them.
        extra_headers: Headers to add. They replace client headers of the same name.
        subprotocols: Subprotocols to request from the upstream, by the client's names. A mapping gives the upstream's
            name for each. If None, the client's offer is forwarded. If your endpoint has accepted already, pass the
            subprotocol that it accepted. None then means no subprotocol.
        ssl: TLS settings for `wss://`. If None, the system's certificates are loaded for each connection. Share a
            context if you have many connections.
        compression: Whether to offer permessage-deflate (RFC 7692) to the upstream. Inside a data centre it costs far
            more memory and time for each connection than it saves.
        max_message_bytes: Maximum message size in either direction, in bytes. A larger message closes the connection
            with 1009. If None, the proxy has no limit. The ASGI server has its own limit for messages of clients.
        connect_timeout_s: Timeout in seconds for connecting, TLS and handshake with the upstream.
        close_timeout_s: Timeout in seconds for closing either side. After that, the upstream's TCP connection is
            aborted.
        stall_timeout_s: Timeout in seconds for a side that does not read. After that, the connection is closed. If
            None, the proxy waits forever.
        ping_interval_s: Interval between pings to the upstream, in seconds. A ping without an answer for the same time
            means that the upstream is lost. If None, no pings are sent. The ASGI server pings the client.

    Raises:
        ConfigurationError: The URL, a header or a subprotocol is invalid. Nothing has been sent to either side.
    """

    def __init__(
        self,
        client: WebSocket,
        server_endpoint: str,
        *,
        forward_headers: Collection[str] = ("accept-language", "user-agent"),
        extra_headers: Mapping[str, str] | None = None,
        subprotocols: Collection[str] | Mapping[str, str] | None = None,
        ssl: SSLContext | None = None,
        compression: bool = False,
        max_message_bytes: int | None = 1_048_576,
        connect_timeout_s: float = 10.0,
        close_timeout_s: float = 5.0,
        stall_timeout_s: float | None = 60.0,
        ping_interval_s: float | None = 20.0,
    ) -> None:
        self.client = client
        self.server_endpoint = server_endpoint
        self._forward = ("origin", *checked_names(forward_headers, argument="forward_headers"))
        self._extra = checked_headers(extra_headers or {})
        self._subprotocols = checked_subprotocols(subprotocols)
        self._ssl = ssl
        self._compression = "deflate" if compression else None
        self._max_message_bytes = max_message_bytes
        self._connect_timeout_s = connect_timeout_s
        self._close_timeout_s = close_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._ping_interval_s = ping_interval_s
        uri = parsed_endpoint(server_endpoint, ssl=ssl)
        if uri.username is not None and "authorization" in (*self._forward, *self._extra):
            raise ConfigurationError(
                "WebSocketProxy: the upstream would receive two Authorization headers, one from server_endpoint.",
                fix="remove the user and password from the URL, or authorization from the headers",
            )

    async def __call__(self) -> None:
        """Connect to the upstream and forward messages in both directions until one side ends. Then close the other.

        Cancelling the call closes both sides with 1001.
        """
        if self._is_client_closed():
            logger.debug("the client closed before the proxy to %s began", masked(self.server_endpoint))
            return
        offers = self._offers()
        try:
            upstream = await self._connect(list(offers))
        except (OSError, WebSocketException) as error:
            await self._refuse(error)
            return
        ending = STOPPED
        try:
            ending = await self._serve(upstream, offers)
        except Exception:
            ending = BROKEN
            raise
        finally:
            async with asyncio.TaskGroup() as closing:
                closing.create_task(self._close_client(ending.to_client))
                closing.create_task(self._close_upstream(upstream, ending.to_upstream))

    def _is_client_closed(self) -> bool:
        states = (self.client.client_state, self.client.application_state)
        return WebSocketState.DISCONNECTED in states or WebSocketState.RESPONSE in states

    def _is_accepted(self) -> bool:
        return self.client.application_state is WebSocketState.CONNECTED

    def _offers(self) -> dict[str, str]:
        """Return the subprotocols to request from the upstream, each with the client's name for it."""
        names = self._subprotocols
        if names is None and self._is_accepted():
            return {}  # Starlette does not store the subprotocol that the endpoint accepted
        offers: dict[str, str] = {}
        for name in self.client.scope.get("subprotocols", ()):
            upstreams_name = name if names is None else names.get(name, "")
            if TOKEN.fullmatch(upstreams_name):
                offers.setdefault(upstreams_name, name)
        return offers

    def _headers(self) -> dict[str, str]:
        """Collect the headers of the upstream handshake.

        Client headers have the lowest priority, because any client can send an `X-Forwarded-For`.
        """
        client = self.client
        headers: dict[str, str] = {}
        for name in self._forward:
            values = client.headers.getlist(name)
            if values:
                headers[name] = ("; " if name == "cookie" else ", ").join(values)  # RFC 9113 §8.2.3; RFC 9110 §5.3
        headers.pop("x-forwarded-for", None)  # the server may have no address to replace it
        if client.client is not None:
            headers["x-forwarded-for"] = client.client.host
        headers["x-forwarded-proto"] = "https" if client.url.scheme == "wss" else "http"
        headers["x-forwarded-host"] = client.headers.get("host", "")
        return headers | self._extra

    async def _connect(self, subprotocols: list[str]) -> ClientConnection:
        tls: dict[str, Any] = {} if self._ssl is None else {"ssl": self._ssl}
        return await _DirectConnect(
            self.server_endpoint,
            additional_headers=self._headers(),
            user_agent_header=None,
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            compression=self._compression,
            open_timeout=self._connect_timeout_s,
            close_timeout=self._close_timeout_s,
            ping_interval=self._ping_interval_s,
            ping_timeout=self._ping_interval_s,
            max_size=self._max_message_bytes,
            max_queue=_QUEUE_FRAMES,
            proxy=None,
            **tls,
        )

    async def _refuse(self, error: Exception) -> None:
        """Refuse the client because the upstream is unavailable."""
        refusal = refusal_of(error)
        logger.warning(
            "cannot connect to the upstream %s: %s: %s", masked(self.server_endpoint), type(error).__name__, error
        )
        log_refusal(self.client, refusal.close.reason)
        denial = "websocket.http.response" in self.client.scope.get("extensions", {})
        if self._is_accepted() or not denial:
            await self._close_client(refusal.close)
            return
        try:
            await self.client.send_denial_response(
                PlainTextResponse(refusal.close.reason, status_code=refusal.status, headers=refusal.headers)
            )
        except _CLIENT_CLOSED as closed:
            logger.debug("the client closed before it could be refused: %r", closed)

    async def _serve(self, upstream: ClientConnection, offers: Mapping[str, str]) -> Ending:
        """Accept the client unless the endpoint has, then forward messages until one side ends."""
        if self._is_accepted():
            # Without the agreed subprotocol, the two sides would misread each other's messages.
            return OTHER_SUBPROTOCOL if offers and not upstream.subprotocol else await self._relay(upstream)
        try:
            await self.client.accept(subprotocol=offers.get(upstream.subprotocol or ""))
        except _CLIENT_CLOSED as closed:
            logger.debug("the client closed before it was accepted: %r", closed)
            return CLIENT_LOST
        return await self._relay(upstream)

    async def _relay(self, upstream: ClientConnection) -> Ending:
        """Run both pumps until one reaches the end of the side that it reads."""
        async with asyncio.TaskGroup() as group:
            pumps = (
                group.create_task(self._pump_to_upstream(upstream)),
                group.create_task(self._pump_to_client(upstream)),
            )
            done, rest = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if rest and all(pump.result() is None for pump in done):
                # A write failed. The other pump reads that side and returns its ending after the last queued message.
                await asyncio.wait(rest, timeout=self._close_timeout_s)
            for pump in pumps:
                pump.cancel()
        endings = [pump.result() for pump in pumps if not pump.cancelled()]
        return next((ending for ending in endings if ending is not None), CLIENT_LOST)

    async def _pump_to_upstream(self, upstream: ClientConnection) -> Ending | None:
        """Forward messages of the client until it ends.

        Return None if the upstream is closed. The other pump then returns the ending.
        """
        while True:
            event = await self.client.receive()
            if event["type"] == "websocket.disconnect":
                return client_left(event)
            text: str | None = event.get("text")
            data: bytes = event["bytes"] if text is None else text.encode()
            if self._max_message_bytes is not None and len(data) > self._max_message_bytes:
                return TOO_BIG
            try:
                async with asyncio.timeout(self._stall_timeout_s):
                    await upstream.send(data, text=text is not None)
            except TimeoutError:
                return UPSTREAM_STALLED
            except ConnectionClosed:
                return None

    async def _pump_to_client(self, upstream: ClientConnection) -> Ending | None:
        """Forward messages of the upstream until it ends.

        Return None if the client is closed. The other pump then returns the ending.
        """
        while True:
            try:
                message = await upstream.recv()
            except ConnectionClosed as closed:
                return upstream_left(closed)
            kind = "text" if isinstance(message, str) else "bytes"
            try:
                async with asyncio.timeout(self._stall_timeout_s):
                    await self.client.send({"type": "websocket.send", kind: message})
            except TimeoutError:
                return CLIENT_STALLED
            except _CLIENT_CLOSED:
                return None

    async def _close_client(self, close: Close) -> None:
        if self._is_client_closed():
            return
        try:
            async with asyncio.timeout(self._close_timeout_s):
                await self.client.close(close.code, close.reason)
        except _CLIENT_CLOSED as closed:  # includes TimeoutError: the client did not read the close frame
            logger.debug("the client could not be closed with %d: %r", close.code, closed)

    async def _close_upstream(self, upstream: ClientConnection, close: Close) -> None:
        try:
            async with asyncio.timeout(self._close_timeout_s):
                await upstream.close(close.code, close.reason)
        except TimeoutError:
            logger.debug("the upstream %s did not read the close frame, aborting", masked(self.server_endpoint))
        finally:
            # Does nothing if it is closed already. `close` may wait forever for room in a full write buffer.
            upstream.transport.abort()
            await upstream.wait_closed()
