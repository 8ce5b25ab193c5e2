"""The request `refresh`: a new token for an open connection."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from dws_core._node.connection.connection import Connection
from dws_core._node.connection.lifetimes import Lifetimes
from dws_core._node.connection.token_checker import TokenChecker
from dws_core._node.recovery.attachments import Attachments
from dws_core._node.requests.permission import Permission
from dws_core._node.sending.fanout import Fanout
from dws_core._wire import server_messages
from dws_core._wire.client_errors import Refused
from dws_core._wire.close_codes import CloseCode
from dws_core._wire.message import Message

_MESSAGES_PER_REFRESH: Final = 10
"""Number of messages as which a refresh counts against the rate, in addition to itself."""


class Removal:
    """Removes filters of a connection without a request of its client, and notifies the client.

    Args:
        attachments: The recovering connections.
        fanout: Sends the notifications.
    """

    def __init__(self, attachments: Attachments, fanout: Fanout) -> None:
        self._attachments = attachments
        self._fanout = fanout

    def remove(self, connection: Connection, filters: Collection[str], reason: str) -> None:
        """Remove filters. A connection whose replay may contain their messages is closed with 4001 instead."""
        if filters and connection in self._attachments:
            connection.disconnect(CloseCode.DRAINED, "subscriptions were removed during a replay")
            return
        for filter_ in filters:
            connection.topics.discard(filter_)
            self._fanout.send(connection, server_messages.unsubscribed(filter_, reason))


class Refresh:
    """Replaces the principal of a connection, with the same user, and authorizes its filters again."""

    def __init__(
        self,
        tokens: TokenChecker,
        *,
        permission: Permission,
        lifetimes: Lifetimes,
        removal: Removal,
        fanout: Fanout,
    ) -> None:
        self._tokens = tokens
        self._permission = permission
        self._lifetimes = lifetimes
        self._removal = removal
        self._fanout = fanout

    async def refresh(self, connection: Connection, message: Message) -> None:
        """Verify the new token, remove the filters that it does not allow, and reply with `ack`.

        After an error, the connection keeps its principal.

        Raises:
            InvalidMessage: There is no token.
            Refused: The token is not valid, or belongs to another user, or the connection has no user.
        """
        old = connection.principal
        if old is None:
            raise Refused("forbidden", "this connection is not authenticated, so there is nothing to refresh")
        connection._count(_MESSAGES_PER_REFRESH)
        principal = await self._tokens.check(message.data)
        if principal.id != old.id:
            raise Refused("forbidden", "the token belongs to another user")
        forbidden = await self._permission.forbidden(principal, "subscribe", tuple(connection.topics))
        if connection.closed:
            return
        connection.principal = principal
        self._lifetimes.renew(connection)
        self._removal.remove(connection, forbidden, "forbidden")
        if message.id is not None:
            ack = server_messages.ack(message.id, expires_in_s=self._lifetimes.left_s(connection))
            self._fanout.send(connection, ack)
