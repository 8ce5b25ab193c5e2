from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from support.stream_nodes import TroubledWire, Troubles, VirtualClock
from support.streams import MemoryServer
from support.virtual_time import virtual

from dws_core._log.records import Layout
from dws_core._log.stream.envelope import Draft, decode
from dws_core._log.stream.io.appender import Appender
from dws_core._log.stream.io.host import Log, Ticket
from dws_core._log.stream.partition_log import PartitionEvent, PartitionLog
from dws_core._log.stream.publishing import Failure, Place, PublishQueue, Waiting, most_bytes
from dws_core._log.stream.settings import StreamSettings
from dws_core._log.stream.wire import WireBlocked, WireInfo, WireLost, WireRefused


class Node:
    """A host with one partition that is open for publishing, and an appender."""

    def __init__(self, **settings: float) -> None:
        self.settings = StreamSettings(**{"envelope_records": 1} | settings)  # type: ignore[arg-type]
        self.layout = Layout(channel="c")
        self.clock = VirtualClock()
        self.log: Log = PartitionLog(0, b"node-me.", PublishQueue(self.settings))
        self.logs = [self.log]
        self.wire = TroubledWire(MemoryServer(), Troubles())
        self.outcomes: list[object] = []
        self.blocked: list[str | None] = []
        self.alive = 0
        self.tasks: list[asyncio.Task[None]] = []
        self.is_ending = self.is_started = False
        self.appender = Appender(self, self.wire, spawn=self._spawn, is_alive=self._is_alive)

    async def open(self) -> Node:
        await self.wire.open(self.layout, append_timeout_s=1.0)
        self.log.queue.opened(again=False)
        return self

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> bool:
        if self.is_ending:
            coroutine.close()
        else:
            self.tasks.append(asyncio.get_running_loop().create_task(coroutine, name=name))
        return not self.is_ending

    def _is_alive(self, log: Log) -> None:
        self.alive += 1

    def add(self, payload: bytes) -> None:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        place = Place(payload, 1)
        draft = Draft("t", payload, 1, 1)
        item = Waiting(Ticket(future, "t", 0, place), draft, 99.0, most_bytes(draft), place)
        assert self.log.queue.add(item)

    async def flushed(self) -> list[BaseException]:
        """Flush, wait until all tasks have ended, and return their errors."""
        self.appender.flush(self.log)
        while waiting := [task for task in self.tasks if not task.done()]:
            await asyncio.wait(waiting)
        errors = [error for task in self.tasks if (error := task.exception())]
        self.tasks.clear()
        return errors

    @property
    def stored(self) -> list[bytes]:
        return [draft.payload for data in self.wire.streams[0].records for draft in decode(data).drafts]

    def on_open(self, info: WireInfo) -> None: ...

    def on_events(self, log: Log, events: list[PartitionEvent]) -> None: ...

    def on_control(self, data: bytes) -> None: ...

    def on_outcomes(self, outcomes: list[tuple[Ticket, Any]]) -> None:
        self.outcomes += [outcome for _, outcome in outcomes]

    def on_catching_up(self) -> None: ...

    def on_lag(self, log: Log, *, is_behind: bool) -> None: ...

    def on_blocked(self, reason: str | None) -> None:
        self.blocked.append(reason)


@virtual
async def test_waiting_publishes_are_appended_in_order() -> None:
    node = await Node().open()
    for payload in (b"a", b"b", b"c"):
        node.add(payload)
    assert await node.flushed() == []
    assert node.stored == [b"a", b"b", b"c"]
    assert node.blocked == [None, None, None]


@virtual
async def test_envelope_without_its_failed_publishes_is_sent() -> None:
    """They fail after the envelope was formed, and before it is passed to the wire."""
    node = await Node(envelope_records=2).open()
    for payload in (b"a", b"b"):
        node.add(payload)
    node.appender.flush(node.log)
    node.log.queue.fail_after({b"b": 0})
    assert await node.flushed() == []
    assert node.stored == [b"a"]
    assert node.wire.streams[0].records[0].count(b"b") == 0


@virtual
async def test_refused_envelope_does_not_stop_the_next() -> None:
    node = await Node().open()
    node.wire.troubles.next["append"].append(WireRefused("too large"))
    node.add(b"a")
    node.add(b"b")
    assert await node.flushed() == []
    assert node.outcomes == [Failure.UNSENT]
    assert node.stored == [b"b"]


@virtual
async def test_blocked_broker_gets_the_next_append_later() -> None:
    node = await Node(retry_s=0.5).open()
    node.wire.troubles.next["append"] += [WireBlocked("an alarm")] * 2
    node.add(b"a")
    await node.flushed()
    assert node.blocked == ["an alarm"]
    node.add(b"b")
    await node.flushed()
    assert node.stored == [], "it pauses"
    await asyncio.sleep(0.6)
    assert node.blocked == ["an alarm", "an alarm"]
    await asyncio.sleep(0.6)
    await node.flushed()
    assert node.stored == [b"a", b"b"]
    assert node.blocked[-1] is None


@virtual
async def test_lost_append_ends_the_session() -> None:
    for sent, outcome in ((False, Failure.UNSENT), (True, Failure.UNKNOWN)):
        node = await Node().open()
        node.wire.troubles.next["append"].append(WireLost("cut", sent=sent))
        node.add(b"a")
        (error,) = await node.flushed()
        assert isinstance(error, WireLost)
        assert [found for _, found in node.log.queue.drain()] == [outcome]


@virtual
async def test_nothing_is_sent_after_a_lost_append() -> None:
    """A client library may confirm appends on a broken channel that it does not store."""
    node = await Node().open()
    node.add(b"f")
    await node.flushed()
    node.wire.troubles.next["append"].append(WireLost("cut"))
    for payload in (b"a", b"b", b"c"):
        node.add(payload)
    assert len(await node.flushed()) == 1
    assert node.stored == [b"f"]
    node.log.lost()
    assert [outcome for _, outcome in node.log.queue.drain()] == [
        Failure.UNKNOWN,
        Failure.UNKNOWN,
        Failure.UNSENT,
        Failure.UNSENT,
    ]


@virtual
async def test_publish_that_meets_an_ending_session_is_not_sent() -> None:
    node = await Node().open()
    node.is_ending = True
    node.add(b"a")
    await node.flushed()
    assert node.stored == []
    assert [outcome for _, outcome in node.log.queue.drain()] == [Failure.UNSENT]


@virtual
async def test_offset_that_was_seen_before_ends_the_session() -> None:
    """The stream was set back: an append returns an offset that the tail has passed."""
    node = await Node().open()
    node.log.begin(None)
    node.log.feed(7, node.log.control(1, b""), lambda: b"e" * 8, 1)
    with pytest.raises(WireLost, match="set back or replaced"):
        await node.appender.append(node.log, b"x")


@virtual
async def test_blocked_probe_shows_that_the_broker_is_there() -> None:
    node = await Node().open()
    node.wire.troubles.next["append"].append(WireBlocked("an alarm"))
    await node.appender.write(node.log, b"probe")
    assert (node.alive, node.blocked) == (1, ["an alarm"])
    await node.appender.write(node.log, b"probe")
    assert (node.alive, node.blocked) == (1, ["an alarm", None])
