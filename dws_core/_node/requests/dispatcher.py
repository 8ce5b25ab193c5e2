"""Client requests: connect, subscribe, unsubscribe, send, broadcast, send_by_conn_id, history, refresh, reply, ping."""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Final
from weakref import WeakKeyDictionary

from dws_core._errors import InvalidMessage
from dws_core._limits.limits import Limits
from dws_core._log.records import Receipt
from dws_core._node.asking.responder import Responder
from dws_core._node.connection.connection import Connection
from dws_core._node.connection.senders import Senders
from dws_core._node.pending_publish import failure_of
from dws_core._node.publisher import Publisher
from dws_core._node.requests.past import Past
from dws_core._node.requests.permission import Permission
from dws_core._node.requests.refresh import Refresh
from dws_core._node.requests.resume import Resume, over_limit
from dws_core._node.requests.send_order import Repeatable, SendOrder
from dws_core._node.sending.fanout import Fanout
from dws_core._topics.filters import is_reserved
from dws_core._topics.interface import TopicMatcher
from dws_core._wire import server_messages
from dws_core._wire.client_errors import INTERNAL, Refused, describe
from dws_core._wire.codecs import id_of
from dws_core._wire.connect_request import read_connect_request
from dws_core._wire.envelope import EXCLUDE, SENDER
from dws_core._wire.keys import scoped_key
from dws_core._wire.message import JSON, Message, Untyped
from dws_core._wire.node_topics import ALL, check_conn_id, conn_topic
from dws_core._wire.past_request import read_past_request
from dws_core._wire.server_messages import RequestId

logger = logging.getLogger("dws")


_YIELD_EVERY: Final = 128
"""Number of requests of one connection in a row after which the event loop continues with others.

A full inbox never suspends by itself. The requests of different connections are not interrupted, because messages of one
tick are written together.
"""

_AFTER_FAILURE: Final = "an earlier message was not stored. Repeat it first"


