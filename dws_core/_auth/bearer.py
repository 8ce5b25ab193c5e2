"""Bearer tokens (RFC 6750) on WebSocket handshakes."""

# Annotations are objects here, not text: FastAPI before 0.123.7 looks up those of a dependency with `__call__` in no module.

import inspect

from fastapi import WebSocket
from fastapi.security import OAuth2PasswordBearer
from starlette.requests import HTTPConnection

from dws_core._auth.interface import Handshake, Principal, TokenVerifier
from dws_core._auth.refusal import refuse_authentication
from dws_core._auth.tokens import bearer_from_header, split_bearer
from dws_core._errors import AuthenticationFailed, ConfigurationError


def read_handshake(websocket: WebSocket) -> Handshake:
    """Read what a client sent to open its socket."""
    token, others = split_bearer(websocket.scope.get("subprotocols", ()))
    return Handshake(
        path=websocket.url.path,
        headers=dict(websocket.headers),
        query=dict(websocket.query_params),
        cookies=dict(websocket.cookies),
        subprotocols=others,
        token=bearer_from_header(websocket.headers.get("authorization")) or token,
    )


class WebSocketOAuth2PasswordBearer(OAuth2PasswordBearer):
    """FastAPI's `OAuth2PasswordBearer` for WebSocket endpoints: a dependency that returns the token.

    The token is looked for in the `Authorization` header, in a `dws.bearer.<base64url>` subprotocol (for browsers),
    then, only if asked for, in a cookie and a query parameter. It is not verified: that is the application's.

    Args:
        token_url: Where clients get a token; shown in OpenAPI.
        scheme_name: Name of the scheme in OpenAPI; None: the class name.
        scopes: Scopes and their descriptions (RFC 6749 §3.3).
        description: Text for OpenAPI.
        auto_error: True: refuse the handshake if there is no token. False: return None.
        cookie: Name of a cookie that may hold the token; None: cookies are not read. Cookies are sent by any page:
            keep the manager's origin check on.
        query: Name of a query parameter that may hold the token; None: the query is not read. URLs end up in logs.
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
            AuthenticationFailed: There is none and `auto_error` is on. Before accept the handshake is refused with HTTP
                401; after it the socket is closed with 1008.
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
    """The built-in authenticator `oauth2-bearer`: the handshake's bearer token, verified by the application.

    Args:
        verify: Turns a token into a `Principal`, or None if it is not valid; sync or async.
    """

    def __init__(self, *, verify: TokenVerifier | None) -> None:
        if verify is None:
            raise ConfigurationError(
                "authenticator 'oauth2-bearer' has nothing to verify tokens with.",
                fix="pass WebSocketManager(..., verify_token=your_function)",
            )
        self._verify = verify

    async def authenticate(self, handshake: Handshake) -> Principal:
        """Return the principal of the handshake's token.

        Raises:
            AuthenticationFailed: No token, or one that is not valid.
        """
        if handshake.token is None:
            raise AuthenticationFailed("no bearer token in the handshake")
        principal = self._verify(handshake.token)
        if inspect.isawaitable(principal):
            principal = await principal
        if principal is None:
            raise AuthenticationFailed("the bearer token is not valid")
        return principal
