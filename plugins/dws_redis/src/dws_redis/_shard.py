"""One server, its partitions, and two permanent connections to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from dws_core.plugin import Backoff, BrokerError, BrokerUnavailable, TailSink, TailState
from dws_redis._connection import Commands, describe_server, ignore_reply, open_connection
from dws_redis._fence import LogPosition, is_same_server, prepare
from dws_redis._format import Names
from dws_redis._publisher import Publisher
from dws_redis._reader import Reader
from dws_redis._scripts import PROBE
from dws_redis._settings import Address, Settings
from dws_redis._subscription import Subscription
from dws_redis._tail import Tail

logger = logging.getLogger("dws.redis")

_STABLE_S = 1.0
"""After a connection that lasted this long, in seconds, the next pause before an attempt is as short as the first."""


class Shard:
    """A server and its partitions.

    Args:
        address: Address of the server.
        partitions: The partitions that the server holds. If they change, a new shard replaces this one.
        settings: Login, timeouts and kind of the server.
        names: Names of keys and channels.
        node: Id of the node.
        publisher: Resumed when the command connection is open, and suspended when it is lost.
        states: States of the node's tails, by partition.
        sink: Receives the records and gaps.
        reader: Reads missed records.
        on_control: Called with each control message.
        on_change: Called with None when a connection is open, and with the problem when it is lost.
    """

    def __init__(
        self,
        address: Address,
        partitions: frozenset[int],
        *,
        settings: Settings,
        names: Names,
        node: bytes,
        publisher: Publisher,
        states: dict[int, TailState],
        sink: TailSink,
        reader: Reader,
        on_control: Callable[[bytes], None],
        on_change: Callable[[str | None], None],
    ) -> None:
        self.address = address
        self.partitions = partitions
        self.commands: Commands | None = None
        self.tail = Tail(settings, names, partitions, states, sink, reader, self, on_control)
        self._settings = settings
        self._names = names
        self._states = states
        self._id = node.hex()
        self._publisher = publisher
        self._on_change = on_change
        self._first_commands: Commands | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def is_live(self) -> bool:
        """Whether both connections work and all missed records were delivered."""
        return self.commands is not None and self.tail.live.is_set()

    async def connect(self) -> None:
        """Open the command connection before `start`, so that a failure raises.

        Raises:
            BrokerError: The connection failed.
        """
        self._first_commands = await self._open()

    def start(self) -> None:
        """Start the task that opens both connections, and opens them again when they are lost."""
        self._running = asyncio.get_running_loop().create_task(self._run(), name=f"dws redis {self.address}")

    async def stop(self) -> None:
        """Close both connections."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        if (commands := self._first_commands) is not None:
            self._first_commands = None
            await commands.close()

    def probe(self, partitions: Iterable[int]) -> None:
        """Publish the end of each log on its channel. Without partitions, publish on the control channel."""
        if (commands := self.commands) is None:
            return
        bases, publish = [self._names.base(number) for number in partitions], self._settings.publish_command
        if not bases:
            commands.send((publish, self._names.control_channel(min(self.partitions)), b""), ignore_reply)
        elif self._settings.kind == "cluster":  # one call for each, because their slots may differ
            for base in bases:
                commands.send(("EVALSHA", PROBE.digest, 1, base + "m", self._id, publish, base), ignore_reply)
        else:
            keys = [base + "m" for base in bases]
            commands.send(("EVALSHA", PROBE.digest, len(keys), *keys, self._id, publish, *bases), ignore_reply)

    async def open_subscription(self, on_message: Callable[[bytes, bytes], None]) -> Subscription:
        """Open the connection of the tail."""
        connection = await open_connection(self._settings, self.address, name=f"dws-tail-{self._id}")
        return Subscription(connection, self._settings, on_message)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(self._hold_commands))
            group.create_task(self._repeat(self._hold_tail))

    async def _repeat(self, session: Callable[[], Awaitable[None]]) -> None:
        """Run one session after another, forever."""
        backoff, loop = Backoff(), asyncio.get_running_loop()
        while True:
            began = loop.time()
            await self._run_once(session)
            if loop.time() - began > _STABLE_S:
                backoff.reset()
            await asyncio.sleep(backoff.next_s())

    async def _run_once(self, session: Callable[[], Awaitable[None]]) -> None:
        try:
            await session()
        except BrokerError as error:
            self._on_change(str(error))
        except Exception:
            logger.exception("the connection to %s failed unexpectedly, trying again", self._settings.masked_url)
            self._on_change("an unexpected failure, see the log")

    async def _hold_commands(self) -> None:
        commands, self._first_commands = self._first_commands or await self._open(), None
        self.commands = commands
        try:
            self._publisher.resume(commands, self.partitions)
            self.probe(self.partitions)  # informs tails that missed a new epoch
            self._on_change(None)
            await commands.watch(lambda: self._check_server(commands))
        finally:
            self.commands = None
            self._publisher.suspend(self.partitions)
            await commands.close()
        self._on_change("the command connection was lost")

    def _check_server(self, commands: Commands) -> None:
        """Request the replication state of the server, and check whether it has memory again."""

        def on_reply(reply: object) -> None:
            if not isinstance(reply, bytes):
                return  # lost, or an error: the connection is cut if no good reply follows in time
            if is_same_server(commands.incarnation, reply):
                commands.confirm_alive()
            else:
                logger.warning(
                    "%s was a replica in the meantime and may have lost messages, so its connections are opened again",
                    describe_server(self._settings, self.address),
                )
                commands.abort()
                self.tail.abort()

        commands.send(("INFO", "replication"), on_reply)
        self._publisher.check_memory(commands, self.partitions)

    async def _hold_tail(self) -> None:
        watching = asyncio.get_running_loop().create_task(self._report_when_live())
        try:
            await self.tail.session()
        finally:
            watching.cancel()
        self._on_change("the subscribed connection was lost")

    async def _report_when_live(self) -> None:
        await self.tail.live.wait()
        self._on_change(None)

    async def _open(self) -> Commands:
        connection = await open_connection(self._settings, self.address, name=f"dws-{self._id}")
        commands = Commands(connection, self._settings)
        try:
            async with asyncio.timeout(self._settings.options.connect_timeout_s):
                commands.incarnation = await prepare(
                    commands, self._settings, self._names, self.partitions, self._seen_positions
                )
        except BaseException as error:
            await commands.close()
            if isinstance(error, TimeoutError):
                raise BrokerUnavailable(
                    f"{describe_server(self._settings, self.address)} does not reply.",
                    fix="check that Redis runs there",
                ) from error
            raise
        return commands

    def _seen_positions(self, partition: int) -> list[LogPosition]:
        """Return the last positions of a log that its tail and the publisher have seen. Their epochs may differ."""
        state, stored = self._states.get(partition), self._publisher.last_stored(partition)
        tailed = [(state.epoch, state.watermark)] if state is not None else []
        return tailed + ([stored] if stored is not None else [])