class Dispatcher:
    """Checks, authorizes and carries out client requests. A failure is answered. It never ends the connection."""

    def __init__(
        self,
        *,
        publisher: Publisher,
        matcher: TopicMatcher,
        limits: Limits,
        permission: Permission,
        untyped: Untyped,
        stamps_sender: bool,
        resume: Resume,
        refresh: Refresh,
        senders: Senders,
        responder: Responder,
        past: Past,
        fanout: Fanout,
    ) -> None:
        self._publisher = publisher
        self._matcher = matcher
        self._limits = limits
        self._permission = permission
        self._untyped = untyped
        self._stamps_sender = stamps_sender
        self._resume = resume
        self._refresh = refresh.refresh
        self._senders = senders
        self._responder = responder
        self._past = past
        self._fanout = fanout
        self._orders: WeakKeyDictionary[Connection, SendOrder] = WeakKeyDictionary()
        self._served = self._in_a_row = 0
        self._actions: dict[str, Callable[[Connection, Message], Awaitable[None]]] = {
            "connect": self._connect,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "send": self._send,
            "broadcast": self._broadcast,
            "send_by_conn_id": self._send_by_conn_id,
            "history": self._history,
            "refresh": self._refresh,
            "reply": self._reply,
            "ping": self._ping,
        }

    async def receive(self, connection: Connection, message: Message | JSON) -> None:
        """Carry out one request of a client. Let other clients continue after many requests."""
        request_id = None
        try:
            if not isinstance(message, Message):
                message = Message.from_client_message(data=message, untyped=self._untyped)
            request_id = message.id
            await self._action_of(message)(connection, message)
        except Exception as error:  # noqa: BLE001 -- any failure is answered, so that the connection continues
            self._answer_failure(connection, error, request_id)
        if self._served != (served := id(connection)):
            self._served, self._in_a_row = served, 0
        self._in_a_row += 1
        if self._in_a_row >= _YIELD_EVERY:
            self._in_a_row = 0
            await asyncio.sleep(0)

    def take_reply(self, connection: Connection, data: JSON) -> bool:
        """Carry out a reply to a request of the application. Return False for any other message.

        It does not pass through the inbox, because the connection's handler may be the one that waits for the reply.
        """
        if not (isinstance(data, dict) and data.get("type") == "reply" and "to" in data):
            return False
        if not self._responder.awaits(connection, data["to"]):
            return False
        try:
            self._answer_request(connection, Message.from_client_message(data=data))
        except Exception as error:  # noqa: BLE001 -- any failure is answered, so that the connection continues
            self._answer_failure(connection, error, id_of(data))
        return True

    def _action_of(self, message: Message) -> Callable[[Connection, Message], Awaitable[None]]:
        try:
            return self._actions[message.type]
        except KeyError:
            known = ", ".join(self._actions)
            raise Refused("unknown-type", f"unknown type {message.type[:64]!r}; known: {known}") from None

    async def _connect(self, connection: Connection, message: Message) -> None:
        request = read_connect_request(message.data)
        self._resume.check_first(connection)
        await self._resume.replay_ended(connection)
        await self._past.ended(connection)
        await self._check_filters(connection, request.filters)
        await self._resume.connect(connection, request, message.id)

    async def _subscribe(self, connection: Connection, message: Message) -> None:
        filter_ = _required(message.topic, "topic")
        request = read_past_request(message.data)
        await self._resume.replay_ended(connection)
        await self._check_filters(connection, (filter_,))
        if request is None:
            self._resume.subscribe(connection, filter_, message.id)
            return
        if request.last is not None:
            if not self._matcher.is_exact(filter_):
                raise InvalidMessage("'last' needs a topic without wildcards.", fix="subscribe to one topic")
            await self._permission.check(connection.principal, "history", (filter_,))
        await self._past.subscribe(connection, filter_, request, message.id)

    async def _check_filters(self, connection: Connection, filters: Collection[str]) -> None:
        if over_limit(self._limits.filters, connection.topics, filters):
            raise Refused("too-many-filters", f"a connection may have {self._limits.filters} filters")
        for filter_ in filters:
            _refuse_reserved(self._matcher.check_filter(filter_))
        await self._permission.check(connection.principal, "subscribe", filters)

    async def _history(self, connection: Connection, message: Message) -> None:
        topic = self._matcher.check_topic(_required(message.topic, "topic"))
        _refuse_reserved(topic)
        await self._permission.check(connection.principal, "history", (topic,))
        limit = message.data.get("limit") if isinstance(message.data, dict) else None
        await self._resume.history(connection, topic, limit, message.id)

    async def _unsubscribe(self, connection: Connection, message: Message) -> None:
        await self._resume.replay_ended(connection)
        connection.topics.discard(_required(message.topic, "topic"))
        self._acknowledge(connection, message.id)

    async def _send(self, connection: Connection, message: Message) -> None:
        topic = self._matcher.check_topic(_required(message.topic, "topic"))
        _refuse_reserved(topic)
        await self._permission.check(connection.principal, "send", (topic,))
        self._publish(connection, message, [topic])

    async def _broadcast(self, connection: Connection, message: Message) -> None:
        await self._permission.check(connection.principal, "broadcast", (ALL,))
        self._publish(connection, message, [ALL])

    async def _send_by_conn_id(self, connection: Connection, message: Message) -> None:
        if not message.conn_id:
            raise InvalidMessage("member 'conn_id' is missing.")
        conn_ids = [message.conn_id] if isinstance(message.conn_id, str) else list(dict.fromkeys(message.conn_id))
        limit = self._limits.recipients
        if limit is not None and len(conn_ids) > limit:
            raise Refused("too-many-recipients", f"a message may have {limit} recipients")
        connection._count(len(conn_ids) - 1)
        for conn_id in conn_ids:
            check_conn_id(conn_id)
        await self._permission.check(connection.principal, "send_by_conn_id", conn_ids)
        self._publish(connection, message, [conn_topic(conn_id) for conn_id in conn_ids])

    async def _reply(self, connection: Connection, message: Message) -> None:
        self._answer_request(connection, message)

    def _answer_request(self, connection: Connection, message: Message) -> None:
        sent = self._responder.reply(connection, _required(message.to, "to"), message.data)
        self._acknowledge_when_done(connection, message.id, "the reply", [sent])

    async def _ping(self, connection: Connection, message: Message) -> None:
        self._fanout.send(connection, server_messages.pong(message.id))

    def _publish(self, connection: Connection, message: Message, topics: list[str]) -> None:
        """Publish in order without waiting for the broker. The reply is sent when the broker has answered."""
        key = None if message.key is None else scoped_key(self._scope_of(connection), message.key)
        now, partitions = asyncio.get_running_loop().time(), self._publisher.partitions_of(topics)
        request, order = Repeatable(key, message.id), self._orders.get(connection)
        if order is None:
            order = self._orders[connection] = SendOrder()
        if (wait_s := order.refusal_s(partitions, request, now)) is not None:
            raise Refused("unavailable", _AFTER_FAILURE, temporary=True, retry_in_s=round(wait_s, 3))
        attributes = self._attributes_of(connection, message)
        futures = self._publisher.publish_to_each(
            topics, message.data, key=key, attributes=attributes, order=connection
        )
        for partition, future in zip(partitions, futures, strict=True):
            order.sent(partition, future)
            future.add_done_callback(partial(order.done, partition, request))
        self._acknowledge_when_done(connection, message.id, topics[0], futures)

    def _attributes_of(self, connection: Connection, message: Message) -> dict[str, str]:
        attributes = {} if message.echo else {EXCLUDE: self._senders.name(connection)}
        if self._stamps_sender:
            attributes[SENDER] = _sender_of(connection)
        return attributes

    def _acknowledge_when_done(
        self, connection: Connection, request_id: RequestId, topic: str, futures: list[Future[Receipt]]
    ) -> None:
        pending = len(futures)

        def on_done(future: Future[Receipt]) -> None:
            nonlocal pending
            pending -= 1
            if pending:
                return
            if (failure := failure_of(futures, topic)) is not None:
                self._answer_failure(connection, failure, request_id)
            else:
                pos = self._publisher.position(topic, future.result()) if len(futures) == 1 else None
                self._acknowledge(connection, request_id, pos)

        for future in futures:
            future.add_done_callback(on_done)

    def _scope_of(self, connection: Connection) -> str:
        """Return the identity in whose scope the keys of a connection are compared."""
        if connection.principal is not None:
            return f"user {connection.principal.id}"
        client_id = self._senders.client_id(connection)
        return f"connection {connection.id}" if client_id is None else f"client {client_id}"

    def _acknowledge(self, connection: Connection, request_id: RequestId, pos: str | None = None) -> None:
        """Send an `ack`, unless the request has no id."""
        if request_id is not None:
            self._fanout.send(connection, server_messages.ack(request_id, pos=pos))

    def _answer_failure(self, connection: Connection, error: BaseException | None, request_id: RequestId) -> None:
        """Send an `error`. A failure that the client did not cause is logged."""
        described = describe(error) if error is not None else None
        if described is None:
            logger.error("a request of connection %r failed", connection.id, exc_info=error)
            described = INTERNAL
        self._fanout.send(connection, server_messages.error(described, request_id))


def _sender_of(connection: Connection) -> str:
    return connection.id if connection.principal is None else connection.principal.id


def _required(value: str | None, member: str) -> str:
    if value is None:
        raise InvalidMessage(f"member {member!r} is missing.")
    return value


def _refuse_reserved(topic: str) -> None:
    if is_reserved(topic):
        raise Refused("forbidden", "topics that begin with '$' are reserved for the node")
