"""The connection to the upstream, and the two pumps.

The pumps move messages, one for each direction. Each awaits its own send before it reads again: the slow side slows the fast
one. Each pump reports only the end of the side it *reads*; a failed write says nothing new, because the reader of that side
will come to the same end, after what was still queued. Whichever side ends first, both are closed before the call returns.
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

logger = logging.getLogger("dws_core.proxy")

_QUEUE_FRAMES: Final = 1  # frames read ahead from the upstream, above what one read of the socket brings

# How an ASGI server says that the client is gone: OSError since ASGI 2.4, which Starlette turns into WebSocketDisconnect once
# accepted; RuntimeError where a close frame is already out (Kludex/starlette#2766).
_CLIENT_GONE: Final = (WebSocketDisconnect, OSError, RuntimeError)


class _DirectConnect(connect):
    """Connect to the one address that was configured, and to no other."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Follow no redirect: the client's headers are meant for the upstream that the developer named."""
        return exc


class WebSocketProxy:
    """Pass a client's WebSocket on to another WebSocket server: `await WebSocketProxy(websocket, url)()`.

    Text and binary messages, their order, the subprotocol, close codes and reasons go both ways. Call it before your endpoint
    accepts: the proxy then accepts once the upstream has, with the upstream's subprotocol, and an upstream that cannot be had
    becomes an HTTP 502 or 504. Where the endpoint has accepted already, it becomes a close frame with 1014 or 1013.

    Close codes that must not be sent (RFC 6455 §7.4.1) are replaced: a lost client (1006) is 1001 for the upstream, a lost
    upstream is 1014 for the client, a close frame without a code (1005) is 1000 for either.

    Sent upstream: the headers you choose, `Origin`, and `X-Forwarded-For`, `-Proto` and `-Host`, written anew from what the
    ASGI server says. `Origin` always goes along, else a page of another site could get past the upstream's origin check by
    way of the proxy; the upstream has to allow the origin that browsers see. Redirects are not followed, and proxies named in
    the environment are not used.

    Args:
        client: The client's WebSocket, accepted or not.
        server_endpoint: URL of the upstream, `ws://` or `wss://`. Quote what you insert: `urllib.parse.quote(text, safe="")`.
        forward_headers: Names of client headers that the upstream gets too. The default has no credentials: an upstream may
            belong to somebody else, so `"authorization"` and `"cookie"` are yours to add.
        extra_headers: Headers to add; they win over the client's.
        subprotocols: Subprotocols that may be asked for, as the client names them; a mapping gives the upstream's name for
            each. None: those that the client offers. If your endpoint has accepted already: the one it accepted with, and
            None means none.
        ssl: TLS settings for `wss://`. None: the system's certificates, loaded for each connection; share a context if you
            have many.
        compression: Offer permessage-deflate (RFC 7692) to the upstream. False, since inside a data centre it costs far more
            memory and time for each connection than it saves.
        max_message_bytes: Largest message in either direction; above it the connection ends with 1009. None: no limit here.
            The ASGI server has its own limit for what clients send.
        connect_timeout_s: Longest time for connecting, TLS and handshake with the upstream, in seconds.
        close_timeout_s: Longest time for closing either side, in seconds; after it the upstream's TCP connection is cut.
        stall_timeout_s: How long a side may take no data before it is given up, in seconds. None: for ever.
        ping_interval_s: Time between pings to the upstream, in seconds; one unanswered for as long means that the upstream is
            lost. None: no pings. Pings to the client are the ASGI server's.

    Raises:
        ConfigurationError: The URL, a header or a subprotocol cannot be used; nothing has been sent to anybody.
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
                "WebSocketProxy: the upstream would get two Authorization headers, one of them from server_endpoint.",
                fix="take the user and password out of the URL, or authorization out of the headers",
            )

    async def __call__(self) -> None:
        """Connect to the upstream and pass messages both ways until one side ends; then close the other.

        Cancelling the call closes both sides with 1001.
        """
        if self._is_client_closed():
            logger.debug("client of the proxy to %s is gone already", masked(self.server_endpoint))
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
        """Return the subprotocols to ask the upstream for, each with the client's name for it."""
        names = self._subprotocols
        if names is None and self._is_accepted():
            return {}  # nobody can say which one the endpoint accepted with
        offers: dict[str, str] = {}
        for name in self.client.scope.get("subprotocols", ()):
            upstreams_name = name if names is None else names.get(name, "")
            if TOKEN.fullmatch(upstreams_name):
                offers.setdefault(upstreams_name, name)
        return offers

    def _headers(self) -> dict[str, str]:
        """Collect the headers of the upstream handshake. The client's weigh least: anybody can write `X-Forwarded-For`."""
        client = self.client
        headers: dict[str, str] = {}
        for name in self._forward:
            values = client.headers.getlist(name)
            if values:
                headers[name] = ("; " if name == "cookie" else ", ").join(values)  # RFC 9113 §8.2.3; RFC 9110 §5.3
        headers.pop("x-forwarded-for", None)  # there may be no address to put in its place
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
        """Tell the client that the upstream cannot be had."""
        refusal = refusal_of(error)
        logger.warning(
            "no connection to the upstream %s: %s: %s", masked(self.server_endpoint), type(error).__name__, error
        )
        denial = "websocket.http.response" in self.client.scope.get("extensions", {})
        if self._is_accepted() or not denial:
            await self._close_client(refusal.close)
            return
        try:
            await self.client.send_denial_response(PlainTextResponse(refusal.close.reason, status_code=refusal.status))
        except _CLIENT_GONE as gone:
            logger.debug("client left before it could be refused: %r", gone)

    async def _serve(self, upstream: ClientConnection, offers: Mapping[str, str]) -> Ending:
        """Accept if nobody has, then pass messages until a side ends."""
        if self._is_accepted():
            # With nothing agreed upstream, each side would read the other's messages in a different way.
            return OTHER_SUBPROTOCOL if offers and not upstream.subprotocol else await self._relay(upstream)
        try:
            await self.client.accept(subprotocol=offers.get(upstream.subprotocol or ""))
        except _CLIENT_GONE as gone:
            logger.debug("client left before it was accepted: %r", gone)
            return CLIENT_LOST
        return await self._relay(upstream)

    async def _relay(self, upstream: ClientConnection) -> Ending:
        """Run both pumps until one has seen its side's end."""
        async with asyncio.TaskGroup() as group:
            pumps = (
                group.create_task(self._pump_to_upstream(upstream)),
                group.create_task(self._pump_to_client(upstream)),
            )
            done, rest = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if rest and all(pump.result() is None for pump in done):
                # A write failed: the pump that reads that side knows more, once it is through with what came before the end.
                await asyncio.wait(rest, timeout=self._close_timeout_s)
            for pump in pumps:
                pump.cancel()
        endings = [pump.result() for pump in pumps if not pump.cancelled()]
        return next((ending for ending in endings if ending is not None), CLIENT_LOST)

    async def _pump_to_upstream(self, upstream: ClientConnection) -> Ending | None:
        """Pass messages up until the client ends. None: the upstream takes no more, its own pump will say why."""
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
        """Pass messages down until the upstream ends. None: the client takes no more, its own pump will say why."""
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
            except _CLIENT_GONE:
                return None

    async def _close_client(self, close: Close) -> None:
        if self._is_client_closed():
            return
        try:
            async with asyncio.timeout(self._close_timeout_s):
                await self.client.close(close.code, close.reason)
        except _CLIENT_GONE as gone:  # TimeoutError too: it reads nothing, not even the close frame
            logger.debug("client could not be closed with %d: %r", close.code, gone)

    async def _close_upstream(self, upstream: ClientConnection, close: Close) -> None:
        try:
            async with asyncio.timeout(self._close_timeout_s):
                await upstream.close(close.code, close.reason)
        except TimeoutError:
            logger.debug("upstream %s took no close frame, cutting it", masked(self.server_endpoint))
        finally:
            # Nothing where it is closed. `close` may wait without end for room in a full write buffer.
            upstream.transport.abort()
            await upstream.wait_closed()
