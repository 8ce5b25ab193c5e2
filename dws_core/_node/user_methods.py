"""The methods of the manager that concern users: their messages, and their connections on all nodes."""

from __future__ import annotations

from collections.abc import Collection

from dws_core._node.pending_publish import PendingPublish, acts_as_coroutine
from dws_core._node.publish_methods import PublishMethods
from dws_core._wire.close_codes import CloseCode
from dws_core._wire.commands import Command, Disconnect, Unsubscribe, command_data
from dws_core._wire.message import JSON
from dws_core._wire.node_topics import COMMANDS, check_user_id, user_topic


class UserMethods(PublishMethods):
    """The methods of `WebSocketManager` for users. A user is the id of a `Principal`, and may have many connections.

    They may be called wherever `publish` may be called.
    """

    @acts_as_coroutine
    def send_to_user(self, user: str | Collection[str], data: JSON, *, key: str | None = None) -> PendingPublish:
        """Send data to every connection of a user, on whichever nodes they are.

        Publishes immediately. Awaiting is optional, see `publish`. The messages are kept like those of a topic, so a
        connection that resumes receives the ones it missed. A user without a connection is no error.

        Args:
            user: Id of a principal, or several.
            data: Any JSON value.
            key: Idempotency key, see `publish`.

        Raises:
            InvalidMessage: An id is empty, or has more than 256 bytes.
        """
        users = [user] if isinstance(user, str) else list(dict.fromkeys(user))
        topics = [user_topic(check_user_id(one)) for one in users]
        return self._publish(topics, f"{len(users)} users", data, key=key)

    @acts_as_coroutine
    def disconnect(
        self,
        *,
        user: str | None = None,
        conn_id: str | None = None,
        code: int = CloseCode.DISCONNECTED,
        reason: str | None = None,
    ) -> PendingPublish:
        """Close the connections of a user, or those with a connection id, on all nodes.

        Awaiting is optional, see `publish`. Awaited, it returns when the broker has stored the command. Each node carries
        it out when it receives it. A node that is cut off from the broker does so when it has caught up. Revoke the token
        first, because the client may connect again.

        Args:
            user: Id of a principal. Pass either this or `conn_id`.
            conn_id: Connection id.
            code: Close code. Clients do not reconnect after 4500 to 4999.
            reason: Reason of the close frame. If None, the standard text of the code.

        Raises:
            ConfigurationError: Both or neither of `user` and `conn_id` are given, or the code may not be sent.
        """
        return self._command(Disconnect(user=user, conn_id=conn_id, code=code, reason=reason))

    @acts_as_coroutine
    def unsubscribe(self, *, user: str, topic: str) -> PendingPublish:
        """Remove a filter from every connection of a user, on all nodes. The clients receive `unsubscribed`.

        Other filters that match the same topics stay. Change what `authorize` allows first, because the client may
        subscribe again. Everything else is as in `disconnect`.

        Args:
            user: Id of a principal.
            topic: The filter, as the client has sent it.

        Raises:
            InvalidFilter: The topic is not a filter.
        """
        return self._command(Unsubscribe(user=user, topic=self._matcher.check_filter(topic)))

    def _command(self, command: Command) -> PendingPublish:
        return self._publish((COMMANDS,), COMMANDS, command_data(command), key=None)
