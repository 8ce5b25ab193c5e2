"""Principals and the contract of an authenticator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from dws_core._wire.message import JSON

Action: TypeAlias = Literal["subscribe", "send", "broadcast", "send_by_conn_id", "history", "presence"]
"""A client's request, named by the `type` of its message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The authenticated user behind a connection.

    Attributes:
        id: Stable id of the user, the same on all devices.
        claims: Further facts about the user, for example the claims of a JWT.
        scopes: Scopes that the token grants (RFC 6749 §3.3).
        expires_at: Time when the token expires, in seconds since the Unix epoch. If None, it does not expire.
    """

    id: str
    claims: Mapping[str, JSON] = field(default_factory=dict)
    scopes: frozenset[str] = frozenset()
    expires_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """A client's opening handshake (RFC 6455 §4.1).

    Attributes:
        path: Path of the request.
        headers: Header fields, with names in lower case.
        query: Query parameters. Of a repeated parameter, the last value.
        cookies: Cookies by name.
        subprotocols: Subprotocols offered in `Sec-WebSocket-Protocol`, without the entries that carry
            secrets.
        token: Bearer token of the `Authorization` header (RFC 6750 §2.1) or of the `dws.bearer.` subprotocol, or None.
            Never shown by `repr`.
        secrets: Secrets of the subprotocol entries that the authenticator claims, by prefix. See `Authenticator`. Never
            shown by `repr`.
    """

    path: str
    headers: Mapping[str, str] = field(repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    subprotocols: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


@runtime_checkable
class Authenticator(Protocol):
    """Turns a handshake into a principal.

    An authenticator may also have an attribute `secret_subprotocols`, a tuple of prefixes such as `("acme.key.",)`. A
    browser cannot set headers, but it can offer the subprotocol `acme.key.<secret>` next to that of a codec. The node
    then passes the text after the prefix in `Handshake.secrets`, never selects the entry as the subprotocol, and never
    shows it. A prefix must not begin with `dws.`.
    """

    async def authenticate(self, handshake: Handshake) -> Principal:
        """Return the principal of a handshake. Called once for each connection, before it is accepted.

        Close every resource that you open, such as a database session, before you return. The connection may stay open
        for hours.

        Raises:
            AuthenticationFailed: The credentials are missing, malformed, wrong or expired. The client may see the text
                as the reason of the refusal, so never put the secret into it.
            TimeoutError: The credentials cannot be verified now. The client may try again.
        """
        ...


@runtime_checkable
class TokenAuthenticator(Authenticator, Protocol):
    """An authenticator that can also verify a token without a handshake. This method is optional.

    With it, a client can replace its token on an open connection (`refresh`), and send its token in its first message.
    """

    async def authenticate_token(self, token: str) -> Principal:
        """Return the principal of a token that a client has sent in a message.

        Called for each `refresh`, and for each first message with a token. The token is text of at least one character,
        at most as long as a message may be (`Limits.message_bytes`). Otherwise as `authenticate`.

        Raises:
            AuthenticationFailed: The token is malformed, wrong or expired. The client may see the text.
            TimeoutError: The token cannot be verified now. The client may try again.
        """
        ...


TokenVerifier: TypeAlias = Callable[[str], Principal | Awaitable[Principal | None] | None]
"""Returns the principal of a token, or None if the token is not valid. Sync or async."""

AuthenticatorFactory: TypeAlias = Callable[..., Authenticator]
"""Builds an authenticator. Called with one keyword argument, `verify`: a `TokenVerifier` or None.

If `verify_token` of the `AuthenticatorSpec` is `unused`, it is called without arguments.
"""

Authorize: TypeAlias = Callable[[Principal | None, Action, str], bool | Awaitable[bool]]
"""Returns whether a principal may perform an action on a topic or filter (for `send_by_conn_id`, a connection id)."""
