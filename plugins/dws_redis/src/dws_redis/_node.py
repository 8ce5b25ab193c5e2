"""A started broker: the servers that hold the partitions, and the state that the node reports."""

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
        settings: Location of the servers, and options.
        node: Id of the node.
        layout: Layout of the channel.
        sink: Receives the records, gaps, control messages and states.
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
        self._follow_lock = asyncio.Lock()  # the last follow() wins, even if Redis confirms an earlier one later
        self._placement_stale = asyncio.Event()
        self._all_live = asyncio.Event()
        self._reported_state: tuple[BrokerState, str] = ("connecting", "")
        self._problem = "it accepts no subscription"
        self._out_of_memory = False
        self._placement_task: asyncio.Task[None] | None = None

    def commands(self, partition: int) -> Commands:
        """Return the command connection to a partition's server.

        Raises:
            BrokerUnavailable: There is no connection at the moment.
        """
        shard = self._shard_of(partition)
        if shard is None or shard.commands is None:
            raise BrokerUnavailable(
                f"{self._settings.masked_url} is unavailable.", fix="try again, the node is reconnecting"
            )
        return shard.commands

    async def follow(self, partitions: frozenset[int]) -> Mapping[int, Head]:
        """Tail exactly these partitions. Return once each tail is live.

        Raises:
            BrokerUnavailable: A server is unavailable.
        """
        async with self._follow_lock:
            for shard in list(self._shards.values()):
                await shard.tail.follow(partitions & shard.partitions)
            for number in self._states.keys() - partitions:  # no server holds these at the moment
                del self._states[number]
            if missing := sorted(partitions - self._states.keys()):
                raise BrokerUnavailable(
                    f"no server of {self._settings.masked_url} holds partitions {missing}.", fix="try again"
                )
            return {n: Head(partition=n, epoch=s.epoch, offset=s.watermark) for n, s in self._states.items()}

    async def send_control(self, payload: bytes) -> None:
        """Send to every started broker of the channel."""
        await self.commands(0).call(self._settings.publish_command, self.names.control_channel(0), self.id + payload)

    async def start(self) -> None:
        """Open the first connections. From then on, replace lost ones.

        Raises:
            BrokerError: A connection failed.
        """
        try:
            for address, partitions in (await locate(self._settings, self.names)).items():
                self._shards[address] = self._create_shard(address, partitions)
            for shard in self._shards.values():
                await shard.connect()
            for shard in self._shards.values():
                shard.start()
            async with asyncio.timeout(2 * self._settings.options.connect_timeout_s):
                await self._all_live.wait()
        except TimeoutError:
            await self.stop(0.0)
            raise BrokerUnavailable(
                f"{self._settings.masked_url} cannot be used: {self._problem}.", fix="check the servers of this URL"
            ) from None
        except BaseException:
            await self.stop(0.0)
            raise
        if self._settings.kind != "server":
            self._placement_task = asyncio.get_running_loop().create_task(
                self._follow_moves(), name="dws redis placement"
            )

    async def stop(self, drain_s: float) -> None:
        """End all connections and tasks, even if this call is cancelled."""
        try:
            await self.publisher.close(drain_s)
        finally:
            await asyncio.shield(asyncio.get_running_loop().create_task(self._stop_shards(), name="dws redis stop"))

    async def _stop_shards(self) -> None:
        if self._placement_task is not None:
            self._placement_task.cancel()
            await asyncio.wait({self._placement_task})
        await asyncio.gather(*(shard.stop() for shard in self._shards.values()))
        self._shards.clear()
        self._report_state("closed", "stopped")

    # -- servers

    def _shard_of(self, partition: int) -> Shard | None:
        return next((shard for shard in self._shards.values() if partition in shard.partitions), None)

    def _create_shard(self, address: Address, partitions: frozenset[int]) -> Shard:
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
            on_change=self._on_change,
        )

    async def _follow_moves(self) -> None:
        """Locate the partitions again whenever a connection was lost, and connect to their servers."""
        backoff = Backoff()
        while True:
            await self._placement_stale.wait()
            self._placement_stale.clear()
            try:
                await self._replace_shards(await locate(self._settings, self.names, tuple(self._shards)))
            except BrokerError as error:
                self._report_state("degraded", str(error))
            except Exception:
                logger.exception("failed to locate the partitions on %s, trying again", self._settings.masked_url)
            if self._is_live():
                backoff.reset()
            else:
                self._placement_stale.set()
                await asyncio.sleep(backoff.next_s())

    async def _replace_shards(self, wanted: Mapping[Address, frozenset[int]]) -> None:
        stale = [shard for address, shard in self._shards.items() if wanted.get(address) != shard.partitions]
        await asyncio.gather(*(shard.stop() for shard in stale))
        for shard in stale:
            del self._shards[shard.address]
        for address in wanted.keys() - self._shards.keys():
            shard = self._shards[address] = self._create_shard(address, wanted[address])
            shard.start()

    # -- reported state

    def _is_live(self) -> bool:
        held: Iterable[int] = (n for shard in self._shards.values() if shard.is_live for n in shard.partitions)
        return len(set(held)) == self.names.layout.partitions

    def _on_change(self, problem: str | None) -> None:
        """Report the new state after a connection was opened (None) or lost."""
        if self._is_live():
            self._all_live.set()
            self._report_live()
            return
        self._all_live.clear()
        if problem is not None:
            self._problem = problem
        if self._reported_state[0] != "connecting":
            self._placement_stale.set()
            self._report_state("degraded", self._problem)

    def _report_live(self) -> None:
        url = self._settings.masked_url
        if self._out_of_memory:
            self._report_state("blocked", f"{url} is out of memory and accepts no publishes")
        else:
            self._report_state("live", f"connected to {url}")

    def _on_memory(self, full: bool) -> None:
        self._out_of_memory = full
        self._on_change(None)

    def _report_state(self, state: BrokerState, detail: str) -> None:
        if (state, detail) != self._reported_state:
            self._reported_state = state, detail
            self._sink.on_state(state, detail)

    def _on_control(self, payload: bytes) -> None:
        try:
            self._sink.on_control(payload[:_NODE_BYTES], payload[_NODE_BYTES:])
        except Exception:
            logger.exception("a tail sink of dws failed on a control message")
