"""Bearer tokens (RFC 6750) on WebSocket handshakes."""

# No `from __future__ import annotations` here: FastAPI before 0.123.7 cannot resolve the string annotations of a
# dependency that is an object with `__call__`.

import inspect
from collections.abc import Collection

from fastapi import WebSocket
from fastapi.security import OAuth2PasswordBearer
from starlette.requests import HTTPConnection

from dws_core._auth.interface import Handshake, Principal, TokenVerifier
from dws_core._auth.refusal import refuse_authentication
from dws_core._auth.tokens import bearer_from_header, split_bearer, split_secrets
from dws_core._errors import AuthenticationFailed, ConfigurationError


def read_handshake(websocket: WebSocket, secret_prefixes: Collection[str] = ()) -> Handshake:
    """Collect the parts of a client's opening handshake.

    Args:
        websocket: The WebSocket of the client.
        secret_prefixes: Prefixes of subprotocol entries that carry secrets of the authenticator.
    """
    token, others = split_bearer(websocket.scope.get("subprotocols", ()))
    secrets, others = split_secrets(others, secret_prefixes)
    return Handshake(
        path=websocket.url.path,
        headers=dict(websocket.headers),
        query=dict(websocket.query_params),
        cookies=dict(websocket.cookies),
        subprotocols=others,
        secrets=secrets,
        token=bearer_from_header(websocket.headers.get("authorization")) or token,
    )


class WebSocketOAuth2PasswordBearer(OAuth2PasswordBearer):
    """FastAPI's `OAuth2PasswordBearer` for WebSocket endpoints: a dependency that returns the token.

    The token is read from the `Authorization` header, or from a `dws.bearer.<base64url>` subprotocol (for browsers),
    or, only if you name them, from a cookie or a query parameter. The token is not verified. Your application does
    that.

    Args:
        token_url: URL at which clients get a token, shown in OpenAPI.
        scheme_name: Name of the scheme in OpenAPI. If None, the name of the class.
        scopes: Scopes and their descriptions (RFC 6749 §3.3).
        description: Description of the scheme in OpenAPI.
        auto_error: Whether to refuse a handshake without a token. If False, the dependency returns None.
        cookie: Name of a cookie that may hold the token. If None, cookies are not read. Browsers send cookies from
            pages of any site, so keep the manager's origin check on.
        query: Name of a query parameter that may hold the token. If None, the query is not read. URLs often appear in
            logs.
    """

    def __init__(
        self,
        token_url: str,
        scheme_name: str | None = None,
        scopes: dict[str, str] | None = None,
        description: str | None = None,
        auto_error: bool = True,
        *,
        cookie: str | None = None,
        query: str | None = None,
    ) -> None:
        super().__init__(
            tokenUrl=token_url, scheme_name=scheme_name, scopes=scopes, description=description, auto_error=auto_error
        )
        self._cookie = cookie
        self._query = query

    async def __call__(self, websocket: WebSocket) -> str | None:  # type: ignore[override]  # a socket, not a request
        """Return the token, without the word `Bearer`.

        Raises:
            AuthenticationFailed: The handshake has no token and `auto_error` is on. Before accept, the handshake is
                refused with HTTP 401. After accept, the connection is closed with 1008.
        """
        token = read_handshake(websocket).token or self._from_elsewhere(websocket)
        if token is None and self.auto_error:
            raise refuse_authentication(
                websocket,
                "no bearer token in the handshake",
                fix="send an Authorization header, or offer the subprotocol dws.bearer.<base64url of the token>",
            )
        return token

    def _from_elsewhere(self, connection: HTTPConnection) -> str | None:
        token = connection.cookies.get(self._cookie) if self._cookie else None
        if not token and self._query:
            token = connection.query_params.get(self._query)
        return token or None


class BearerAuthenticator:
    """The built-in authenticator `oauth2-bearer`: the application verifies the handshake's bearer token.

    Args:
        verify: Function that returns the `Principal` of a token, or None if the token is not valid. Sync or async.

    Raises:
        ConfigurationError: There is no function to verify tokens.
    """

    def __init__(self, *, verify: TokenVerifier | None) -> None:
        if not callable(verify):
            raise ConfigurationError(
                "authenticator 'oauth2-bearer' has no function to verify tokens.",
                fix="pass WebSocketManager(..., verify_token=your_function)",
            )
        self._verify = verify

    async def authenticate(self, handshake: Handshake) -> Principal:
        """Return the principal of the handshake's token.

        Raises:
            AuthenticationFailed: The handshake has no token, or the token is not valid.
        """
        if handshake.token is None:
            raise AuthenticationFailed("no bearer token in the handshake")
        return await self.authenticate_token(handshake.token)

    async def authenticate_token(self, token: str) -> Principal:
        """Return the principal of a token.

        Raises:
            AuthenticationFailed: The token is not valid.
        """
        principal = self._verify(token)
        if inspect.isawaitable(principal):
            principal = await principal
        if principal is None:
            raise AuthenticationFailed("the bearer token is not valid")
        return principal
