"""How a node hears of what is stored: one subscribed connection, which is watched, replaced, and caught up behind.

What is pushed may have holes; `TailState` knows them, and the log fills them. A connection that says nothing is asked through
the log itself for where it ends: that proves both that the connection lives and that the last message came.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import hiredis

from dws_core.plugin import BrokerError, BrokerUnavailable, GapReason, Head, TailEvent, TailSink, TailState, Watchdog
from dws_redis._connection import Wire, open_connection
from dws_redis._format import Names, Push, read_push
from dws_redis._reader import Reader
from dws_redis._settings import Settings

logger = logging.getLogger("dws.redis")

_CATCH_UP_RECORDS: Final = 100_000
_CATCH_UP_BYTES: Final = 67_108_864


class Tail:
    """The tails of one node.

    Args:
        settings: Where Redis is.
        names: Keys and channels.
        sink: Who is told.
        reader: Reads what was missed.
        probe: Asks the log for a sign of life; goes nowhere while the command connection is away.
        name: Of the connection, as Redis lists it.
    """

    def __init__(
        self,
        settings: Settings,
        names: Names,
        sink: TailSink,
        reader: Reader,
        probe: Callable[[Iterable[int]], None],
        *,
        name: str,
    ) -> None:
        self._settings = settings
        self._names = names
        self._sink = sink
        self._reader = reader
        self._probe = probe
        self._name = name
        self._wire: Wire | None = None
        self._watchdog: Watchdog | None = None
        self._states: dict[int, TailState] = {}
        self._early: dict[int, list[Push]] = {}  # what came before a partition's baseline was known
        self._partition_of = {names.pushes(n).encode(): n for n in range(names.layout.partitions)}
        self._confirmed: dict[bytes, asyncio.Future[None]] = {}
        self._choosing = asyncio.Lock()  # the last choice wins, whatever the order in which they would be confirmed
        self._holes = asyncio.Event()
        self._on_control: Callable[[bytes], None] | None = None
        self.live: asyncio.Event = asyncio.Event()

    def on_control(self, take: Callable[[bytes], None]) -> None:
        """Choose who takes control messages."""
        self._on_control = take

    async def follow(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        """Tail exactly these; return once each is live.

        Raises:
            BrokerUnavailable: The connection is away.
        """
        async with self._choosing:
            for number in self._states.keys() - partitions:
                del self._states[number]
                self._write("UNSUBSCRIBE", self._names.pushes(number))
            new = sorted(partitions - self._states.keys())
            if new:
                await self._begin(new)
            return {n: Head(partition=n, epoch=s.epoch, offset=s.watermark) for n, s in self._states.items()}

    async def session(self) -> None:
        """Connect, catch up and stay until the connection is lost.

        Raises:
            BrokerError: It could not be had.
        """
        connection = await open_connection(self._settings, name=self._name)
        self._wire = wire = Wire(connection, self._heard)
        self._watchdog = self._new_watchdog()
        try:
            async with asyncio.timeout(self._settings.options.connect_timeout_s):
                await self._subscribe(self._names.control, *(self._names.pushes(n) for n in self._states))
            for state in self._states.values():
                state.interrupted()
            await self._fill_holes()
            self.live.set()
            await self._watch(wire)
        except TimeoutError:
            raise BrokerUnavailable("Redis does not confirm a subscription.") from None
        finally:
            self.live.clear()
            self._wire = None
            for confirmed in self._confirmed.values():
                confirmed.cancel()
            self._confirmed.clear()
            await wire.close()

    # -- while it lives

    async def _watch(self, wire: Wire) -> None:
        async with asyncio.TaskGroup() as group:
            filling = group.create_task(self._keep_filling(wire))
            try:
                while not wire.lost.is_set():
                    await self._look(wire)
            finally:
                filling.cancel()

    async def _look(self, wire: Wire) -> None:
        loop = asyncio.get_running_loop()
        watchdog = self._watchdog or self._new_watchdog()
        try:
            async with asyncio.timeout_at(watchdog.look_at):
                await wire.lost.wait()
        except TimeoutError:
            verdict = watchdog.check(loop.time())
            if verdict == "probe":
                self._probe(self._states)
            elif verdict == "dead":
                logger.warning("%s says nothing; the connection is cut", self._settings.shown)
                wire.abort()

    async def _keep_filling(self, wire: Wire) -> None:
        while True:
            await self._holes.wait()
            self._holes.clear()
            try:
                await self._fill_holes()
            except BrokerError as error:
                logger.warning("what was missed cannot be read: %s", error)
                wire.abort()
                return

    async def _fill_holes(self) -> None:
        for partition, state in list(self._states.items()):
            while state.needs_catch_up:
                await self._catch_up(partition, state)

    async def _catch_up(self, partition: int, state: TailState) -> None:
        epoch, watermark = state.start_catch_up()
        try:
            head = (await self._reader.heads((partition,)))[partition]
            if head.epoch != epoch or head.offset < watermark:
                self._tell(state.caught_up(head, ()))
                return
            found = await self._reader.read(
                partition,
                since=watermark,
                until=head.offset,
                epoch=epoch,
                topics=_every,
                limit=_CATCH_UP_RECORDS,
                max_bytes=_CATCH_UP_BYTES,
            )
        except BaseException:
            state.interrupted()
            raise
        if found.gap is None:
            self._tell(state.caught_up(head, found.records))
        elif found.gap is GapReason.EPOCH:
            state.interrupted()  # it changed meanwhile: ask again
        else:
            self._tell(state.give_up(found.gap, head))

    # -- what comes

    def _heard(self, reply: Any) -> None:
        if isinstance(reply, hiredis.ReplyError) or not isinstance(reply, list):
            logger.warning("unexpected answer on the subscribed connection: %r", reply)
            return
        kind, channel, payload = reply[0], reply[1], reply[2]
        if kind == b"message":
            self._took(channel, payload)
        elif kind == b"subscribe" and (confirmed := self._confirmed.pop(channel, None)) and not confirmed.done():
            confirmed.set_result(None)

    def _took(self, channel: bytes, payload: bytes) -> None:
        if self._watchdog is not None:
            self._watchdog.heard(asyncio.get_running_loop().time())
        partition = self._partition_of.get(channel)
        if partition is None:
            if self._on_control is not None:
                self._on_control(payload)
            return
        try:
            push = read_push(payload)
        except (ValueError, IndexError):
            logger.exception("no dws message on channel %r: %d bytes", channel, len(payload))
            return
        if (state := self._states.get(partition)) is not None:
            self._push(state, push)
        elif partition in self._early:
            self._early[partition].append(push)

    def _push(self, state: TailState, push: Push) -> None:
        self._tell(state.push(push.epoch, push.lo, push.hi, push.records))
        if state.needs_catch_up:
            self._holes.set()

    def _tell(self, events: list[TailEvent]) -> None:
        for event in events:
            try:
                event.tell(self._sink)
            except Exception:
                logger.exception("a tail sink of dws failed")

    # -- subscribing

    async def _begin(self, partitions: list[int]) -> None:
        if self._wire is None:
            raise BrokerUnavailable(f"{self._settings.shown} is away.", fix="try again")
        for number in partitions:
            self._early[number] = []
        try:
            async with asyncio.timeout(self._settings.options.connect_timeout_s):
                await self._subscribe(*(self._names.pushes(number) for number in partitions))
                heads = await self._reader.heads(partitions)
        except (TimeoutError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and (task := asyncio.current_task()) and task.cancelling():
                raise
            raise BrokerUnavailable("the connection to Redis was lost while subscribing.", fix="try again") from None
        finally:
            early = {number: self._early.pop(number) for number in partitions}
        for number in partitions:
            state = self._states[number] = TailState(heads[number])
            for push in early[number]:
                self._push(state, push)

    async def _subscribe(self, *channels: str) -> None:
        loop = asyncio.get_running_loop()
        waits = [self._confirmed.setdefault(channel.encode(), loop.create_future()) for channel in channels]
        self._write("SUBSCRIBE", *channels)
        await asyncio.gather(*waits)

    def _write(self, *command: str) -> None:
        if self._wire is not None:
            packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub says a tuple of one
            self._wire.write(packed)

    def _new_watchdog(self) -> Watchdog:
        options = self._settings.options
        return Watchdog(asyncio.get_running_loop().time(), probe_s=options.probe_s, dead_s=options.dead_s)


def _every(topic: str) -> bool:
    return True
