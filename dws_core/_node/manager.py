"""The public face of a node: one manager in one process."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Collection, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from importlib import import_module
from typing import Any, Self

from starlette.websockets import WebSocket

from dws_core._auth.interface import Authenticator, Authorize, Principal, TokenVerifier
from dws_core._auth.refusal import logged_refusal, refuse_stopped
from dws_core._errors import BrokerUnavailable, ConfigurationError, ConnectionClosed
from dws_core._limits.backlog import SlowConsumer
from dws_core._limits.limits import Limits
from dws_core._log.backoff import Backoff
from dws_core._log.contract import LogBroker
from dws_core._log.plain import BrokerInterface
from dws_core._log.policy import HistoryPolicy
from dws_core._log.records import History, Layout
from dws_core._node.arguments import check_arguments
from dws_core._node.broker.choose import choose_broker
from dws_core._node.broker.plain_broker import AdaptedBroker
from dws_core._node.connection.admission import Admission
from dws_core._node.connection.authenticator import choose_authenticator
from dws_core._node.connection.connect_block import ConnectBlock
from dws_core._node.connection.connection import Connection
from dws_core._node.connection.handshake import HandshakeChecker, check_given_id, new_id
from dws_core._node.connection.hello import make_hello
from dws_core._node.connection.token_checker import TokenChecker
from dws_core._node.not_started import not_started
from dws_core._node.notices import warn_of_open_channel
from dws_core._node.publisher import Completed, Publisher
from dws_core._node.recovery.history import StoredMessages
from dws_core._node.request_methods import RequestMethods
from dws_core._node.runtime import NodeRuntime, NodeSettings
from dws_core._node.stats import Counters, NodeHealth, NodeStats
from dws_core._node.user_methods import UserMethods
from dws_core._plugins.registry import PluginRegistry, default_registry
from dws_core._topics.interface import TopicMatcher
from dws_core._wire import server_messages
from dws_core._wire.close_codes import CloseCode
from dws_core._wire.codecs import Codec
from dws_core._wire.message import JSON, Message, Untyped
from dws_core._wire.node_topics import check_conn_id

logger = logging.getLogger("dws")


class WebSocketManager(UserMethods, RequestMethods):
    """A node: the connections of one process, joined through the broker with those of all other nodes of its channel.

    Arguments that name a plugin accept the name of an installed plugin or an object. A name may carry the options of the
    plugin, as in a URL: `authenticator="api-key?header=x-key"`.

    Args:
        broker_channel: Name of the channel, used as the prefix on the broker. Nodes of one channel share messages.
        broker_url: URL whose scheme selects the broker plugin, for example `memory://` or `redis://localhost:6379/0`.
        broker_class: Class of the broker, built with the remaining keyword arguments, as in the original library. Without
            keyword arguments it is built from `broker_url`, if there is one.
        broker: A broker object. One of `broker_url`, `broker_class` and `broker` is required.
        codec: Codec between nodes, and for clients that offer no subprotocol.
        topic_matcher: Language of topic filters.
        authenticator: Authenticates handshakes. If None, connections are not authenticated.
        verify_token: Verifies tokens for a named authenticator. Sync or async. Refused if the authenticator does not use
            it.
        hello: Whether to accept clients without credentials, which must send their token in the first message, `connect`,
            within `Limits.hello_timeout_s`. For clients that can set neither a header nor a subprotocol. If a client
            disconnects before that, the handler receives a closed connection.
        authorize: `Permissions`, or a function that returns whether a principal may perform an action on a topic or
            filter. Sync or async. If None, everything is allowed.
        allowed_origins: Origins whose pages may connect, in addition to the node's own, such as
            `https://app.example.com`. `https://*.example.com` allows all hosts below it, and `*` any origin.
        history: How much of a topic is kept for reconnecting clients, by filter. The first matching filter applies, so
            put specific filters first. Topics without a matching filter keep `History()`, which covers a reconnect within
            minutes. Broadcasts are the topic `$all`, direct messages `$conn/<id>`, those to users `$user/<id>`. Only
            filters that begin with `$` match those. All nodes of a channel must use the same settings.
        limits: Limits of the node. If None, the defaults of `Limits`.
        untyped: How to treat a client's message with neither a `type` nor a `topic`: `refuse` answers it with
            `invalid-message`, `broadcast` sends it to every connection, as in the original library.
        stamp_sender: Whether messages that clients publish reach other clients with the member `from`: the id of the
            principal, or the connection id of a client that is not authenticated. The node sets it, never the client.
        startup_patience_s: How long a start retries while the broker is unavailable, in seconds. If 0, it fails at once. A
            server that is stopped during this time ends when it is over.
        adapt_server: Whether to give a uvicorn the protocol classes of `dws_core.server` when the manager starts. They make
            deliveries faster, and bound what clients cost. An explicit `--ws` or `--http` stays as it is.
        registry: Registry that plugin names are looked up in. If None, the installed plugins.
        **kwargs: Keyword arguments for `broker_class`.

    Raises:
        ConfigurationError: An argument has a wrong type or value, arguments contradict each other, or a named plugin is not
            installed or refuses an option.
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
        hello: bool = False,
        authorize: Authorize | None = None,
        allowed_origins: Collection[str] = (),
        history: Mapping[str, History] | None = None,
        limits: Limits | None = None,
        untyped: Untyped = "refuse",
        stamp_sender: bool = False,
        startup_patience_s: float = 0.0,
        adapt_server: bool = True,
        registry: PluginRegistry | None = None,
        **kwargs: Any,
    ) -> None:
        check_arguments(locals())
        plugins = registry or default_registry()
        self.broker_channel = broker_channel
        self.limits: Limits = limits or Limits()
        self.broker: BrokerInterface | LogBroker = choose_broker(
            plugins, url=broker_url, broker_class=broker_class, broker=broker, kwargs=kwargs
        )
        self._matcher = plugins.topic_matcher(topic_matcher) if isinstance(topic_matcher, str) else topic_matcher
        chosen = plugins.codec(codec) if isinstance(codec, str) else codec
        codecs = {**plugins.codecs(), chosen.name: chosen}
        authenticator = choose_authenticator(plugins, authenticator, verify_token)
        self._handshakes = HandshakeChecker(codecs, chosen, authenticator, allowed_origins, hello=hello)
        tokens = TokenChecker(authenticator, self.limits.handshake_s)
        self._hello = make_hello(tokens, self.limits) if hello else None
        self._settings = self._make_settings(
            chosen,
            codecs,
            history or {},
            authorize=authorize,
            tokens=tokens,
            untyped=untyped,
            stamps_sender=stamp_sender,
        )
        self._publisher, self._admission = self._settings.publisher, self._settings.admission
        self._runtime = NodeRuntime.build(self._settings)
        self._startup_patience_s = startup_patience_s
        self._adapts_server = adapt_server
        self._starting_or_stopping = asyncio.Lock()
        self._runtime_used = False
        self._running = False

    def _make_settings(
        self,
        codec: Codec,
        codecs: Mapping[str, Codec],
        history: Mapping[str, History],
        **resolved: Any,
    ) -> NodeSettings:
        broker = self.broker if isinstance(self.broker, LogBroker) else AdaptedBroker(self.broker)
        layout = Layout(channel=self.broker_channel, partitions=broker.partitions)
        rules = {self._matcher.check_filter(filter_): kept for filter_, kept in history.items()}
        policy, counters = HistoryPolicy(rules, self._matcher.matches), Counters()
        return NodeSettings(
            broker=broker,
            layout=layout,
            matcher=self._matcher,
            codecs=codecs,
            limits=self.limits,
            policy=policy,
            publisher=Publisher(broker, codec, codecs=codecs.values(), layout=layout, policy=policy, counters=counters),
            counters=counters,
            admission=Admission(self._handshakes, self.limits, counters),
            **resolved,
        )

    # -- life cycle

    async def startup(self) -> None:
        """Connect to the broker and tail the channel. Does nothing if the node is started.

        A failed start leaves nothing open and can be repeated. A node can be started again after `shutdown`.

        Raises:
            BrokerUnavailable: The broker was unavailable for longer than `startup_patience_s`.
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
                    logger.warning("the start is retried for %.0f s: %s", left_s, error)
                    await asyncio.sleep(min(backoff.next_s(), left_s))

    async def _start(self) -> None:
        if self._runtime_used:
            self._runtime = NodeRuntime.build(self._settings)
        elif self._settings.authorize is None and not self._handshakes.authenticates:
            warn_of_open_channel(self.broker_channel)
        self._runtime_used = True
        await self._runtime.start()
        if "uvicorn.lifespan.on" in sys.modules:
            import_module("dws_core._uvicorn").join_server(self._settings.counters, adapts=self._adapts_server)
        self._running = True

    async def shutdown(self) -> None:
        """Close all connections with 1012, stop the broker, end all tasks. Does nothing if the node is stopped.

        Raises:
            ExceptionGroup: With the failures of background tasks that were not reported before.
        """
        async with self._starting_or_stopping:
            if not self._running:
                return
            self._running = False
            await self._runtime.stop()

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
        """The open connections of this node, as a new list."""
        return list(self._runtime.connections)

    def stats(self) -> NodeStats:
        """Return the current numbers of the node."""
        return self._runtime.stats()

    def health(self) -> NodeHealth:
        """Return whether the node can serve, without I/O, for readiness routes."""
        return self._runtime.health(started=self._running)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._runtime.connections)

    def __len__(self) -> int:
        return len(self._runtime.connections)

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
            websocket: The WebSocket. If it is not accepted yet, the subprotocol is negotiated and it is accepted.
            conn_id: Address of direct messages. A client that chooses it can read the messages of that id. If None, the
                principal's id, or an unguessable one.
            topic: Filter to subscribe to immediately. If None, the connection starts without filters.
            principal: Identity of the client, if the application has established it. If None, the authenticator decides.
            slow_consumer: Policy when the client does not read fast enough. If None, `Limits.slow_consumer`.

        Raises:
            AuthenticationFailed: The client is refused, also as `OriginNotAllowed`. Do not catch it: FastAPI answers the
                client.
            InvalidMessage: No offered subprotocol is known, or the connection id is invalid.
            InvalidFilter: The topic is not a filter.
            BrokerClosed: The node is not started.
        """
        with logged_refusal(websocket), self._admission.opening(websocket):
            await self._runtime.pacer.wait_turn()
            self._check_running(websocket)
            if topic is not None:
                self._matcher.check_filter(topic)
            if conn_id is not None:
                check_given_id(websocket, conn_id)
            runtime, commands = self._runtime, self._runtime.commands.count
            codec, principal = await self._admission.admit(websocket, principal, connections=len(self))
            connection = Connection(
                websocket, conn_id or "", principal=principal, codec=codec, slow_consumer=slow_consumer, host=runtime
            )
            with suppress(ConnectionClosed), self._admission.leaving_on_error(connection):
                await self._open(connection, topic, commands)
            return connection

    async def _open(self, connection: Connection, topic: str | None, commands: int) -> None:
        """Add an admitted connection. If it has no principal yet, wait for its first message."""
        first: JSON = None
        if self._hello is not None and connection.principal is None:
            principal, first = await self._hello.wait(connection)
            self._admission.identify(connection.websocket, principal)
            connection.principal = principal
        if not self._running:
            raise refuse_stopped(connection.websocket, "the node was stopped during the handshake")
        if not connection.id:
            connection.id = new_id(connection.websocket, connection.principal)
        if topic is not None:
            connection.topics.add(topic)
        self._runtime.serve(connection, first, commands=commands)

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

        The connection is closed and removed at the end of the block, with 1011 if the block raised. If the client
        disconnects while the block waits for something else, the block is cancelled after `Limits.handler_grace_s`. That
        cancellation does not leave the block. Arguments and errors: see `new_connection`.
        """
        return ConnectBlock(
            self, websocket, conn_id=conn_id, topic=topic, principal=principal, slow_consumer=slow_consumer
        )

    async def close_connection(
        self, connection: Connection, code: int = CloseCode.NORMAL, reason: str | None = None
    ) -> None:
        """Close a connection and remove it. Arguments: see `Connection.close`."""
        await connection.close(code, reason)
        self.remove_connection(connection)

    def remove_connection(self, connection: Connection) -> Awaitable[None]:
        """Remove a closed connection immediately. Awaiting is optional. A connection that is not here is no error."""
        self._runtime.remove(connection)
        return Completed()

    def set_conn_id(self, connection: Connection, conn_id: str) -> Awaitable[None]:
        """Change the id of a connection immediately and notify the client. Awaiting is optional.

        Raises:
            InvalidMessage: The id is invalid.
        """
        self._runtime.connections.rename(connection, check_conn_id(conn_id))
        self._runtime.fanout.send(connection, server_messages.set_conn_id(conn_id))
        return Completed()

    def _check_running(self, websocket: WebSocket | None = None) -> None:
        if not self._running:
            raise not_started(None if websocket is None else websocket.scope)

    # -- messages

    async def receive(self, connection: Connection, message: Message | JSON) -> None:
        """Carry out a client's request: subscribe, publish, reply.

        Returns once a publish is passed to the broker. The client's `ack` follows when the broker has stored it. A request
        that cannot be carried out is answered with an `error`. Nothing is raised.
        """
        await self._runtime.dispatcher.receive(connection, message)

    async def history(self, topic: str, *, limit: int = 100) -> StoredMessages:
        """Return the last stored messages of one topic, oldest first, including all acknowledged before the call.

        Args:
            topic: A topic without wildcards.
            limit: Maximum number of messages. `Limits.replay_messages` and the topic's `History` also apply.

        Returns:
            A list with the attribute `cursor`, from which a client can continue.

        Raises:
            InvalidTopic: The topic breaks a rule.
            ConfigurationError: The limit is not positive.
            BrokerUnavailable: The broker keeps no history, or it cannot be read.
            BrokerClosed: The node is not started.
        """
        if limit < 1:
            raise ConfigurationError(f"history(limit={limit}) must be positive.", fix="request at least one message")
        self._check_running()
        return await self._runtime.history.read(self._matcher.check_topic(topic), limit, fresh=True)
