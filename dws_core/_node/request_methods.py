"""The method of a manager that sends a request to a client and waits for its reply."""

from __future__ import annotations

import asyncio
from typing import Literal

from dws_core._errors import ConfigurationError
from dws_core._node.asking.requester import MAX_TIMEOUT_S
from dws_core._node.not_started import not_started
from dws_core._node.publisher import Publisher
from dws_core._node.runtime import NodeRuntime
from dws_core._wire.message import JSON
from dws_core._wire.node_topics import check_conn_id, conn_request_topic, user_request_topic


class RequestMethods:
    """`request` of `WebSocketManager`."""

    _publisher: Publisher
    _runtime: NodeRuntime

    async def request(
        self,
        conn_id: str | None = None,
        data: JSON = None,
        *,
        user: str | None = None,
        replies: Literal["first", "all"] = "first",
        timeout_s: float = 5.0,
    ) -> JSON:
        """Send a request to a client, on whichever node it is connected, and return its reply.

        A request is sent at most once, and is not repeated after a reconnect. It does not wait for a client that is not
        connected. A client replies with a message of the type `reply`, which the node takes before the handler sees it.

        Args:
            conn_id: Connection id. All connections with this id receive the request.
            data: Any JSON value.
            user: Id of a `Principal`, instead of a connection id. All connections of this user receive the request.
            replies: `first` returns as soon as one client has replied, and ignores the replies of the others. `all` waits
                for the whole time, because nobody counts the connections of all nodes.
            timeout_s: Timeout in seconds, at most 3,600.

        Returns:
            The data of the first reply. With `replies="all"`, a list with the data of each reply, at most 1,000. It may be
            empty.

        Raises:
            NoReply: There was no reply in time. It is a `TimeoutError`. Not raised with `replies="all"`.
            ConfigurationError: An argument is invalid.
            InvalidMessage: The connection id or user id is not valid text of 1 to 256 bytes.
            CodecError: One of the node's codecs cannot encode the data.
            BrokerError: The request could not be sent: `BrokerUnavailable`, `BrokerOverloaded` (also if 10,000 requests of
                this node wait), `PayloadTooLarge`, `PublishOutcomeUnknown`, `BrokerClosed` (also if the node stops).
        """
        if replies not in ("first", "all"):
            raise ConfigurationError(f"request(replies={replies!r}) is unknown.", fix="use 'first' or 'all'")
        if not 0 < timeout_s <= MAX_TIMEOUT_S:
            raise ConfigurationError(
                f"request(timeout_s={timeout_s!r}) must be positive and at most {MAX_TIMEOUT_S:,.0f} seconds.",
                fix="give the number of seconds to wait for the reply",
            )
        topic, target = _address(conn_id, user)
        if (loop := self._publisher.loop) is None:
            raise not_started()
        first = replies == "first"
        asking = self._runtime.requester.request(topic, data, target=target, first=first, timeout_s=timeout_s)
        if loop is not asyncio.get_running_loop():
            found = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asking, loop))
        else:
            found = await asking
        return found[0] if first else found


def _address(conn_id: str | None, user: str | None) -> tuple[str, str]:
    """Return the topic of a request, and its receivers in words."""
    if conn_id is not None and user is None:
        return conn_request_topic(check_conn_id(conn_id)), f"connection {conn_id!r}"
    if user is not None and conn_id is None:
        return user_request_topic(check_conn_id(user)), f"user {user!r}"
    raise ConfigurationError(
        "request() needs either a connection id or a user.",
        fix='write request("conn-id", data) or request(user=…, data=…)',
    )
