"""Nodes, publishers and roaming clients on one simulated broker, in virtual time."""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field

from simulation.loop import VirtualLoop, end
from simulation.oracle import Call, Part, find_problems
from simulation.plan import FAULT_S, NODES, Plan
from simulation.server import ControlWire, Habits, SimulatedServer, SimulatedWire, Troubles

from dws_core._log.stream import dedupe, lookback
from dws_core._log.stream.io.broker import StreamLogBroker
from dws_core._log.stream.io.clock import Clock
from dws_core._log.stream.wire import StreamWire
from dws_core.plugin import (
    BrokerError,
    BrokerURL,
    GapReason,
    Head,
    History,
    Layout,
    LogCapabilities,
    PublishOutcomeUnknown,
    ReadSpan,
    Record,
)

_URL = BrokerURL.parse("sim://world")
_HEAL_S = 60.0
_NOTICE_S = 6.0
"""Time in which every node has noticed the last fault."""

_HISTORIES = (History(size=500), History(size=500), History(size=500), History(size=2), History.none())
REPEAT_S = 1.5
"""How long an application repeats a publish under its key: much shorter than the window of keys."""
RETENTION_S = 12.0
"""What the broker keeps at least. As in reality, more than the window of keys."""
_START_MS = 1_800_000_000_000


