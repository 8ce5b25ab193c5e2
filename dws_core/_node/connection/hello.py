"""Clients that send their token in the first message, because they can set neither a header nor a subprotocol."""

from __future__ import annotations

import asyncio

from dws_core._auth.interface import Principal
from dws_core._auth.refusal import refuse_authentication
from dws_core._errors import ConfigurationError, ConnectionClosed, InvalidMessage
from dws_core._limits.limits import Limits
from dws_core._node.connection.connection import Connection
from dws_core._node.connection.token_checker import TokenChecker
from dws_core._wire.client_errors import Refused
from dws_core._wire.message import JSON, Message


class Hello:
    """Waits for the first message of an accepted connection, and verifies its token.

    The connection is not registered in the meantime, so it receives nothing.

    Args:
        tokens: Verifies the token.
        timeout_s: Time for the message with the token, in seconds.
    """

    def __init__(self, tokens: TokenChecker, timeout_s: float) -> None:
        self._tokens = tokens
        self._timeout_s = timeout_s

    async def wait(self, connection: Connection) -> tuple[Principal, JSON]:
        """Return the principal of the token, and the message `connect`, which the handler receives next.

        Raises:
            AuthenticationFailed: No valid token arrived in time.
            ConnectionClosed: The client has disconnected. The handler may run, with the closed connection.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                while True:
                    data = await connection._read()
                    if (principal := await self._identify(connection, data)) is not None:
                        return principal, data
        except ConnectionClosed:
            connection._serve_closed()
            raise
        except TimeoutError as error:
            text = f"no message with a token arrived within {self._timeout_s:g} s"
            raise refuse_authentication(connection.websocket, text, reason="hello") from error

    async def _identify(self, connection: Connection, data: JSON) -> Principal | None:
        """Return the principal of a message, or None if it was answered with an error that allows another attempt."""
        request_id = None
        try:
            message = Message.from_client_message(data=data, untyped="refuse")
            request_id = message.id
            if message.type == "connect":
                return await self._tokens.check(message.data)
            connection._refuse(Refused("unauthenticated", "send connect with a token first"), request_id=request_id)
        except InvalidMessage as error:
            connection._refuse(error, request_id=request_id)
        except Refused as error:
            connection._refuse(error, request_id=request_id)
            if not error.temporary:
                await connection._flushed()
                raise refuse_authentication(connection.websocket, error.message, reason="hello") from error
        return None


def make_hello(tokens: TokenChecker, limits: Limits) -> Hello:
    """Return the object that waits for first messages.

    Raises:
        ConfigurationError: Tokens in messages cannot be verified.
    """
    if not tokens.is_possible:
        raise ConfigurationError(
            "hello=True needs an authenticator that verifies tokens without a handshake.",
            fix="pass verify_token, or an authenticator with a method authenticate_token",
        )
    return Hello(tokens, limits.hello_timeout_s)
