"""`RedisBroker`: what the core calls, and the two connections that are kept alive behind it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Final, Self

from dws_core.plugin import (
    Backoff,
    BrokerClosed,
    BrokerError,
    BrokerState,
    BrokerUnavailable,
    BrokerURL,
    Head,
    History,
    Layout,
    LayoutMismatch,
    LogBroker,
    Offset,
    ReadResult,
    Receipt,
    TailSink,
    TopicMatch,
    partition_of,
)
from dws_redis import CAPABILITIES
from dws_redis._connection import Commands, open_connection
from dws_redis._fence import prepare
from dws_redis._format import Names
from dws_redis._publisher import Publisher
from dws_redis._reader import Reader
from dws_redis._scripts import PROBE
from dws_redis._settings import Settings
from dws_redis._tail import Tail

logger = logging.getLogger("dws.redis")

_NODE_BYTES: Final = 8


class RedisBroker(LogBroker):
    """Partition logs on a Redis or Valkey server.

    Args:
        settings: Where, and how.
    """

    capabilities = CAPABILITIES

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.partitions = settings.options.partitions  # type: ignore[misc]  # this object's own
        self.capabilities = replace(CAPABILITIES, max_payload_bytes=settings.options.max_payload_bytes)  # type: ignore[misc]
        self._node: _Node | None = None

    @classmethod
    def from_url(cls, url: BrokerURL) -> Self:
        """Build from `redis://`, `rediss://` or `unix://`, with the options of `RedisOptions`."""
        return cls(Settings.read(url))

    async def start(self, *, node: bytes, layout: Layout, sink: TailSink) -> None:
        """Connect; return when publishing works."""
        if self._node is not None:
            raise BrokerError("this Redis broker is started already.", fix="use one broker object for each node")
        started = _Node(self._settings, node, layout, sink)
        await started.start()
        self._node = started

    async def stop(self, *, drain_s: float = 5.0) -> None:
        """Send what waits for at most `drain_s` seconds, then close both connections."""
        if (node := self._node) is None:
            return
        self._node = None
        await node.stop(drain_s)

    async def set_interest(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        """Tail exactly these partitions."""
        return await self._started().tail.follow(partitions)

    def publish(
        self,
        partition: int,
        topic: str,
        payload: bytes,
        *,
        history: History,
        key: str | None = None,
        deadline_s: float = 10.0,
    ) -> asyncio.Future[Receipt]:
        """Store and send in one script, together with what else is published in this tick."""
        if self._node is None:
            future: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
            future.set_exception(_closed())
            return future
        return self._node.publisher.publish(partition, topic, payload, history, key, deadline_s)

    async def read(
        self,
        partition: int,
        *,
        since: Offset,
        until: Offset,
        epoch: str,
        topics: Collection[str] | TopicMatch,
        limit: int,
        max_bytes: int,
    ) -> ReadResult:
        """Read what was missed, or say why it cannot be had."""
        return await self._started().reader.read(
            partition, since=since, until=until, epoch=epoch, topics=topics, limit=limit, max_bytes=max_bytes
        )

    async def heads(self, partitions: Collection[int]) -> Mapping[int, Head]:
        """Say where the logs end now."""
        return await self._started().reader.heads(partitions)

    async def send_control(self, payload: bytes) -> None:
        """Send to every started broker of the channel."""
        node = self._started()
        await node.commands().call("PUBLISH", node.names.control, node.id + payload)

    async def forget(self, topic: str) -> None:
        """Drop a topic's records; that they were there stays known."""
        node = self._started()
        await node.commands().call("DEL", node.names.base(partition_of(topic, node.names.layout)) + "h:" + topic)

    def _started(self) -> _Node:
        if self._node is None:
            raise _closed()
        return self._node

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._settings.shown} {'started' if self._node else 'stopped'}>"


