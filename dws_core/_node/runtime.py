"""The objects that one start of a node creates and one stop ends."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from dws_core._auth.interface import Authorize
from dws_core._limits.limits import Limits
from dws_core._log.contract import LogBroker
from dws_core._log.partition import partition_of
from dws_core._log.policy import HistoryPolicy
from dws_core._log.records import Layout
from dws_core._node.asking.requester import Requester
from dws_core._node.asking.responder import Responder
from dws_core._node.connection.admission import Admission
from dws_core._node.connection.connection import Connection
from dws_core._node.connection.lifetimes import Lifetimes
from dws_core._node.connection.registry import ConnectionRegistry
from dws_core._node.connection.senders import Senders
from dws_core._node.connection.token_checker import TokenChecker
from dws_core._node.notices import log_frames
from dws_core._node.pacing import Pacer
from dws_core._node.publisher import Publisher
from dws_core._node.recovery.attach import Attach
from dws_core._node.recovery.attachments import Attachments
from dws_core._node.recovery.attempts import Attempts
from dws_core._node.recovery.cursors import Cursors
from dws_core._node.recovery.history import HistoryReader
from dws_core._node.recovery.interest import Interest
from dws_core._node.recovery.log_caches import LogCaches
from dws_core._node.recovery.replayer import Replayer
from dws_core._node.recovery.replays import Replays
from dws_core._node.recovery.shared_reads import SharedReads
from dws_core._node.recovery.shared_searches import SharedSearches
from dws_core._node.requests.commands import Commands
from dws_core._node.requests.dispatcher import Dispatcher
from dws_core._node.requests.past import Past
from dws_core._node.requests.permission import Permission
from dws_core._node.requests.refresh import Refresh, Removal
from dws_core._node.requests.resume import Resume
from dws_core._node.sending.fanout import Fanout
from dws_core._node.sending.overruns import Overruns
from dws_core._node.stats import Counters, NodeHealth, NodeStats
from dws_core._node.tail_sink import NodeTailSink
from dws_core._tasks import Tasks
from dws_core._topics.interface import TopicMatcher
from dws_core._topics.router import Router
from dws_core._wire.close_codes import CloseCode
from dws_core._wire.codecs import Codec
from dws_core._wire.message import JSON, Untyped
from dws_core._wire.node_topics import COMMANDS

logger = logging.getLogger("dws")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """The resolved arguments of a manager. Every start of the node uses the same.

    Attributes:
        broker: The log broker. A plain broker is adapted.
        layout: Layout of the channel.
        matcher: The topic language.
        codecs: Codecs by name.
        limits: Limits of the node.
        policy: History settings by topic.
        authorize: Authorizes requests. If None, every request is allowed.
        tokens: Verifies tokens in messages.
        untyped: How to treat messages without type and topic.
        stamps_sender: Whether messages of clients carry the id of their sender.
        publisher: Publishes messages.
        counters: Counters of the node, which survive a restart.
        admission: Counts the connections of users and addresses.
    """

    broker: LogBroker
    layout: Layout
    matcher: TopicMatcher
    codecs: Mapping[str, Codec]
    limits: Limits
    policy: HistoryPolicy
    authorize: Authorize | None
    tokens: TokenChecker
    untyped: Untyped
    stamps_sender: bool
    publisher: Publisher
    counters: Counters
    admission: Admission


@dataclass(slots=True, kw_only=True, eq=False)
class NodeRuntime:
    """One run of a node. It is the `ConnectionHost` of its connections.

    A node that is started again gets a new runtime, so that it cannot answer from records of an earlier run.
    """

    settings: NodeSettings
    limits: Limits
    untyped: Untyped
    counters: Counters
    tasks: Tasks
    pacer: Pacer
    router: Router[Connection]
    fanout: Fanout
    connections: ConnectionRegistry
    lifetimes: Lifetimes
    senders: Senders
    requester: Requester
    responder: Responder
    caches: LogCaches
    interest: Interest
    cursors: Cursors
    attachments: Attachments
    attempts: Attempts
    removal: Removal
    replays: Replays
    overruns: Overruns = field(default_factory=Overruns)
    history: HistoryReader = field(init=False)
    dispatcher: Dispatcher = field(init=False)
    commands: Commands = field(init=False)
    tail_sink: NodeTailSink = field(init=False)
    has_served: bool = False

    @classmethod
    def build(cls, settings: NodeSettings) -> NodeRuntime:
        """Create and wire the objects of one run. No I/O."""
        fanout, router = Fanout(settings.counters), Router[Connection](settings.matcher)
        connections, caches = ConnectionRegistry(), LogCaches(settings.policy.of)
        interest, attachments = Interest(router, settings.matcher, settings.layout), Attachments()
        runtime = cls(
            settings=settings,
            limits=settings.limits,
            untyped=settings.untyped,
            counters=settings.counters,
            tasks=Tasks(),
            pacer=Pacer(),
            router=router,
            fanout=fanout,
            connections=connections,
            lifetimes=Lifetimes(settings.limits, fanout=fanout, pacer=Pacer(1)),
            senders=Senders(connections),
            requester=Requester(settings.publisher, settings.codecs),
            responder=Responder(connections, fanout, settings.publisher, settings.codecs),
            caches=caches,
            interest=interest,
            cursors=Cursors(caches, interest, fanout, settings.broker),
            attachments=attachments,
            attempts=Attempts(),
            removal=Removal(attachments, fanout),
            replays=Replays(settings.matcher),
        )
        runtime.history = runtime._build_history()
        runtime.dispatcher = runtime._build_dispatcher()
        runtime.commands = runtime._build_commands()
        runtime.tail_sink = runtime._build_tail_sink()
        return runtime

    async def start(self) -> None:
        """Start the broker and tail all partitions. A start that fails leaves nothing open.

        Raises:
            BrokerUnavailable: The broker cannot be reached.
        """
        broker, layout = self.settings.broker, self.settings.layout
        await broker.start(node=os.urandom(8), layout=layout, sink=self.tail_sink)
        try:
            heads = await broker.set_interest(frozenset(range(layout.partitions)))
        except BaseException:
            await self._stop_broker_after_failure()
            raise
        self.caches.begin(heads.values())
        self.settings.publisher.start()
        self.tasks.spawn(self._update_cursors(), name="cursor updates")
        self.tasks.spawn(self.lifetimes.run(), name="ends of connections")
        if self.limits.idle_s is not None:
            self.tasks.spawn(self._close_idle(self.limits.idle_s), name="search for idle connections")

    async def stop(self) -> None:
        """Close all connections with 1012, stop the broker, end all tasks.

        Raises:
            ExceptionGroup: With the failures of background tasks that were not reported before.
        """
        async with AsyncExitStack() as rest:  # every step runs, even if one fails or is cancelled
            rest.push_async_callback(self.tasks.stop)
            rest.callback(self.settings.publisher.stop)
            rest.push_async_callback(self.settings.broker.stop)
            self.requester.stop()
            self.responder.stop()
            self.cursors.send_updates(exclude=self.attachments)
            await asyncio.gather(*(c.close(CloseCode.SERVICE_RESTART) for c in self.connections))

    def serve(self, connection: Connection, first: JSON, *, commands: int) -> None:
        """Add an accepted connection, whose handler is the current task, and start to read from it.

        `first` is a message that it has sent, or None. `commands` is the number of commands before its handshake.
        """
        self.has_served = self.has_served or log_frames(connection.takes_ready_frames)
        self.connections.add(connection)
        self.lifetimes.begin(connection)
        connection._serve(first)
        self.commands.overtook(connection, commands)

    def remove(self, connection: Connection) -> None:
        """Remove a connection whose handler has ended. A connection that is not here is no error."""
        connection._release_handler()
        self.on_closed(connection)

    def on_closed(self, connection: Connection) -> None:
        """Forget a connection whose socket is closed: nothing is sent to it any more."""
        self.router.remove(connection)
        if self.connections.discard(connection):
            self.settings.admission.on_closed(connection)
        self.lifetimes.forget(connection)
        self.senders.on_closed(connection)
        self.cursors.forget(connection)
        self.attachments.remove(connection)
        self.replays.forget(connection)

    def on_reply(self, connection: Connection, message: JSON) -> bool:
        """Take a client's reply to a request of the application. Return False for any other message."""
        return self.dispatcher.take_reply(connection, message)

    def health(self, *, started: bool) -> NodeHealth:
        """Return the current state of the node."""
        return NodeHealth(
            started=started,
            broker=self.tail_sink.state,
            detail=self.tail_sink.detail,
            connections=len(self.connections),
            waiting_resumes=self.attachments.waiting,
        )

    def stats(self) -> NodeStats:
        """Return the current numbers of the node."""
        return NodeStats(
            connections=len(self.connections),
            filters=len(self.router),
            ready_connections=sum(connection.takes_ready_frames for connection in self.connections),
            waiting_resumes=self.attachments.waiting,
            published=self.counters.published,
            received=self.counters.received,
            deliveries=self.counters.deliveries,
            dropped=self.counters.dropped,
            overflows=self.counters.overflows,
            refused=dict(self.counters.refused),
        )

    async def delivered(self, topics: Sequence[str]) -> None:
        """Let the event loop deliver published messages. A loop that only publishes would otherwise block their readers.

        Connections over their limit that receive one of the topics are waited for, as long as they read.
        """
        await asyncio.sleep(0)
        if not self.overruns or self.settings.publisher.loop is not asyncio.get_running_loop():
            return
        receivers = {connection for topic in topics for connection in self.tail_sink.receivers(topic) or ()}
        await asyncio.gather(*[c._outbox.read() for c in receivers if c._outbox in self.overruns])

    def slow_loop(self) -> asyncio.AbstractEventLoop | None:
        """Return the event loop if connections are over their limit, else None. Any thread may call this."""
        return self.settings.publisher.loop if self.overruns else None

    async def _update_cursors(self) -> None:
        while True:
            await asyncio.sleep(self.limits.pos_interval_s)
            self.caches.expire()
            self.cursors.send_updates(exclude=self.attachments)

    async def _close_idle(self, idle_s: float) -> None:
        """Close connections without filters that have sent nothing for a time, at most a quarter of it too late."""
        while True:
            await asyncio.sleep(idle_s / 4)
            limit = asyncio.get_running_loop().time() - idle_s
            for connection in self.connections:
                if not connection.topics and connection._last_message_s < limit:
                    connection.disconnect(CloseCode.GOING_AWAY, "idle")

    async def _stop_broker_after_failure(self) -> None:
        """Stop the broker after a failed start. The caller raises the first failure, so a second one is only logged."""
        try:
            await self.settings.broker.stop()
        except Exception:
            logger.exception("the broker could not be stopped after a failed start")

    def _build_history(self) -> HistoryReader:
        settings = self.settings
        return HistoryReader(
            settings.broker,
            layout=settings.layout,
            caches=self.caches,
            policy=settings.policy,
            codecs=settings.codecs,
            max_messages=settings.limits.replay_messages,
            max_bytes=settings.limits.history_bytes,
        )

    def _build_dispatcher(self) -> Dispatcher:
        settings, permission = self.settings, Permission(self.settings.authorize, self.settings.matcher)
        attach = Attach(
            SharedReads(settings.broker, self.tasks, self.pacer, self.attempts),
            host=self,
            caches=self.caches,
            interest=self.interest,
            attachments=self.attachments,
            senders=self.senders,
            codecs=settings.codecs,
        )
        resume = Resume(
            interest=self.interest,
            cursors=self.cursors,
            attach=attach,
            attachments=self.attachments,
            senders=self.senders,
            history=self.history,
            fanout=self.fanout,
            pacer=self.pacer,
            ping_s=settings.limits.ping_s,
        )
        return Dispatcher(
            publisher=settings.publisher,
            matcher=settings.matcher,
            limits=settings.limits,
            permission=permission,
            untyped=settings.untyped,
            stamps_sender=settings.stamps_sender,
            resume=resume,
            refresh=self._build_refresh(permission),
            senders=self.senders,
            responder=self.responder,
            past=self._build_past(attach),
            fanout=self.fanout,
        )

    def _build_refresh(self, permission: Permission) -> Refresh:
        return Refresh(
            self.settings.tokens,
            permission=permission,
            lifetimes=self.lifetimes,
            removal=self.removal,
            fanout=self.fanout,
        )

    def _build_commands(self) -> Commands:
        settings = self.settings
        return Commands(
            self.connections,
            removal=self.removal,
            codecs=settings.codecs,
            history=self.history,
            tasks=self.tasks,
            partition=partition_of(COMMANDS, settings.layout),
        )

    def _build_past(self, attach: Attach) -> Past:
        replayer = Replayer(
            attach,
            host=self,
            caches=self.caches,
            interest=self.interest,
            cursors=self.cursors,
            attachments=self.attachments,
            replays=self.replays,
            senders=self.senders,
            codecs=self.settings.codecs,
        )
        return Past(
            searches=SharedSearches(self.history, self.tasks),
            attach=attach,
            interest=self.interest,
            replays=self.replays,
            replayer=replayer,
            pacer=self.pacer,
        )

    def _build_tail_sink(self) -> NodeTailSink:
        return NodeTailSink(
            router=self.router,
            connections=self.connections,
            codecs=self.settings.codecs,
            fanout=self.fanout,
            counters=self.counters,
            caches=self.caches,
            interest=self.interest,
            cursors=self.cursors,
            attachments=self.attachments,
            attempts=self.attempts,
            commands=self.commands,
            senders=self.senders,
            requester=self.requester,
            responder=self.responder,
            replays=self.replays,
        )