class SimClock(Clock):
    """Virtual time, with an offset that jumps, and random numbers of the seed."""

    def __init__(self, loop: VirtualLoop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return _START_MS + int(self.loop.now * 1000) + self.ahead_ms

    def new_epoch(self) -> bytes:
        return self.rng.randbytes(8)


class SimBroker(StreamLogBroker):
    """The broker of one node."""

    capabilities = LogCapabilities()

    def __init__(self, server: SimulatedServer, number: int, clock: SimClock, controls: bool) -> None:
        super().__init__(_URL)
        self._clock = clock
        self._server, self._number, self._controls = server, number, controls
        self.troubles = Troubles()

    def wire(self) -> StreamWire:
        kind = ControlWire if self._controls else SimulatedWire
        return kind(self._server, self._number, self.troubles)


class SimSink:
    """Keeps what a node delivered, in parts: one for each baseline and partition."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.parts: dict[int, list[Part]] = {}
        self.faults: list[str] = []
        self.controls: list[bytes] = []
        self.state = ""

    def begin(self, head: Head, reason: GapReason | None = None) -> None:
        parts = self.parts.setdefault(head.partition, [])
        parts.append(Part(self.number, head.partition, head.epoch, head.offset, head.offset, reason))

    def on_records(self, partition: int, epoch: str, lo: int, hi: int, records: Sequence[Record]) -> None:
        part = self.parts[partition][-1]
        if (part.epoch, part.hi) != (epoch, lo):
            self.faults.append(f"node {self.number}: range {epoch}:({lo}, {hi}] follows {part.epoch}:{part.hi}")
        part.hi = hi
        part.records += records

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None:
        self.begin(head, reason)

    def on_control(self, sender: bytes, payload: bytes) -> None:
        self.controls.append(payload)

    def on_state(self, state: str, detail: str) -> None:
        self.state = state


@dataclass
class Client:
    """A client that changes nodes.

    Attributes:
        cursor: Partition, epoch and offset up to which it has everything, or None before it came.
        reads: Node, span and result of its reads.
    """

    cursor: tuple[str, int] | None = None
    reads: list[tuple[int, ReadSpan, object]] = field(default_factory=list)


class World:
    """One run of a plan."""

    def __init__(self, plan: Plan, loop: VirtualLoop) -> None:
        self.plan = plan
        self.loop = loop
        self.rng = random.Random(plan.seed * 7 + 1)
        habits = Habits(
            offsets=not plan.quiet,
            bounds=not plan.quiet,
            identity=plan.identity,
            strict=plan.strict,
            controls=plan.controls,
            latency_s=self.rng.choice((0.002, 0.01, 0.05)),
        )
        self.server = SimulatedServer(self.rng, habits, plan.partitions)
        self.layout = Layout(channel="c", partitions=plan.partitions)
        self.clocks = [SimClock(loop, self.rng) for _ in range(NODES)]
        self.brokers: list[SimBroker] = []
        self.sinks: list[SimSink] = []
        self.calls: list[Call] = []
        self.clients = [Client() for _ in range(2)]
        self.problems: list[str] = []
        self.all_sinks: list[SimSink] = []
        self.rewinds: list[tuple[int, list[SimBroker]]] = []
        self._generation = 0
        self._restarting = asyncio.Lock()

    async def play(self) -> list[str]:
        """Do all steps, heal, and return what is wrong."""
        for number in range(NODES):
            await self._start(number)
        await asyncio.sleep(self.plan.age_s)
        began = self.loop.now
        tasks = []
        for at, name, arguments in self.plan.steps:
            await asyncio.sleep(max(0.0, began + at - self.loop.now))
            tasks.append(self.loop.create_task(getattr(self, name)(*arguments), name=name))
        await asyncio.sleep(max(0.0, began + FAULT_S - self.loop.now))
        await self._heal(tasks)
        problems = self.problems + find_problems(self)
        for broker in self.brokers:
            await broker.stop()
        problems += [f"left behind: {task}" for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        return problems + self.loop.failures

    async def _start(self, number: int) -> None:
        broker = SimBroker(self.server, number, self.clocks[number], self.plan.controls)
        sink = SimSink(number)
        while True:
            self._generation += 1  # each start has an id of its own, as in the core
            try:
                node = b"n%d-%05d" % (number, self._generation)
                await broker.start(node=node, layout=self.layout, sink=sink)
                for head in (await broker.set_interest(frozenset(range(self.plan.partitions)))).values():
                    sink.begin(head)
                break
            except BrokerError:
                await broker.stop()
                await asyncio.sleep(0.2)
        self.brokers[number : number + 1] = [broker]
        self.sinks[number : number + 1] = [sink]
        self.all_sinks.append(sink)

    # -- what the applications do

    async def publish(self, node: int, topic: int, keyed: bool, deadline_s: float) -> None:
        """Publish, and with a key again until the outcome is known, on another node."""
        key = f"k{len(self.calls)}" if keyed else None
        until = self.loop.now + REPEAT_S
        for attempt in range(6 if keyed else 1):
            call = await self._call((node + attempt) % NODES, topic, key, deadline_s)
            if not keyed or call.receipt is not None or self.loop.now > until:
                return
            await asyncio.sleep(0.3)

    async def burst(self, node: int, topic: int, count: int) -> None:
        """Publish several messages in one tick."""
        await asyncio.gather(*(self._call(node, topic, None, 3.0) for _ in range(count)))

    async def _call(self, node: int, topic: int, key: str | None, deadline_s: float) -> Call:
        partition = topic % self.plan.partitions
        call = Call(len(self.calls), node, id(self.brokers[node]), partition, f"t{topic}", key, self.loop.now)
        self.calls.append(call)
        history = _HISTORIES[topic]
        future = self.brokers[node].publish(
            partition, call.topic, call.payload, history=history, key=key, deadline_s=deadline_s
        )
        try:
            async with asyncio.timeout(deadline_s + 1.0):
                call.receipt = await future
        except PublishOutcomeUnknown:
            call.outcome = "unknown"
        except BrokerError:
            call.outcome = "unsent"
        except TimeoutError:
            self.problems.append(f"publish {call} has no outcome after its deadline")
        return call

    async def hop(self, client: int, node: int) -> None:
        """Come to a node with a cursor, and read what was missed."""
        me, broker = self.clients[client], self.brokers[node]
        part = self.sinks[node].parts[0][-1]
        if me.cursor is not None:
            span = ReadSpan(
                partition=0,
                epoch=me.cursor[0],
                since=me.cursor[1],
                until=part.hi if part.epoch == me.cursor[0] else me.cursor[1],
                topics=["t0", "t2"] if client else (lambda topic: topic != "t3"),
                limit=1000,
                max_bytes=1_000_000,
            )
            try:
                result = await broker.read(span)
            except BrokerError:
                return
            me.reads.append((node, span, result))
            if result.gap is None and part.epoch == span.epoch:
                me.cursor = (span.epoch, max(span.since, span.until))
                return
        me.cursor = (part.epoch, part.hi)

    async def control(self, node: int) -> None:
        """Send a control message."""
        try:
            await self.brokers[node].send_control(b"control")
        except BrokerError:
            return

    async def restart(self, node: int) -> None:
        """End a node and start another one in its place."""
        async with self._restarting:
            await self.brokers[node].stop(drain_s=0.1)
            await self._start(node)

    # -- faults

    async def cut(self, node: int) -> None:
        self.server.cut(node)

    async def cut_all(self) -> None:
        self.server.cut()

    async def lose_replies(self, node: int, count: int) -> None:
        self.brokers[node].troubles.lose_replies += count

    async def lose_requests(self, node: int, count: int) -> None:
        self.brokers[node].troubles.lose_requests += count

    async def unsent(self, node: int, count: int) -> None:
        self.brokers[node].troubles.unsent += count

    async def refuse(self, node: int, count: int) -> None:
        self.brokers[node].troubles.refuse += count

    async def silence(self, node: int) -> None:
        self.brokers[node].troubles.silent = True

    async def stall(self, node: int, seconds: float) -> None:
        self.brokers[node].troubles.stalled_until = self.loop.now + seconds

    async def stop_server(self, seconds: float) -> None:
        self.server.down = True
        self.server.cut()
        await asyncio.sleep(seconds)
        self.server.down = False

    async def freeze(self, seconds: float) -> None:
        self.server.frozen = True
        await asyncio.sleep(seconds)
        self.server.frozen = False
        self.server.notify()

    async def block(self, seconds: float) -> None:
        self.server.blocked = True
        await asyncio.sleep(seconds)
        self.server.blocked = False

    async def set_back(self, count: int) -> None:
        """Start the server with older data, which ends all connections."""
        self.server.set_back(count)
        self._note_witnesses()
        self.server.cut()

    def _note_witnesses(self) -> None:
        """Note the brokers that have seen more of a stream than it contains now. Only they can notice the loss."""
        for partition, stream in enumerate(self.server.streams):
            nodes = [
                broker for broker in self.brokers if broker._node and broker._node.logs[partition].end >= stream.next
            ]
            self.rewinds.append((partition, nodes))

    async def replace(self, loud: bool, count: int) -> None:
        """Delete the streams and create them again. Not every broker tells its connections. Then publish in a hurry."""
        self.server.replace()
        self._note_witnesses()
        if loud or self.plan.quiet:
            self.server.cut()
        await self._hurry(count, 0.02)

    async def _hurry(self, count: int, pause_s: float, nodes: Sequence[int] = range(NODES)) -> None:
        """Publish through some nodes, without waiting for the outcomes."""
        async with asyncio.TaskGroup() as calls:
            for number in range(count):
                calls.create_task(self._call(nodes[number % len(nodes)], number % 3, None, 3.0))
                await asyncio.sleep(pause_s)

    async def trim(self) -> None:
        self.server.trim(RETENTION_S)

    async def lag(self, node: int) -> None:
        """Let retention pass a reader that stands still or is slow."""
        ends = self.loop.now + RETENTION_S + 3.0
        if self.rng.random() < 0.5:
            self.brokers[node].troubles.stalled_until = ends
        else:
            self.brokers[node].troubles.slow_until = ends
        others = [other for other in range(NODES) if other != node]
        await self._hurry(int(RETENTION_S * 4), 0.25, others)
        await asyncio.sleep(2.0)
        self.server.trim(RETENTION_S)

    async def garbage(self) -> None:
        self.server.garbage()

    async def clock(self, node: int, seconds: float) -> None:
        self.clocks[node].ahead_ms = int(seconds * 1000)

    async def _heal(self, tasks: list[asyncio.Task[None]]) -> None:
        """End all faults, and wait until every node has everything."""
        await asyncio.wait(
            [self.loop.create_task(asyncio.sleep(0)), *(task for task in tasks if task.get_name() == "lag")]
        )
        for broker in self.brokers:
            broker.troubles.__init__()  # type: ignore[misc]  # as new
        await asyncio.sleep(0)
        done, pending = await asyncio.wait([*tasks, self.loop.create_task(asyncio.sleep(0))], timeout=_HEAL_S)
        self.problems += [f"{task} does not end" for task in pending]
        self.problems += [repr(task.exception()) for task in done if task.exception()]
        self.server.down = self.server.frozen = self.server.blocked = False
        await asyncio.sleep(_NOTICE_S)
        for partition in range(self.plan.partitions):
            await self._last_word(partition)
        await asyncio.sleep(1.0)

    async def _last_word(self, partition: int) -> None:
        """Publish through every node until it is stored."""
        for node in range(NODES):
            for _ in range(10):
                call = await self._call(node, partition, f"last{partition}{node}", 3.0)
                if call.receipt is not None:
                    break
            else:
                self.problems.append(f"node {node} cannot publish to partition {partition} any more")


def run(plan: Plan) -> list[str]:
    """Run a plan and return what is wrong."""
    loop = VirtualLoop()
    real = dedupe.KEY_WINDOW_MS, lookback.LOOKBACK_MS, lookback._STEP
    try:
        # Everything that takes minutes in reality takes seconds here.
        dedupe.KEY_WINDOW_MS, lookback.LOOKBACK_MS, lookback._STEP = 4_000, 11_500, 4
        world = World(plan, loop)
        return loop.run_until_complete(world.play())
    except Exception as error:  # noqa: BLE001 -- also a finding
        where = traceback.extract_tb(error.__traceback__)[-1]
        return [f"the run failed: {error!r} in {where.filename}:{where.lineno}"]
    finally:
        end(loop)
        dedupe.KEY_WINDOW_MS, lookback.LOOKBACK_MS, lookback._STEP = real
