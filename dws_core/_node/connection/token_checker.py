"""Verifies tokens that clients send in messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from dws_core._auth.interface import Authenticator, Principal, TokenAuthenticator
from dws_core._errors import AuthenticationFailed, InvalidMessage
from dws_core._wire.client_errors import Refused
from dws_core._wire.message import JSON


class TokenChecker:
    """Verifies tokens that clients send in messages.

    Args:
        authenticator: The authenticator of the node. If None, or if it has no `authenticate_token`, tokens are refused.
        timeout_s: Timeout in seconds for the authenticator.
    """

    def __init__(self, authenticator: Authenticator | None, timeout_s: float) -> None:
        self._authenticator = authenticator if isinstance(authenticator, TokenAuthenticator) else None
        self._timeout_s = timeout_s

    @property
    def is_possible(self) -> bool:
        """Whether tokens can be verified."""
        return self._authenticator is not None

    async def check(self, data: JSON) -> Principal:
        """Return the principal of the member `token` of a message's data.

        Raises:
            InvalidMessage: There is no token.
            Refused: The token is not valid, or cannot be verified.
        """
        token = data.get("token") if isinstance(data, Mapping) else None
        if not isinstance(token, str) or not token:
            raise InvalidMessage("the data has no member 'token' with a text.", fix='send {"token": "…"} as the data')
        if self._authenticator is None:
            raise Refused("forbidden", "the authenticator of this node cannot verify tokens on an open connection")
        try:
            async with asyncio.timeout(self._timeout_s):
                principal = await self._authenticator.authenticate_token(token)
        except AuthenticationFailed as error:
            raise Refused("unauthenticated", error.message) from error
        except TimeoutError as error:
            raise Refused("unavailable", "the token was not verified in time", temporary=True) from error
        if is_expired(principal):
            raise Refused("unauthenticated", "the token has expired")
        return principal


def is_expired(principal: Principal) -> bool:
    """Return whether a principal has expired, by the clock of the system."""
    return principal.expires_at is not None and not principal.expires_at > time.time()
