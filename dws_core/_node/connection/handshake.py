"""From a handshake to an accepted socket: origin, subprotocol, authentication."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping

from starlette.websockets import WebSocket, WebSocketState

from dws_core._auth.bearer import read_handshake
from dws_core._auth.interface import Authenticator, Handshake, Principal
from dws_core._auth.origin import AllowedOrigins
from dws_core._auth.refusal import refuse_authentication, refuse_malformed, refuse_origin
from dws_core._errors import AuthenticationFailed, InvalidMessage
from dws_core._node.connection.authenticator import secret_prefixes
from dws_core._node.connection.token_checker import is_expired
from dws_core._wire.codecs import Codec
from dws_core._wire.node_topics import check_conn_id

_PREFIX = "dws.v1."


class HandshakeChecker:
    """Checks handshakes and accepts them.

    Args:
        codecs: Client codecs by name. Their subprotocols are `dws.v1.<name>`.
        default: Codec of a client that offers no subprotocol.
        authenticator: Authenticates clients. If None, clients are not authenticated.
        allowed_origins: Origins allowed in addition to the node's own. See `AllowedOrigins`.
        hello: Whether to accept clients without credentials, because they send a token in their first message.

    Raises:
        ConfigurationError: An origin is malformed.
    """

    def __init__(
        self,
        codecs: Mapping[str, Codec],
        default: Codec,
        authenticator: Authenticator | None,
        allowed_origins: Collection[str],
        *,
        hello: bool = False,
    ) -> None:
        self._hello = hello
        self._codecs = {_PREFIX + name: codec for name, codec in codecs.items()}
        self._default = default
        self._authenticator = authenticator
        self._secret_prefixes = secret_prefixes(authenticator)
        self._origins = AllowedOrigins(allowed_origins)

    @property
    def authenticates(self) -> bool:
        """Whether clients are authenticated."""
        return self._authenticator is not None

    async def accept(
        self,
        websocket: WebSocket,
        principal: Principal | None,
        on_identified: Callable[[Principal | None], None] = lambda _: None,
    ) -> tuple[Codec, Principal | None]:
        """Check and accept a handshake. If the application has already accepted it, only check it.

        Args:
            websocket: The WebSocket.
            principal: Identity of the client, if the application has established it.
            on_identified: Called before the accept. It may refuse the client.

        Returns:
            The codec, and the principal. It is None if clients are not authenticated, or if it follows in the first
            message.

        Raises:
            OriginNotAllowed: The page has another origin.
            InvalidMessage: None of the offered subprotocols is known.
            AuthenticationFailed: The authenticator refused the client, or its principal has expired.
        """
        origin, host = websocket.headers.get("origin"), websocket.headers.get("host")
        if not self._origins.allow(origin, host):
            raise refuse_origin(websocket, origin or "", host or "")
        handshake = read_handshake(websocket, self._secret_prefixes)
        subprotocol, codec, accepts = None, self._default, websocket.application_state is WebSocketState.CONNECTING
        if accepts:
            subprotocol, codec = self._choose(websocket, handshake)
        principal = _current(websocket, principal or await self._authenticate(websocket, handshake))
        on_identified(principal)
        if accepts:
            await websocket.accept(subprotocol=subprotocol)
        return codec, principal

    def _choose(self, websocket: WebSocket, handshake: Handshake) -> tuple[str | None, Codec]:
        if not websocket.scope.get("subprotocols"):
            return None, self._default
        for offered in handshake.subprotocols:
            if offered in self._codecs:
                return offered, self._codecs[offered]
        supported = ", ".join(sorted(self._codecs))
        if not handshake.subprotocols:
            text = f"a subprotocol with a secret needs a codec subprotocol next to it; supported: {supported}"
        else:
            text = f"none of the offered subprotocols is known; supported: {supported}"
        raise refuse_malformed(websocket, text, fix="offer one of the supported subprotocols")

    async def _authenticate(self, websocket: WebSocket, handshake: Handshake) -> Principal | None:
        if self._authenticator is None:
            return None
        try:
            return await self._authenticator.authenticate(handshake)
        except AuthenticationFailed as error:
            if self._hello and handshake.token is None and not handshake.secrets:
                return None
            raise refuse_authentication(websocket, error.message, fix=error.fix) from error


def _current(websocket: WebSocket, principal: Principal | None) -> Principal | None:
    """Return the principal, unless it has expired."""
    if principal is not None and is_expired(principal):
        raise refuse_authentication(websocket, "the credentials have expired", fix="sign in again")
    return principal


def check_given_id(websocket: WebSocket, conn_id: str) -> None:
    """Refuse a client whose connection id, perhaps a part of its URL, is not valid.

    Raises:
        InvalidMessage: The id is empty or too long. FastAPI answers the client.
    """
    try:
        check_conn_id(conn_id)
    except InvalidMessage as error:
        raise refuse_malformed(websocket, error.message, fix=error.fix) from error


def new_id(websocket: WebSocket, principal: Principal | None) -> str:
    """Return the id of a connection: that of its principal, or an unguessable one.

    Raises:
        InvalidMessage: The principal's id cannot be a connection id.
    """
    if principal is None:
        return secrets.token_urlsafe(16)
    try:
        return check_conn_id(principal.id)
    except InvalidMessage as error:
        text = "the id of the principal cannot be a connection id"
        raise refuse_malformed(websocket, text, fix="pass another to connect(websocket, conn_id)") from error
