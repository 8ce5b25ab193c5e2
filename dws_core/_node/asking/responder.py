"""The requests that were delivered to connections of this node, and are not answered yet."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from weakref import WeakSet

from dws_core._errors import PublishOutcomeUnknown
from dws_core._log.records import Receipt, Record
from dws_core._node.asking.requester import MAX_TIMEOUT_S
from dws_core._node.connection.connection import Connection
from dws_core._node.connection.registry import ConnectionRegistry
from dws_core._node.publisher import Publisher
from dws_core._node.sending.fanout import Fanout
from dws_core._node.sending.shared_message import SharedRequest
from dws_core._wire.client_errors import Refused
from dws_core._wire.codecs import Codec
from dws_core._wire.envelope import attributes_of
from dws_core._wire.message import JSON
from dws_core._wire.node_topics import node_topic, requested_conn_id, requested_user

_MAX_OPEN: Final = 10_000
"""Maximum number of requests that wait for replies of this node's clients. One more forgets the oldest."""


@dataclass(slots=True, eq=False)
class _Open:
    """A request that was delivered.

    Attributes:
        topic: Topic of the replies.
        waiting: The connections that have not replied.
        expiry: Timer that forgets the request.
    """

    topic: str
    waiting: WeakSet[Connection]
    expiry: asyncio.TimerHandle


class Responder:
    """Delivers requests to connections, and passes their replies to the node that waits for them.

    Each connection may reply once, and only to requests that it has received.

    Args:
        connections: The open connections of the node.
        fanout: Sends the requests.
        publisher: Publishes the replies.
        codecs: The node's codecs by name.
    """

    def __init__(
        self,
        connections: ConnectionRegistry,
        fanout: Fanout,
        publisher: Publisher,
        codecs: Mapping[str, Codec],
    ) -> None:
        self._connections = connections
        self._fanout = fanout
        self._publisher = publisher
        self._codecs = codecs
        self._open: dict[str, _Open] = {}

    def on_request(self, record: Record) -> None:
        """Deliver a request to the connections that it is for. A repeated record is delivered once."""
        attributes = attributes_of(record.payload)
        number, node, timeout_s = attributes["request"], attributes["node"], float(attributes["timeout_s"])
        receivers = self._receivers(record.topic)
        if not receivers or number in self._open or not 0 < timeout_s <= MAX_TIMEOUT_S:
            return
        if len(self._open) >= _MAX_OPEN:
            self._forget(next(iter(self._open)))
        expiry = asyncio.get_running_loop().call_later(timeout_s, self._forget, number)
        self._open[number] = _Open(node_topic(node), WeakSet(receivers), expiry)
        self._fanout.push(receivers, SharedRequest(record, number, timeout_s, self._codecs))

    def awaits(self, connection: Connection, to: JSON) -> bool:
        """Return whether a connection has received the request `to` and has not replied to it."""
        found = self._open.get(to) if isinstance(to, str) else None
        return found is not None and connection in found.waiting

    def reply(self, connection: Connection, to: str, data: JSON) -> asyncio.Future[Receipt]:
        """Publish the reply of a connection. If that certainly fails, the connection may reply again.

        Raises:
            Refused: The connection has received no such request, or has replied to it, or the time is over.
            CodecError: One of the node's codecs cannot encode the data.
        """
        if not self.awaits(connection, to):
            raise Refused("unknown-request", "no such request waits for a reply of this connection")
        request = self._open[to]
        sent = self._publisher.publish_unstored(request.topic, data, {"reply": to})
        request.waiting.discard(connection)
        sent.add_done_callback(partial(_on_sent, request, connection))
        return sent

    def stop(self) -> None:
        """Forget all requests, because the node stops."""
        while self._open:
            self._forget(next(iter(self._open)))

    def _forget(self, number: str) -> None:
        self._open.pop(number).expiry.cancel()

    def _receivers(self, topic: str) -> Sequence[Connection]:
        if (conn_id := requested_conn_id(topic)) is not None:
            return self._connections.by_id(conn_id)
        user = requested_user(topic)
        return () if user is None else self._connections.by_user(user)


def _on_sent(request: _Open, connection: Connection, sent: asyncio.Future[Receipt]) -> None:
    failed = not sent.cancelled() and sent.exception() is not None
    if failed and not isinstance(sent.exception(), PublishOutcomeUnknown):
        request.waiting.add(connection)
