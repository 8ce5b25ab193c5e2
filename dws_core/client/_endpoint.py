"""Opening a connection to a node, and deciding whether to reconnect after it has ended."""

from __future__ import annotations

import inspect
import logging
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed as SocketClosed
from websockets.exceptions import InvalidStatus, InvalidURI
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from dws_core._errors import AuthenticationFailed, ConfigurationError, ConnectionClosed, DWSError, WebSocketException
from dws_core._plugins.registry import default_registry
from dws_core._wire.client_errors import Refused
from dws_core._wire.close_codes import ABNORMAL, CloseCode, may_reconnect
from dws_core._wire.codecs import Codec, JSONCodec, MsgpackCodec

if TYPE_CHECKING:
    from ssl import SSLContext

logger = logging.getLogger("dws.client")

Token: TypeAlias = str | Callable[[], str | Awaitable[str]]
"""A bearer token, or a function that returns a fresh one for each connection. The function may be sync or async."""

OnUnauthenticated: TypeAlias = Callable[[AuthenticationFailed], bool | Awaitable[bool]]
"""Returns whether to try again with a new token, after a node has refused one. Sync or async."""

_CODECS: Final[Mapping[str, Callable[[], Codec]]] = {"json": JSONCodec, "msgpack": MsgpackCodec}
_MAX_MESSAGE_BYTES: Final = 16_777_216
_REDIRECTS: Final = frozenset({300, 301, 302, 303, 307, 308})
# RFC 9110 §15.5.9, RFC 8470 §5.2, RFC 6585 §4. All of 500-599 may be retried too.
_TRY_AGAIN: Final = frozenset({408, 425, 429})


_UNSENDABLE: Final = re.compile(r"[\x00-\x20\x7f]")  # RFC 9110 §5.5, RFC 6750 §2.1
_REFUSED_CONNECT: Final = re.compile(r"\[Errno (\d+)\] Connect call failed")


