"""Principals and the contract of an authenticator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from dws_core._wire.message import JSON

Action: TypeAlias = Literal["subscribe", "send", "broadcast", "send_by_conn_id", "history", "presence"]
"""What a client asks for; the message's `type`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who a client is.

    Attributes:
        id: Stable id of the user; the same on all devices.
        claims: What else is known, for example the claims of a JWT.
        scopes: What the token allows (RFC 6749 §3.3).
        expires_at: When the proof runs out, in seconds since the Unix epoch; None: never.
    """

    id: str
    claims: Mapping[str, JSON] = field(default_factory=dict)
    scopes: frozenset[str] = frozenset()
    expires_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """What a client sent to open its WebSocket (RFC 6455 §4.1).

    Attributes:
        path: Path of the request.
        headers: Header fields, names in lower case.
        query: Query parameters; the last of a repeated one.
        cookies: Cookies by name.
        subprotocols: What was offered in `Sec-WebSocket-Protocol`, the bearer entry left out.
        token: The bearer token of the `Authorization` header (RFC 6750 §2.1) or of the `dws.bearer.` subprotocol; None:
            there is none. Never shown by `repr`.
    """

    path: str
    headers: Mapping[str, str] = field(repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    subprotocols: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)


@runtime_checkable
class Authenticator(Protocol):
    """Turns a handshake into a principal."""

    async def authenticate(self, handshake: Handshake) -> Principal:
        """Say who the client is. Called once for each connection, before it is accepted.

        Whatever it opens (a database session, say) it closes before it returns: the socket may stay open for hours.

        Raises:
            AuthenticationFailed: Nothing, nonsense, or something out of date was shown. The text reaches the client's
                log at most as a reason; it never repeats the secret.
        """
        ...


TokenVerifier: TypeAlias = Callable[[str], Principal | Awaitable[Principal | None] | None]
"""Turns a token into a principal, or None if it is not valid; sync or async."""

AuthenticatorFactory: TypeAlias = Callable[..., Authenticator]
"""Builds an authenticator; called with the keyword `verify`: a `TokenVerifier` or None."""

Authorize: TypeAlias = Callable[[Principal | None, Action, str], bool | Awaitable[bool]]
"""Says whether a principal may do an action on a topic or filter (for `send_by_conn_id`: a connection id)."""
