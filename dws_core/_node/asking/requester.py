"""The requests of this node that wait for replies."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from dws_core._errors import BrokerClosed, BrokerOverloaded, NoReply
from dws_core._log.records import Receipt, Record
from dws_core._node.publisher import Publisher
from dws_core._wire.codecs import Codec
from dws_core._wire.envelope import attributes_of, open_envelope
from dws_core._wire.message import JSON
from dws_core._wire.node_topics import node_topic

MAX_TIMEOUT_S: Final = 3_600.0
"""Maximum time for which a request may wait, in seconds."""

_MAX_PENDING: Final = 10_000
"""Maximum number of requests of one node that wait at the same time."""

_MAX_REPLIES: Final = 1_000
"""Maximum number of replies of one request."""


@dataclass(slots=True, eq=False)
class _Pending:
    first: bool
    done: asyncio.Future[None]
    replies: list[JSON] = field(default_factory=list)

    def on_reply(self, data: JSON) -> None:
        if self.done.done():
            return
        self.replies.append(data)
        if self.first or len(self.replies) >= _MAX_REPLIES:
            self.done.set_result(None)

    def on_sent(self, sent: asyncio.Future[Receipt]) -> None:
        if not sent.cancelled() and (error := sent.exception()) is not None:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Requester:
    """Sends requests to connections on any node, and collects the replies.

    Requests and replies are records without history. A request names the topic of the node that waits for the replies.

    Args:
        publisher: Publishes the requests.
        codecs: The node's codecs by name.

    Attributes:
        topic: Topic of the replies to this node.
    """

    def __init__(self, publisher: Publisher, codecs: Mapping[str, Codec]) -> None:
        self._node = secrets.token_hex(8)
        self.topic: str = node_topic(self._node)
        self._publisher = publisher
        self._codecs = codecs
        self._pending: dict[str, _Pending] = {}

    async def request(self, topic: str, data: JSON, *, target: str, first: bool, timeout_s: float) -> list[JSON]:
        """Send a request and wait for the replies.

        Args:
            topic: Topic of the request, which selects its receivers.
            data: Any JSON value.
            target: Receivers of the request, in words, for errors.
            first: Whether to wait for one reply only. If False, wait until the time is over.
            timeout_s: Timeout in seconds.

        Returns:
            The data of the replies. If `first` is set, of one.

        Raises:
            NoReply: `first` is set, and there was no reply in time.
            BrokerOverloaded: Too many requests wait already.
            BrokerError: The request could not be sent, or the node is stopped.
            CodecError: One of the node's codecs cannot encode the data.
        """
        if len(self._pending) >= _MAX_PENDING:
            raise BrokerOverloaded(
                f"{_MAX_PENDING:,} requests of this node wait for replies.", fix="send fewer at once, or wait less long"
            )
        number, pending = secrets.token_urlsafe(12), _Pending(first, asyncio.get_running_loop().create_future())
        attributes = {"request": number, "node": self._node, "timeout_s": f"{timeout_s:g}"}
        self._pending[number] = pending
        try:
            self._publisher.publish_unstored(topic, data, attributes).add_done_callback(pending.on_sent)
            async with asyncio.timeout(timeout_s):
                await pending.done
        except TimeoutError:
            if first:
                raise NoReply(target, timeout_s) from None
        finally:
            del self._pending[number]
        return pending.replies

    def on_reply(self, record: Record) -> None:
        """Pass a reply to its request. A reply that nobody waits for is ignored."""
        pending = self._pending.get(attributes_of(record.payload).get("reply", ""))
        if pending is not None:
            codec, encoded = open_envelope(record.payload)
            pending.on_reply(self._codecs[codec].decode(encoded))

    def stop(self) -> None:
        """Fail all requests, because the node stops."""
        for pending in self._pending.values():
            pending.fail(BrokerClosed("the node was stopped.", fix="send requests while the application runs"))
