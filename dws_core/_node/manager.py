"""The node: one manager in one process."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Self

from starlette.websockets import WebSocket

from dws_core._auth.interface import Authenticator, Authorize, Principal, TokenVerifier
from dws_core._auth.refusal import refuse_full, refuse_stopped
from dws_core._errors import BrokerClosed, BrokerUnavailable, ConfigurationError
from dws_core._limits.backlog import SlowConsumer
from dws_core._limits.limits import Limits
from dws_core._log.backoff import Backoff
from dws_core._log.contract import LogBroker
from dws_core._log.plain import BrokerInterface
from dws_core._log.policy import HistoryPolicy
from dws_core._log.records import History, Layout
from dws_core._node.broker.choose import choose_broker
from dws_core._node.broker.plain_broker import AdaptedBroker
from dws_core._node.connection.connect_block import ConnectBlock
from dws_core._node.connection.connection import Connection
from dws_core._node.connection.handler_guard import HandlerGuard
from dws_core._node.connection.handshake import HandshakeChecker, id_of
from dws_core._node.connection.registry import ConnectionRegistry
from dws_core._node.health import NodeHealth
from dws_core._node.pacing import Pacer
from dws_core._node.publisher import Completed, Publisher
from dws_core._node.recovery.attach import Attach
from dws_core._node.recovery.cursors import Cursors
from dws_core._node.recovery.history import HistoryReader, StoredMessage
from dws_core._node.recovery.interest import Interest
from dws_core._node.recovery.log_caches import LogCaches
from dws_core._node.requests.dispatcher import Dispatcher
from dws_core._node.requests.resume import Resume
from dws_core._node.sender import Sender
from dws_core._node.sending.fanout import Fanout
from dws_core._node.stats import Counters, NodeStats
from dws_core._node.tail_sink import NodeTailSink
from dws_core._plugins.registry import PluginRegistry, default_registry
from dws_core._tasks import Tasks
from dws_core._topics.interface import TopicMatcher
from dws_core._topics.router import Router
from dws_core._wire.close_codes import CloseCode
from dws_core._wire.codecs import Codec
from dws_core._wire.frames import encode_frame
from dws_core._wire.message import JSON, Message
from dws_core._wire.node_topics import check_conn_id

logger = logging.getLogger("dws")

_READY = "the server takes ready frames: deliveries are written once framed"
_NOT_READY = (
    "the server takes no ready frames: deliveries go through ASGI messages, same behaviour, slower. "
    "With uvicorn: --ws dws_core.server:WebSocketProtocol"
)


class WebSocketManager(Sender):
    """A node: the connections of one process, joined through the broker with those of all other nodes of its channel.

    Names and objects are both taken wherever a plugin is meant: a name is looked up among the installed plugins.

    Args:
        broker_channel: The channel: nodes of one channel see each other. The prefix on the broker.
        broker_url: Chooses the broker plugin by its scheme, for example `memory://` or `redis://localhost:6379/0`.
        broker_class: A broker's class, built with the remaining keyword arguments, as in the original library; without any, from
            `broker_url` where there is one.
        broker: A ready broker object. One of `broker_url`, `broker_class` and `broker` is needed.
        codec: What data is encoded with between nodes, and for clients that offer no subprotocol.
        topic_matcher: The language of filters.
        authenticator: Turns a handshake into a `Principal`; None: nobody is asked.
        verify_token: What a named authenticator verifies tokens with; sync or async.
        authorize: Says whether a principal may do an action on a topic or filter; sync or async. None: all may do all.
        allowed_origins: Origins whose pages may connect besides the node's own; `["*"]`: any.
        history: How much of a topic is kept for clients that come back, by filter; the first that matches decides, so write
            special filters before general ones. Topics that none matches keep `History()`: a reconnect within minutes
            loses nothing. Broadcasts are the topic `$all`, direct messages `$conn/<id>`; only filters that begin with
            `$` match those. Give every node of a channel the same.
        limits: Bounds of the node.
        startup_patience_s: Seconds for which a start goes on trying while the broker is away; 0: it fails at once. A server that
            is told to stop meanwhile ends when they are over.
        registry: Where plugins are looked up; None: the installed ones.
        **kwargs: For `broker_class`.

    Raises:
        ConfigurationError: Something named here is not installed, or the arguments contradict each other.
        InvalidFilter: A key of `history` is not a filter.
    """

    def __init__(
        self,
        broker_channel: str,
        broker_url: str | None = None,
        broker_class: type[BrokerInterface] | type[LogBroker] | None = None,
        *,
        broker: BrokerInterface | LogBroker | None = None,
        codec: str | Codec = "json",
        topic_matcher: str | TopicMatcher = "mqtt",
        authenticator: str | Authenticator | None = None,
        verify_token: TokenVerifier | None = None,
        authorize: Authorize | None = None,
        allowed_origins: Collection[str] = (),
        history: Mapping[str, History] | None = None,
        limits: Limits | None = None,
        startup_patience_s: float = 0.0,
        registry: PluginRegistry | None = None,
        **kwargs: Any,
    ) -> None:
        plugins = registry or default_registry()
        self.broker_channel = broker_channel
        self.limits: Limits = limits or Limits()
        self.tasks: Tasks = Tasks()
        self.counters: Counters = Counters()
        self.broker: BrokerInterface | LogBroker = choose_broker(plugins, broker_url, broker_class, broker, kwargs)
        matcher = plugins.topic_matcher(topic_matcher) if isinstance(topic_matcher, str) else topic_matcher
        self._matcher = matcher
        self.router: Router[Connection] = Router(matcher)
        self._connections = ConnectionRegistry()
        self._codec = plugins.codec(codec) if isinstance(codec, str) else codec
        self._codecs = {**plugins.codecs(), self._codec.name: self._codec}
        if isinstance(authenticator, str):
            authenticator = plugins.authenticator(authenticator)(verify=verify_token)
        elif authenticator is None and verify_token is not None:
            authenticator = plugins.authenticator("oauth2-bearer")(verify=verify_token)
        self._handshakes = HandshakeChecker(self._codecs, self._codec, authenticator, allowed_origins)
        self._authorize = authorize
        self._log = self.broker if isinstance(self.broker, LogBroker) else AdaptedBroker(self.broker)
        self._layout = Layout(channel=broker_channel, partitions=self._log.partitions)
        self._policy = HistoryPolicy(
            {matcher.check_filter(f): kept for f, kept in (history or {}).items()}, matcher.matches
        )
        self._begin_anew()
        self._startup_patience_s = startup_patience_s
        self._starting_or_stopping = asyncio.Lock()
        self._running = False
        self._way_logged = False

    def _begin_anew(self) -> None:
        """Make what knows anything of the channel. A node that is started again knows no more than a new one."""
        self.pacer: Pacer = Pacer()
        self.fanout: Fanout = Fanout(self.counters)
        self._logs = LogCaches(self._policy.of)
        interest = Interest(self.router, self._matcher, self._layout)
        self._positions = Cursors(self._logs, interest, recovers=self._log.capabilities.recovery)
        self._attach = Attach(self._log, self, self._logs, interest, self._positions, self._codecs)
        self._delivery = NodeTailSink(
            self.router,
            self._connections,
            self._codecs,
            self.fanout,
            self.counters,
            self._logs,
            interest,
            self._positions,
            self._attach.attachments,
        )
        self._publisher = Publisher(self._log, self._codec, self._layout, self._policy, self.counters)
        most = self.limits.replay_messages
        self._history = HistoryReader(self._log, self._layout, self._logs, self._policy, self._codecs, most)
        resume = Resume(self._log, interest, self._positions, self._attach, self._history, self.limits.ping_s)
        self._inbound = Dispatcher(self._publisher, self._matcher, self.limits, self._authorize, resume)

    # -- life cycle

    async def startup(self) -> None:
        """Connect to the broker and follow the channel. Starting a started node does nothing.

        A start that fails leaves nothing open: it may be tried again. A node that was stopped starts as a new one does.

        Raises:
            BrokerUnavailable: The broker cannot be reached, for longer than `startup_patience_s`.
        """
        async with self._starting_or_stopping:
            if self._running:
                return
            loop, backoff = asyncio.get_running_loop(), Backoff(first_s=0.1, max_s=2.0)
            until = loop.time() + self._startup_patience_s
            while True:
                try:
                    await self._start()
                    break
                except BrokerUnavailable as error:
                    if (left_s := until - loop.time()) <= 0:
                        raise
                    logger.warning("the start is tried again for %.0f s: %s", left_s, error)
                    await asyncio.sleep(min(backoff.next_s(), left_s))

    async def _start(self) -> None:
        self._begin_anew()
        await self._log.start(node=os.urandom(8), layout=self._layout, sink=self._delivery)
        try:
            heads = await self._log.set_interest(frozenset(range(self._layout.partitions)))
        except BaseException:
            await self._give_up()
            raise
        self._logs.begin(heads.values())
        self._running = True
        self.tasks.spawn(self._tell_positions(), name="positions of quiet topics")

    async def _give_up(self) -> None:
        """Stop the broker after a start that failed; what failed first is what the caller is told."""
        try:
            await self._log.stop()
        except Exception:
            logger.exception("the broker could not be stopped after a start that failed")

    async def shutdown(self) -> None:
        """Close all connections with 1012, stop the broker, end all tasks. Stopping a stopped node does nothing.

        Raises:
            ExceptionGroup: With what failed in the background and nobody could be told before.
        """
        async with self._starting_or_stopping:
            if not self._running:
                return
            self._running = False
            async with AsyncExitStack() as rest:  # all of it, also where one part fails or is cancelled
                rest.push_async_callback(self.tasks.stop)
                rest.push_async_callback(self._log.stop)
                self._positions.send_updates(exclude=self._attach.attachments)
                await asyncio.gather(*(c.close(CloseCode.SERVICE_RESTART) for c in self._connections))

    async def _tell_positions(self) -> None:
        while True:
            await asyncio.sleep(self.limits.pos_interval_s)
            self._logs.expire()
            self._positions.send_updates(exclude=self._attach.attachments)

    async def __aenter__(self) -> Self:
        await self.startup()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.shutdown()

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncIterator[None]:
        """Start with the application and stop with it: `FastAPI(lifespan=manager.lifespan)`.

        In a lifespan of your own: `async with manager.lifespan(app): yield`.
        """
        async with self:
            yield

    # -- connections

    @property
    def active_connections(self) -> list[Connection]:
        """The open connections of this node: a new list."""
        return list(self._connections)

    def stats(self) -> NodeStats:
        """Return the node in numbers, as they are now."""
        counters = self.counters
        return NodeStats(
            connections=len(self._connections),
            filters=len(self.router),
            ready_connections=sum(connection.takes_ready_frames for connection in self._connections),
            published=counters.published,
            received=counters.received,
            deliveries=counters.deliveries,
            dropped=counters.dropped,
            overflows=counters.overflows,
        )

    def health(self) -> NodeHealth:
        """Return whether the node can serve, as it is now; costs nothing, for readiness routes."""
        told = self._delivery
        return NodeHealth(
            started=self._running, broker=told.state, detail=told.detail, connections=len(self._connections)
        )

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._connections)

    def __len__(self) -> int:
        return len(self._connections)

    def __bool__(self) -> bool:
        return True

    async def new_connection(
        self,
        websocket: WebSocket,
        conn_id: str | None = None,
        topic: str | None = None,
        *,
        principal: Principal | None = None,
        slow_consumer: SlowConsumer | None = None,
    ) -> Connection:
        """Check and accept a handshake and add the connection. Prefer `connect`, which also removes it.

        Args:
            websocket: Accepted or not; if not, the subprotocol is negotiated and it is accepted here.
            conn_id: What direct messages are sent to: whoever chooses it reads them. None: the principal's id, or an
                unguessable one.
            topic: A filter to subscribe to at once.
            principal: Who the client is, where the application knows; None: the authenticator is asked.
            slow_consumer: What happens when the client does not read fast enough; None: as the node's limits say.

        Raises:
            AuthenticationFailed: Refused, also as `OriginNotAllowed`. Let it pass: FastAPI answers the client.
            InvalidMessage: No subprotocol is known, or the connection id cannot be used.
            InvalidFilter: The topic is not a filter.
            BrokerClosed: The node is not started.
        """
        await self.pacer.wait_turn()
        if not self._running:
            raise BrokerClosed("the node is not started.", fix="use FastAPI(lifespan=manager.lifespan)")
        if self.limits.connections is not None and len(self._connections) >= self.limits.connections:
            raise refuse_full(websocket, f"the node has {self.limits.connections} connections, its limit")
        if topic is not None:
            self._matcher.check_filter(topic)
        if conn_id is not None:
            check_conn_id(conn_id)
        codec, principal = await self._handshakes.accept(websocket, principal)
        if not self._running:
            raise refuse_stopped("the node was stopped during the handshake")
        if conn_id is None:
            conn_id = id_of(websocket, principal) if principal is not None else secrets.token_urlsafe(16)
        connection = Connection(
            websocket, conn_id, topic, principal=principal, codec=codec, slow_consumer=slow_consumer, host=self
        )
        if not self._way_logged:
            self._way_logged = True
            logger.info(_READY if connection.takes_ready_frames else _NOT_READY)
        self._connections.add(connection)
        connection.guard = HandlerGuard(self.limits.handler_grace_s)
        connection.start_reading()
        return connection

    def connect(
        self,
        websocket: WebSocket,
        conn_id: str | None = None,
        *,
        topic: str | None = None,
        principal: Principal | None = None,
        slow_consumer: SlowConsumer | None = None,
    ) -> AbstractAsyncContextManager[Connection]:
        """Serve a client: `async with manager.connect(websocket, conn_id) as connection`.

        At the end of the block the connection is closed and removed, with 1011 if the block raised. A block that still
        waits for something else when the client is gone is cancelled after `Limits.handler_grace_s`, silently.
        Arguments and errors: see `new_connection`.
        """
        return ConnectBlock(self, websocket, conn_id, topic, principal, slow_consumer)

    async def close_connection(
        self, connection: Connection, code: int = CloseCode.NORMAL, reason: str | None = None
    ) -> None:
        """Close a connection with a code and remove it."""
        await connection.close(code, reason)
        self.remove_connection(connection)

    def remove_connection(self, connection: Connection) -> Awaitable[None]:
        """Remove a connection that is closed. Works at once; awaiting is optional. One not there is no error."""
        if connection.guard is not None:
            connection.guard.release()
            connection.guard = None
        self._forget(connection)
        return Completed()

    def on_closed(self, connection: Connection) -> None:
        """Called by a connection whose socket is gone: nothing is sent to it any more."""
        self._forget(connection)
        if connection.guard is not None:
            connection.guard.client_gone()

    def _forget(self, connection: Connection) -> None:
        self.router.remove(connection)
        self._connections.discard(connection)
        self._positions.forget(connection)
        self._attach.attachments.remove(connection)

    def set_conn_id(self, connection: Connection, conn_id: str) -> Awaitable[None]:
        """Give a connection another id and tell the client. Works at once; awaiting is optional.

        Raises:
            InvalidMessage: The id cannot be used.
        """
        self._connections.rename(connection, check_conn_id(conn_id))
        connection.push(encode_frame(connection.codec, {"type": "set_conn_id", "conn_id": conn_id}))
        return Completed()

    # -- messages

    async def receive(self, connection: Connection, message: Message | JSON) -> None:
        """Carry out a client's message: subscribe, publish, answer.

        Returns when it is handed to the broker; the client's `ack` follows when the broker has it. What cannot be
        carried out is answered by an `error`; nothing is raised.
        """
        await self._inbound.receive(connection, message)

    async def history(self, topic: str, *, limit: int = 100) -> list[StoredMessage]:
        """Return the last messages of one topic that are kept, oldest first, up to what was acknowledged before the call.

        Args:
            topic: No wildcards.
            limit: At most so many; at most `Limits.replay_messages`, and what the topic's `History` keeps.

        Raises:
            InvalidTopic: The topic breaks a rule.
            ConfigurationError: The limit is not positive.
            BrokerUnavailable: The broker keeps no history, or it cannot be read.
            BrokerClosed: The node is not started.
        """
        if limit < 1:
            raise ConfigurationError(f"history(limit={limit}) must be positive.", fix="ask for at least one message")
        if not self._running:
            raise BrokerClosed("the node is not started.", fix="use FastAPI(lifespan=manager.lifespan)")
        return (await self._history.read(self._matcher.check_topic(topic), limit, fresh=True)).messages
