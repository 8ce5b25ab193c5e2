"""One server, the partitions that it holds, and the two connections to it that are kept alive."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from dws_core.plugin import Backoff, BrokerError, BrokerUnavailable, TailSink, TailState
from dws_redis._connection import Commands, ignore, open_connection, show
from dws_redis._fence import Place, is_still, prepare
from dws_redis._format import Names
from dws_redis._publisher import Publisher
from dws_redis._reader import Reader
from dws_redis._scripts import PROBE
from dws_redis._settings import Address, Settings
from dws_redis._subscription import Subscription
from dws_redis._tail import Tail

logger = logging.getLogger("dws.redis")

_STABLE_S = 1.0
"""A connection that lasted so long makes the next attempt start from the shortest pause."""


class Shard:
    """A server and its partitions.

    Args:
        address: Of the server.
        partitions: Those that it holds; when they change, this is another shard.
        settings: How to connect.
        names: Keys and channels.
        node: Who this is.
        publisher: Told when there is a connection to publish over.
        states: Of the node's tails.
        sink: Told what the tails hear.
        reader: Reads what was missed.
        on_control: Takes control messages.
        on_change: Called whenever a connection comes or goes, with what was wrong; None: it came.
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
        self._given: Commands | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def is_live(self) -> bool:
        """Whether both connections work, and everything that was missed has come."""
        return self.commands is not None and self.tail.live.is_set()

    async def connect(self) -> None:
        """Open the connection for commands before `begin`, to learn whether it can be had.

        Raises:
            BrokerError: It cannot.
        """
        self._given = await self._open()

    def begin(self) -> None:
        """Keep both connections alive from now on."""
        self._running = asyncio.get_running_loop().create_task(self._run(), name=f"dws redis {self.address}")

    async def end(self) -> None:
        """Close both connections."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        if (given := self._given) is not None:
            self._given = None
            await given.close()

    def probe(self, partitions: Iterable[int]) -> None:
        """Have the server say through each log where it ends; through its control channel, if none is given."""
        if (commands := self.commands) is None:
            return
        bases, verb = [self._names.base(number) for number in partitions], self._settings.publish
        if not bases:
            commands.send((verb, self._names.control(min(self.partitions)), b""), ignore)
        elif self._settings.kind == "cluster":  # one call for each: they may be of several slots
            for base in bases:
                commands.send(("EVALSHA", PROBE.digest, 1, base + "m", self._id, verb, base), ignore)
        else:
            keys = [base + "m" for base in bases]
            commands.send(("EVALSHA", PROBE.digest, len(keys), *keys, self._id, verb, *bases), ignore)

    async def subscribed(self, take: Callable[[bytes, bytes], None]) -> Subscription:
        """Open the connection of the tail."""
        connection = await open_connection(self._settings, self.address, name=f"dws-tail-{self._id}")
        return Subscription(connection, self._settings, take)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again(self._command))
            group.create_task(self._again(self._listen))

    async def _again(self, session: Callable[[], Awaitable[None]]) -> None:
        """Hold a session after the other, for ever."""
        backoff, loop = Backoff(), asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                await session()
            except BrokerError as error:
                self._on_change(str(error))
            except Exception:
                logger.exception("the connection to %s failed in an unexpected way", self._settings.shown)
                self._on_change("an unexpected failure; see the log")
            if loop.time() - began > _STABLE_S:
                backoff.reset()
            await asyncio.sleep(backoff.next_s())

    async def _command(self) -> None:
        commands, self._given = self._given or await self._open(), None
        self.commands = commands
        try:
            self._publisher.open(commands, self.partitions)
            self.probe(self.partitions)  # whoever missed a new epoch hears of it
            self._on_change(None)
            await commands.watch(lambda: self._ask_how_it_is(commands))
        finally:
            self.commands = None
            self._publisher.shut(self.partitions)
            await commands.close()
        self._on_change("the connection for commands was lost")

    def _ask_how_it_is(self, commands: Commands) -> None:
        """Ask whether the server is still what it was, and has memory again."""

        def take(answer: object) -> None:
            if not isinstance(answer, bytes):
                return  # lost, or refused: silence ends in a cut
            if is_still(commands.incarnation, answer):
                commands.heard()
            else:
                logger.warning("%s is no longer the server that it was", show(self._settings, self.address))
                commands.abort()
                self.tail.abort()

        commands.send(("INFO", "replication"), take)
        self._publisher.ask_for_memory(commands, self.partitions)

    async def _listen(self) -> None:
        watching = asyncio.get_running_loop().create_task(self._tell_when_live())
        try:
            await self.tail.session()
        finally:
            watching.cancel()
        self._on_change("the connection for messages was lost")

    async def _tell_when_live(self) -> None:
        await self.tail.live.wait()
        self._on_change(None)

    async def _open(self) -> Commands:
        connection = await open_connection(self._settings, self.address, name=f"dws-{self._id}")
        commands = Commands(connection, self._settings)
        try:
            async with asyncio.timeout(self._settings.options.connect_timeout_s):
                commands.incarnation = await prepare(commands, self._settings, self._names, self.partitions, self._seen)
        except BaseException as error:
            await commands.close()
            if isinstance(error, TimeoutError):
                raise BrokerUnavailable(
                    f"{show(self._settings, self.address)} does not answer.", fix="check that it runs"
                ) from error
            raise
        return commands

    def _seen(self, partition: int) -> list[Place]:
        """Return the furthest places of a log that its tail and the publisher have seen; they may be in different epochs."""
        state, given = self._states.get(partition), self._publisher.furthest(partition)
        return ([(state.epoch, state.watermark)] if state is not None else []) + ([given] if given is not None else [])
