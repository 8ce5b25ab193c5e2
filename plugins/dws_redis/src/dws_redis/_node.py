"""A started broker: its servers, kept in step with where the partitions are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Final

from dws_core.plugin import (
    Backoff,
    BrokerError,
    BrokerState,
    BrokerUnavailable,
    Head,
    Layout,
    TailSink,
    TailState,
)
from dws_redis._connection import Commands
from dws_redis._format import Names
from dws_redis._publisher import Publisher
from dws_redis._reader import Reader
from dws_redis._settings import Address, Settings
from dws_redis._shard import Shard
from dws_redis._topology import locate

logger = logging.getLogger("dws.redis")

_NODE_BYTES: Final = 8


class Node:
    """A started broker.

    Args:
        settings: Where Redis is.
        node: Who this is.
        layout: The channel.
        sink: Who is told what comes.
    """

    def __init__(self, settings: Settings, node: bytes, layout: Layout, sink: TailSink) -> None:
        self.id = node
        self.names = Names(prefix=settings.prefix, layout=layout, spread=settings.kind == "cluster")
        self.publisher = Publisher(self.names, node, settings, self._on_memory)
        self.reader = Reader(self.names, self.commands)
        self._settings = settings
        self._sink = sink
        self._states: dict[int, TailState] = {}
        self._shards: dict[Address, Shard] = {}
        self._choosing = asyncio.Lock()  # the last choice wins, whatever the order in which they would be confirmed
        self._misplaced = asyncio.Event()
        self._all_live = asyncio.Event()
        self._told: tuple[BrokerState, str] = ("connecting", "")
        self._why = "it takes no subscription"
        self._full = False
        self._placing: asyncio.Task[None] | None = None

    def commands(self, partition: int) -> Commands:
        """Return the command connection to a partition's server.

        Raises:
            BrokerUnavailable: There is none at the moment.
        """
        shard = self._holder(partition)
        if shard is None or shard.commands is None:
            raise BrokerUnavailable(f"{self._settings.shown} is away.", fix="it is being reconnected; try again")
        return shard.commands

    async def follow(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        """Tail exactly these; return once each is live.

        Raises:
            BrokerUnavailable: A server is away.
        """
        async with self._choosing:
            for shard in list(self._shards.values()):
                await shard.tail.follow(partitions & shard.partitions)
            for number in self._states.keys() - partitions:  # held by nobody at the moment
                del self._states[number]
            if missing := sorted(partitions - self._states.keys()):
                raise BrokerUnavailable(
                    f"no server of {self._settings.shown} holds partitions {missing}.", fix="try again"
                )
            return {n: Head(partition=n, epoch=s.epoch, offset=s.watermark) for n, s in self._states.items()}

    async def send_control(self, payload: bytes) -> None:
        """Send to every started broker of the channel."""
        await self.commands(0).call(self._settings.publish, self.names.control(0), self.id + payload)

    async def start(self) -> None:
        """Make the first connections, then keep them.

        Raises:
            BrokerError: They could not be had.
        """
        try:
            for address, partitions in (await locate(self._settings, self.names)).items():
                self._shards[address] = self._shard(address, partitions)
            for shard in self._shards.values():
                await shard.connect()
            for shard in self._shards.values():
                shard.begin()
            async with asyncio.timeout(2 * self._settings.options.connect_timeout_s):
                await self._all_live.wait()
        except TimeoutError:
            await self.stop(0.0)
            raise BrokerUnavailable(
                f"{self._settings.shown} cannot be used: {self._why}.", fix="check the server, or all of them"
            ) from None
        except BaseException:
            await self.stop(0.0)
            raise
        if self._settings.kind != "server":
            self._placing = asyncio.get_running_loop().create_task(self._keep_placed(), name="dws redis placement")

    async def stop(self, drain_s: float) -> None:
        """End everything, also when this is cancelled."""
        try:
            await self.publisher.close(drain_s)
        finally:
            await asyncio.shield(asyncio.get_running_loop().create_task(self._end(), name="dws redis end"))

    async def _end(self) -> None:
        if self._placing is not None:
            self._placing.cancel()
            await asyncio.wait({self._placing})
        await asyncio.gather(*(shard.end() for shard in self._shards.values()))
        self._shards.clear()
        self._tell("closed", "stopped")

    # -- servers

    def _holder(self, partition: int) -> Shard | None:
        return next((shard for shard in self._shards.values() if partition in shard.partitions), None)

    def _shard(self, address: Address, partitions: frozenset[int]) -> Shard:
        return Shard(
            address,
            partitions,
            settings=self._settings,
            names=self.names,
            node=self.id,
            publisher=self.publisher,
            states=self._states,
            sink=self._sink,
            reader=self.reader,
            on_control=self._on_control,
            on_change=self._changed,
        )

    async def _keep_placed(self) -> None:
        """Ask anew where the partitions are whenever a connection was lost, and go there."""
        backoff = Backoff()
        while True:
            await self._misplaced.wait()
            self._misplaced.clear()
            try:
                await self._place(await locate(self._settings, self.names, tuple(self._shards)))
            except BrokerError as error:
                self._tell("degraded", str(error))
            except Exception:
                logger.exception("%s could not be asked where its data is", self._settings.shown)
            if self._is_live():
                backoff.reset()
            else:
                self._misplaced.set()
                await asyncio.sleep(backoff.next_s())

    async def _place(self, wanted: Mapping[Address, frozenset[int]]) -> None:
        stale = [shard for address, shard in self._shards.items() if wanted.get(address) != shard.partitions]
        await asyncio.gather(*(shard.end() for shard in stale))
        for shard in stale:
            del self._shards[shard.address]
        for address in wanted.keys() - self._shards.keys():
            shard = self._shards[address] = self._shard(address, wanted[address])
            shard.begin()

    # -- what the node is told

    def _is_live(self) -> bool:
        held: Iterable[int] = (n for shard in self._shards.values() if shard.is_live for n in shard.partitions)
        return len(set(held)) == self.names.layout.partitions

    def _changed(self, what: str | None) -> None:
        """Take it that a connection came or went."""
        if self._is_live():
            self._all_live.set()
            if self._full:
                self._tell("blocked", f"{self._settings.shown} is out of memory and takes no publishes")
            else:
                self._tell("live", f"connected to {self._settings.shown}")
            return
        self._all_live.clear()
        if what is not None:
            self._why = what
        if self._told[0] != "connecting":
            self._misplaced.set()
            self._tell("degraded", self._why)

    def _on_memory(self, full: bool) -> None:
        self._full = full
        self._changed(None)

    def _tell(self, state: BrokerState, detail: str) -> None:
        if (state, detail) != self._told:
            self._told = state, detail
            self._sink.on_state(state, detail)

    def _on_control(self, payload: bytes) -> None:
        try:
            self._sink.on_control(payload[:_NODE_BYTES], payload[_NODE_BYTES:])
        except Exception:
            logger.exception("a control message could not be taken")
