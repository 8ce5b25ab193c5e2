"""Opening a socket to a node, and what the end of one means."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed as SocketClosed
from websockets.exceptions import InvalidStatus, InvalidURI
from websockets.typing import Subprotocol

from dws_core._errors import AuthenticationFailed, ConfigurationError, ConnectionClosed, DWSError, WebSocketException
from dws_core._wire.client_errors import Refused
from dws_core._wire.close_codes import CloseCode, may_reconnect
from dws_core._wire.codecs import Codec, JSONCodec, MsgpackCodec

if TYPE_CHECKING:
    from ssl import SSLContext

Token: TypeAlias = str | Callable[[], str | Awaitable[str]]
"""A bearer token, or what returns a fresh one: asked for each connection."""

_CODECS: Final[Mapping[str, Callable[[], Codec]]] = {"json": JSONCodec, "msgpack": MsgpackCodec}
_MAX_MESSAGE_BYTES: Final = 16_777_216
_ABNORMAL: Final = 1006
_TRY_AGAIN: Final = frozenset({408, 425, 429})  # RFC 9110 §15.5.9, RFC 8470 §5.2, RFC 6585 §4; and all of 500-599


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why a connection ended or could not be made.

    Attributes:
        error: For those who wait, if nothing follows.
        retry: Whether to connect again.
        at_once: Whether to do so without delay.
    """

    error: DWSError
    retry: bool = True
    at_once: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a node is, and how to come in.

    Attributes:
        url: `ws://` or `wss://`.
        codec: Offered as `dws.v1.<name>`.
        token: Sent as `Authorization: Bearer`; None: none.
        headers: Further header fields.
        ssl: For `wss://`; None: the system's defaults.
        proxy: Whether the proxies of the environment are used.
        timeout_s: Seconds for the handshake.
    """

    url: str
    codec: Codec
    token: Token | None
    headers: Mapping[str, str]
    ssl: SSLContext | None
    proxy: bool
    timeout_s: float

    async def open(self) -> ClientConnection:
        """Connect; raises what `websockets` does, and `AuthenticationFailed` where there is no token."""
        headers = dict(self.headers)
        if self.token is not None:
            headers["Authorization"] = f"Bearer {await self.fresh_token()}"
        tls: dict[str, Any] = {} if self.ssl is None else {"ssl": self.ssl}
        return await connect(
            self.url,
            additional_headers=headers,
            subprotocols=[Subprotocol(f"dws.v1.{self.codec.name}")],
            open_timeout=self.timeout_s,
            close_timeout=self.timeout_s,
            max_size=_MAX_MESSAGE_BYTES,
            proxy=True if self.proxy else None,
            **tls,
        )

    async def fresh_token(self) -> str:
        """Return the token, asking its function if it has one."""
        if not callable(self.token):
            return self.token or ""
        try:
            token = self.token()
            return await token if inspect.isawaitable(token) else token
        except Exception as error:
            raise AuthenticationFailed("the client's token function failed.", fix="see its own error") from error


def codec_of(codec: str | Codec) -> Codec:
    """Return a codec by its name, or as it is.

    Raises:
        ConfigurationError: Not known.
    """
    if not isinstance(codec, str):
        return codec
    try:
        return _CODECS[codec]()
    except KeyError:
        known = ", ".join(_CODECS)
        raise ConfigurationError(f"codec {codec!r} is not known.", fix=f"use one of {known}, or an object") from None


def ending_of(error: Exception) -> Ending:
    """Say what the failure of a connection means."""
    match error:
        case SocketClosed(rcvd=received):
            code, reason = (_ABNORMAL, "") if received is None else (received.code, received.reason)
            return Ending(
                error=ConnectionClosed(code, reason), retry=may_reconnect(code), at_once=code == CloseCode.DRAINED
            )
        case InvalidStatus(response=response):
            return _refused_by_http(response.status_code)
        case InvalidURI():
            return Ending(error=ConfigurationError(f"{error}.", fix="write ws://host/path or wss://…"), retry=False)
        case Refused(temporary=temporary):
            return Ending(error=error, retry=temporary)
        case DWSError():
            return Ending(error=error)
    return Ending(error=ConnectionClosed(_ABNORMAL, f"{type(error).__name__}: {error}"))


def _refused_by_http(status: int) -> Ending:
    if status in {401, 403}:
        text, fix = f"the node refused the handshake with HTTP {status}.", "check the token and the origin"
        return Ending(error=AuthenticationFailed(text, fix=fix), retry=False)
    text, fix = f"the handshake was answered by HTTP {status}.", "check the URL and the node's log"
    return Ending(error=WebSocketException(text, fix=fix), retry=status >= 500 or status in _TRY_AGAIN)