class _Node:
    """A started broker."""

    def __init__(self, settings: Settings, node: bytes, layout: Layout, sink: TailSink) -> None:
        self.id = node
        self.names = Names(prefix=settings.options.prefix, layout=layout)
        self.publisher = Publisher(self.names, node, settings.options, settings.shown)
        self.reader = Reader(self.names, self.commands)
        self.tail = Tail(settings, self.names, sink, self.reader, self._probe, name=f"dws-tail-{node.hex()}")
        self.tail.on_control(self._on_control)
        self._settings = settings
        self._sink = sink
        self._commands: Commands | None = None
        self._ready = asyncio.Event()
        self._state: BrokerState = "connecting"
        self._running: asyncio.Task[None] | None = None
        self._first_error: BrokerError | None = None

    def commands(self) -> Commands:
        """Return the command connection.

        Raises:
            BrokerUnavailable: There is none at the moment.
        """
        if self._commands is None:
            raise BrokerUnavailable(f"{self._settings.shown} is away.", fix="it is being reconnected; try again")
        return self._commands

    async def start(self) -> None:
        """Make the first connections, then keep them.

        Raises:
            BrokerError: They could not be had.
        """
        commands = await self._connect()
        try:
            await self._check_layout(commands)
        except BaseException:
            await commands.close()
            raise
        self._commands = commands
        self._running = asyncio.get_running_loop().create_task(self._run(commands), name="dws redis")
        ready = asyncio.get_running_loop().create_task(self.tail.live.wait())
        try:
            async with asyncio.timeout(2 * self._settings.options.connect_timeout_s):
                await asyncio.wait({ready, self._running}, return_when=asyncio.FIRST_COMPLETED)
        except BaseException as error:
            await self.stop(0.0)
            if isinstance(error, TimeoutError):
                raise BrokerUnavailable(f"{self._settings.shown} takes no subscription.", fix="check it") from error
            raise
        finally:
            ready.cancel()

    async def stop(self, drain_s: float) -> None:
        """End everything."""
        await self.publisher.close(drain_s)
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        self._tell("closed", "stopped")

    async def _run(self, commands: Commands) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again(self._command_session, commands))
            group.create_task(self._again(self._tail_session, None))

    async def _again(self, session: Callable[[Commands | None], Awaitable[None]], first: Commands | None) -> None:
        """Hold a session after the other, for ever."""
        backoff = Backoff()
        given = first
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await session(given)
            except BrokerError as error:
                self._tell("degraded", str(error))
            except Exception:
                logger.exception("the connection to %s failed in an unexpected way", self._settings.shown)
                self._tell("degraded", "an unexpected failure; see the log")
            given = None
            if asyncio.get_running_loop().time() - began > 1.0:
                backoff.reset()
            await asyncio.sleep(backoff.next_s())

    async def _command_session(self, given: Commands | None) -> None:
        commands = given or await self._connect()
        self._commands = commands
        self.publisher.open(commands)
        self._probe(range(self.names.layout.partitions))  # whoever missed a new epoch hears of it
        try:
            self._look()
            await commands.lost.wait()
        finally:
            self._commands = None
            self.publisher.shut()
            await commands.close()
        self._tell("degraded", "the connection for commands was lost")

    async def _tail_session(self, given: Commands | None) -> None:
        watching = asyncio.get_running_loop().create_task(self._watch_live())
        try:
            await self.tail.session()
        finally:
            watching.cancel()
        self._tell("degraded", "the connection for messages was lost")

    async def _watch_live(self) -> None:
        await self.tail.live.wait()
        self._look()

    def _look(self) -> None:
        if self._commands is not None and self.tail.live.is_set():
            self._tell("live", f"connected to {self._settings.shown}")

    def _tell(self, state: BrokerState, detail: str) -> None:
        if state != self._state:
            self._state = state
            self._sink.on_state(state, detail)

    async def _connect(self) -> Commands:
        connection = await open_connection(self._settings, name=f"dws-{self.id.hex()}")
        commands = Commands(connection)
        try:
            async with asyncio.timeout(self._settings.options.connect_timeout_s):
                await prepare(commands, self.names, self._settings.options.trust_restart)
        except BaseException as error:
            await commands.close()
            if isinstance(error, TimeoutError):
                raise BrokerUnavailable(f"{self._settings.shown} does not answer.", fix="check that it runs") from error
            raise
        return commands

    async def _check_layout(self, commands: Commands) -> None:
        layout = self.names.layout
        mine = f"{layout.partitions} {layout.shard_levels}"
        if await commands.call("SET", self.names.shape, mine, "NX") is not None:
            return
        found = (await commands.call("GET", self.names.shape) or b"").decode()
        if found != mine:
            raise LayoutMismatch(
                f"channel {layout.channel!r} on {self._settings.shown} "
                f"has another layout: {found} (partitions, shard levels), not {mine}.",
                fix="give all nodes of a channel the same; to change it, stop them all and delete the key "
                + self.names.shape,
            )

    def _probe(self, partitions: Iterable[int]) -> None:
        commands, bases = self._commands, [self.names.base(number) for number in partitions]
        if commands is None:
            return
        if not bases:  # nothing is tailed: ask through the control channel, which always is
            commands.send(("PUBLISH", self.names.control, b""), lambda _: None)
        else:
            keys = [base + "m" for base in bases]
            commands.send(("EVALSHA", PROBE.digest, len(keys), *keys, self.id.hex(), *bases), lambda _: None)

    def _on_control(self, payload: bytes) -> None:
        if not payload:
            return  # a sign of life
        try:
            self._sink.on_control(payload[:_NODE_BYTES], payload[_NODE_BYTES:])
        except Exception:
            logger.exception("a control message could not be taken")


def _closed() -> BrokerClosed:
    return BrokerClosed("the Redis broker is not started.", fix="call start() first, and nothing after stop()")
