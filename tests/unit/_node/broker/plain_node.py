"""A plain broker that is adapted as a log, and a sink that stores its events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from support.timeouts import HANG_S

from dws_core._node.broker.plain_broker import AdaptedBroker
from dws_core.plugin import BrokerInterface, GapReason, Head, History, Layout, Receipt, Record


class Sink:
    """Stores every call."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.told: list[object] = []
        self._changed = asyncio.Event()

    def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: Sequence[Record]) -> None:
        assert (partition, epoch, lo, hi) == (0, "0", 0, 0)
        self.records += records
        self._changed.set()

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None:
        self.told.append((reason, head))

    def on_control(self, sender: bytes, payload: bytes) -> None:
        raise AssertionError("a plain broker carries no control messages")

    def on_state(self, state: str, detail: str) -> None:
        self.told.append(state)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(HANG_S):
            while not condition():
                await self._changed.wait()
                self._changed.clear()


class Node:
    """An adapted broker and its sink."""

    def __init__(self, inner: BrokerInterface) -> None:
        self.broker = AdaptedBroker(inner)
        self.sink = Sink()

    async def start(self) -> Node:
        await self.broker.start(node=b"12345678", layout=Layout(channel="chat"), sink=self.sink)
        return self

    def publish(self, payload: bytes = b"1 json\n1", topic: str = "t") -> asyncio.Future[Receipt]:
        return self.broker.publish(0, topic, payload, history=History())

    async def heard(self, count: int = 1) -> list[Record]:
        await self.sink.until(lambda: len(self.sink.records) >= count)
        return self.sink.records