class _Connect(connect):
    """Follows redirects to allowed hosts only, because the token and the header fields are sent to the new host, too."""

    allowed_redirects: frozenset[str] = frozenset()

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the URL to connect to instead, or the error to raise."""
        found = super().process_redirect(exc)
        if isinstance(found, str) and urlsplit(found).hostname not in self.allowed_redirects:
            return exc
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why a connection ended or could not be opened.

    Attributes:
        error: Error to raise in waiting calls if the client does not reconnect.
        retry: Whether to reconnect.
        at_once: Whether to reconnect without delay.
        retry_in_s: Minimum delay before the next attempt, in seconds.
        is_refused: Whether the node has refused the token.
    """

    error: DWSError
    retry: bool = True
    at_once: bool = False
    retry_in_s: float = 0.0
    is_refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The address of a node and the settings of the handshake.

    Attributes:
        url: URL of the node, `ws://` or `wss://`.
        codec: Codec to offer as the subprotocol `dws.v1.<name>`.
        token: Token to send as `Authorization: Bearer`. If None, no token is sent.
        on_unauthenticated: Function that returns whether to try again after a node has refused the token.
        headers: Further header fields.
        allowed_redirects: Names of the hosts to which a node may redirect the client.
        ssl: TLS settings for `wss://`. If None, the system's defaults.
        proxy: Whether to use the proxies that are set in the environment.
        timeout_s: Timeout in seconds for the handshake.
    """

    url: str
    codec: Codec
    token: Token | None
    on_unauthenticated: OnUnauthenticated | None
    headers: Mapping[str, str]
    allowed_redirects: frozenset[str]
    ssl: SSLContext | None
    proxy: bool
    timeout_s: float

    def __post_init__(self) -> None:
        given: object = self.url  # an application may not be type-checked
        if not isinstance(given, str):
            raise ConfigurationError(
                f"the URL of the node is a value of type {type(given).__qualname__}, expected a text.",
                fix="write ws://host/path or wss://…",
            )

    async def open(self) -> ClientConnection:
        """Connect.

        Raises:
            AuthenticationFailed: The token function failed.
            OSError, TimeoutError, websockets.exceptions.WebSocketException: The connection failed.
        """
        headers = dict(self.headers)
        if self.token is not None:
            headers["Authorization"] = f"Bearer {await self.fresh_token()}"
        tls: dict[str, Any] = {} if self.ssl is None else {"ssl": self.ssl}
        try:
            parse_uri(self.url)
        except ValueError as error:  # for example, a port that does not exist
            raise InvalidURI(self.url, str(error)) from error
        opening = _Connect(
            self.url,
            additional_headers=headers,
            subprotocols=[Subprotocol(f"dws.v1.{self.codec.name}")],
            open_timeout=self.timeout_s,
            close_timeout=self.timeout_s,
            max_size=_MAX_MESSAGE_BYTES,
            proxy=True if self.proxy else None,
            **tls,
        )
        opening.allowed_redirects = self.allowed_redirects
        return await opening

    async def fresh_token(self) -> str:
        """Return the token. If it is a function, call it.

        Raises:
            AuthenticationFailed: The function raised an exception, or the token is no text, or cannot be sent in a header
                field.
        """
        token: object = await self._token_of(self.token) if callable(self.token) else self.token or ""
        if not isinstance(token, str):
            raise AuthenticationFailed(
                f"the client's token is a value of type {type(token).__qualname__}, expected a text.",
                fix="pass the token itself, or a function that returns it",
            )
        if _UNSENDABLE.search(token):
            raise AuthenticationFailed(
                "the token contains a space, a line break or another character that a header field must not contain.",
                fix="remove it, for example with token.strip()",
            )
        return token

    async def _token_of(self, function: Callable[[], str | Awaitable[str]]) -> str:
        try:
            token = function()
            return await token if inspect.isawaitable(token) else token
        except Exception as error:
            raise AuthenticationFailed(
                "the client's token function raised an exception.", fix="correct the function, see the cause"
            ) from error

    async def reconsider(self, ending: Ending) -> Ending:
        """Let the application decide whether to reconnect after the node has refused the token."""
        if self.on_unauthenticated is None or not isinstance(ending.error, AuthenticationFailed):
            return ending
        if not ending.is_refused:
            return ending
        try:
            again = self.on_unauthenticated(ending.error)
            again = await again if inspect.isawaitable(again) else again
        except Exception:
            logger.exception("on_unauthenticated of the client raised an exception, so the client ends")
            return ending
        return replace(ending, retry=again is True)


def codec_of(codec: str | Codec) -> Codec:
    """Return the codec with a name. A codec object is returned unchanged. Plugins are searched for other names.

    Raises:
        ConfigurationError: No installed plugin offers a codec with this name, or it refuses an option.
    """
    if not isinstance(codec, str):
        return codec
    built_in = _CODECS.get(codec)
    return built_in() if built_in is not None else default_registry().codec(codec)


def ending_of(error: Exception, url: str, *, was_connected: bool) -> Ending:
    """Return the ending for an exception of a connection.

    Args:
        error: The exception.
        url: URL of the node.
        was_connected: Whether the client has ever been connected. If True, the URL is right, so an HTTP response other than
            401 comes from an intermediary such as a load balancer or a captive portal, and the client retries.
    """
    match error:
        case SocketClosed(rcvd=received):
            code, reason = (ABNORMAL, "") if received is None else (received.code, received.reason)
            return Ending(
                error=ConnectionClosed(code, reason), retry=may_reconnect(code), at_once=code == CloseCode.DRAINED
            )
        case InvalidStatus(response=response):
            return _refused_by_http(response.status_code, url, was_connected=was_connected)
        case InvalidURI(msg=why):  # its text has the whole URL, perhaps with a password
            text = f"the URL of the node is not valid: {why}."
            return Ending(error=ConfigurationError(text, fix="write ws://host/path or wss://…"), retry=False)
        case Refused(temporary=temporary, retry_in_s=retry_in_s):
            return Ending(error=error, retry=temporary, retry_in_s=retry_in_s or 0.0)
        case DWSError():
            return Ending(error=error)
        case OSError():
            why = f"cannot connect to {urlsplit(url).netloc.rpartition('@')[2]}: {_cause_of(error)}"
            return Ending(error=ConnectionClosed(ABNORMAL, why, fix="check the address, and that the node runs there"))
    return Ending(error=ConnectionClosed(ABNORMAL, f"{type(error).__name__}: {error}"))


def _cause_of(error: OSError) -> str:
    """Return the cause in the words of the system. asyncio names the addresses that it has tried, but not the cause."""
    numbers = _REFUSED_CONNECT.findall(str(error))
    return ", ".join(dict.fromkeys(os.strerror(int(number)) for number in numbers)) or error.strerror or str(error)


def _refused_by_http(status: int, url: str, *, was_connected: bool) -> Ending:
    text = f"the handshake for {urlsplit(url).path or '/'} was refused with HTTP {status}."
    if status == 401:
        return Ending(error=AuthenticationFailed(text, fix="check the token"), retry=False, is_refused=True)
    if status == 403:
        fix = "check the path, because Starlette answers an unknown one with 403, the token and the origin"
        return Ending(error=AuthenticationFailed(text, fix=fix), retry=was_connected)
    fix = "check the path and the log of the server"
    if status in _REDIRECTS:
        fix = "use the URL of the node, or name the host in Client(allowed_redirects=[...])"
    error = WebSocketException(text, fix=fix)
    return Ending(error=error, retry=was_connected or status >= 500 or status in _TRY_AGAIN)
