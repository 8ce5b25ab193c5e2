"""The simulated world of `test_recovery_model`.

Two nodes tail two partitions through links that delay pushes, lose pushes and disconnect. Three clients connect, lose
their connection while frames are on the wire, and reconnect to any node with the cursor that results from the two rules
of the protocol. The code under test makes all decisions. The log, the links and the wire are written to be small and
obviously correct.

The oracle: from its last baseline (its first answer, or a gap) on, a client must have received exactly the matching
records of each partition, in order. At the end, it must have received all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from hypothesis import strategies as st
from unit._log.roaming_log import LAYOUT, PARTITIONS, PLACE, Log, Push

from dws_core._log.cache import LogCache
from dws_core._log.records import GapReason, Offset, ReadSpan, Record
from dws_core._log.recovery import Due, Recovery, ReplayLimits, wanted_topics, watermarks
from dws_core._log.tail import Advance, Lost, TailEvent, TailState
from dws_core._wire.cursor import Position, format_cursor, merge, parse_cursor, replace

WISHES: list[tuple[frozenset[str], Callable[[str], bool] | None]] = [
    (frozenset("a"), None),
    (frozenset("d"), None),
    (frozenset(), lambda topic: topic != "e"),
]
"""The topics that the clients subscribe to: two exact topics, and a wildcard."""


class Node:
    """A node: a tail and a cache for each partition, and a link to the broker on which pushes wait."""

    def __init__(self, logs: list[Log], rules: Rules, cached: int) -> None:
        self.broker = logs
        self.rules = rules
        self.tails = [TailState(log.head) for log in logs]
        self.logs = {log.number: LogCache(log.head, max_records=cached) for log in logs}
        self.link: list[Push] = []
        self.linked = True
        self.sessions: list[Session] = []

    def push(self, *pushed: Push) -> None:
        if self.linked:
            self.link += pushed

    def deliver(self, count: int) -> None:
        arrived, self.link = self.link[:count], self.link[count:]
        for partition, epoch, lo, hi, records in arrived:
            self.tell(self.tails[partition].push(epoch, lo, hi, records))

    def cut(self) -> None:
        self.linked, self.link = False, []

    def reconnect(self) -> None:
        if not self.linked:
            self.linked = True
            for tail in self.tails:
                tail.interrupted()

    def probe(self) -> None:
        self.push(*((log.number, log.epoch, log.end, log.end, ()) for log in self.broker))

    def catch_up(self) -> None:
        for tail, log in zip(self.tails, self.broker, strict=True):
            if self.linked and tail.needs_catch_up:
                epoch, since = tail.start_catch_up()
                answer = log.read(since, log.end, epoch, lambda _: True)
                records = answer.records if self.rules.catches_up else ()
                trimmed = answer.gap is GapReason.TRIMMED
                self.tell(
                    tail.give_up(answer.gap, log.head) if trimmed and answer.gap else tail.caught_up(log.head, records)
                )

    def tell(self, events: list[TailEvent]) -> None:
        for event in events:
            if isinstance(event, Advance):
                log = self.logs[event.partition]
                log.advance(event.epoch, event.lo, event.hi, event.records, now=0.0)
                for session in self.sessions:
                    for record in event.records:
                        session.on_record(event.partition, event.epoch, record)
            else:
                self.logs[event.head.partition].reset(event.head)
                for session in self.sessions:
                    session.on_discontinuity(event)


@dataclass(frozen=True)
class Rules:
    """The rules of recovery. Each mutant breaks one of them."""

    catches_up: bool = True
    bounds_history: bool = True
    pos_is_watermark: bool = True
    recovery: type[Recovery] = Recovery


@dataclass
class Frame:
    """A frame that is sent to a client: an answer, a gap, a message or a `pos`."""

    kind: str
    cursor: str
    topic: str = ""


@dataclass
class Session:
    """One connection of a client on a node, and the frames on its wire."""

    client: Client
    node: Node
    limits: ReplayLimits
    wire: list[Frame] = field(default_factory=list)
    recovery: Recovery | None = None
    spans: list[ReadSpan] = field(default_factory=list)
    answered: bool = False

    def __post_init__(self) -> None:
        logs = self.node.logs
        names, match = self.client.wish
        self.wanted = wanted_topics(names, match and self.client.matches, LAYOUT)
        if self.client.cursor is None:
            self.send("answer", watermarks(logs, self.wanted))
        else:
            cursor = parse_cursor(self.client.cursor)
            self.recovery = self.node.rules.recovery(cursor, self.wanted, logs, limits=self.limits)
        self.node.sessions.append(self)

    def send(self, kind: str, cursor: Mapping[int, Position], topic: str = "") -> None:
        self.wire.append(Frame(kind, format_cursor(cursor), topic))

    def message(self, due: Due) -> None:
        assert due.record.offset is not None
        position = Position(due.partition, due.epoch, due.record.offset)
        self.send("message", {due.partition: position}, due.record.topic)

    def gap(self, lost: Lost) -> None:
        position = Position(lost.head.partition, lost.head.epoch, lost.head.offset)
        self.send("gap", {position.partition: position})

    def on_record(self, partition: int, epoch: str, record: Record) -> None:
        topics = self.wanted.get(partition, ())
        if not (topics(record.topic) if callable(topics) else record.topic in topics):
            return
        if self.recovery is not None:
            self.recovery.on_record(partition, epoch, record)
        else:
            self.message(Due(partition, epoch, record))

    def on_discontinuity(self, lost: Lost) -> None:
        if self.recovery is not None:
            self.recovery.on_discontinuity(lost.reason, lost.head)
        elif lost.head.partition in self.wanted:
            self.gap(lost)

    def read(self) -> None:
        """Let the broker answer one request that the recovery waits for."""
        if self.recovery is None:
            return
        self.spans += self.recovery.to_read()
        for partition in sorted(self.recovery.to_confirm)[:1]:
            self.recovery.confirmed(self.node.broker[partition].head)
            return
        if self.spans:
            span = self.spans.pop()
            log = self.node.broker[span.partition]
            until = span.until if self.node.rules.bounds_history else log.end
            self.recovery.found(span, log.read(span.since, until, span.epoch, span.topics))

    def pump(self, count: int) -> None:
        """Send the answer and some of the items after it, and go live when no item is left."""
        recovery = self.recovery
        if recovery is None or recovery.answer is None:
            return
        if not self.answered:
            self.answered = True
            self.send("answer", recovery.answer.cursor)
            if recovery.answer.gap is not None:
                self.send("gap", recovery.answer.cursor)
        for item in recovery.take(max_messages=count, max_bytes=10**6):
            if isinstance(item, Lost):
                self.gap(item)
            else:
                self.message(item)
        if recovery.settled:
            self.send("pos", recovery.position())
            self.recovery = None

    def pos(self) -> None:
        if self.recovery is None:
            logs, broker = self.node.logs, self.node.broker
            heads = {p: Position(p, broker[p].epoch, broker[p].end) for p in self.wanted}
            self.send("pos", watermarks(logs, self.wanted) if self.node.rules.pos_is_watermark else heads)


class Client:
    """A client that follows the protocol's two rules, and stores the messages since its last baseline."""

    def __init__(self, number: int) -> None:
        self.wish = WISHES[number]
        self.cursor: str | None = None
        self.session: Session | None = None
        self.base: dict[int, Position] = {}
        self.got: dict[int, list[Offset]] = {}
        self.gaps = 0

    def matches(self, topic: str) -> bool:
        names, match = self.wish
        return topic in names or (match is not None and match(topic))

    def drop(self) -> None:
        if self.session is not None:
            self.session.node.sessions.remove(self.session)
            self.session = None

    def receive(self, count: int) -> None:
        if self.session is None:
            return
        wire = self.session.wire
        frames, wire[:] = wire[:count], wire[count:]
        for frame in frames:
            self.take(frame)

    def take(self, frame: Frame) -> None:
        held, news = parse_cursor(self.cursor or ""), parse_cursor(frame.cursor)
        if frame.kind == "answer":
            self.cursor = format_cursor(replace(held, news))
            for partition in news.keys() - self.base.keys():
                self.rebase(news[partition])
            return
        self.cursor = format_cursor(merge(held, news))
        for position in news.values():
            if frame.kind == "gap":
                self.gaps += 1
                self.rebase(position)
            elif frame.kind == "message":
                assert self.matches(frame.topic)
                assert position.epoch == self.base[position.partition].epoch, "another epoch without a gap"
                self.got[position.partition].append(position.offset)

    def rebase(self, position: Position) -> None:
        self.base[position.partition] = position
        self.got[position.partition] = []


class World:
    """The logs, the nodes and the clients, and the steps that change them."""

    def __init__(self, rules: Rules, *, cached: int, held: int) -> None:
        self.logs = [Log(number) for number in range(PARTITIONS)]
        self.stored: dict[tuple[int, str], list[Record]] = {}
        self.nodes = [Node(self.logs, rules, cached) for _ in range(2)]
        self.clients = [Client(number) for number in range(len(WISHES))]
        self.limits = ReplayLimits(held_bytes=held * 256)
        self.harmless = held > 50

    def run(self, steps: list[tuple[Any, ...]]) -> None:
        for name, *arguments in steps:
            getattr(self, name)(*arguments)
            self.check(complete=False)
        self.settle()
        self.check(complete=True)
        if self.harmless:
            assert not any(client.gaps for client in self.clients), "a gap although the log lost nothing"

    # -- steps

    def pub(self, topic: str) -> None:
        log = self.logs[PLACE[topic]]
        record = log.publish(topic)
        self.stored.setdefault((log.number, log.epoch), []).append(record)
        for node in self.nodes:
            node.push((log.number, log.epoch, log.end - 1, log.end, (record,)))

    def deliver(self, node: int, count: int) -> None:
        self.nodes[node].deliver(count)

    def losemsg(self, node: int) -> None:
        del self.nodes[node].link[:1]

    def cut(self, node: int) -> None:
        self.nodes[node].cut()

    def reconnect(self, node: int) -> None:
        self.nodes[node].reconnect()

    def probe(self, node: int) -> None:
        self.nodes[node].probe()

    def catch(self, node: int) -> None:
        self.nodes[node].catch_up()

    def attach(self, client: int, node: int) -> None:
        if self.clients[client].session is None:
            self.clients[client].session = Session(self.clients[client], self.nodes[node], self.limits)

    def read(self, client: int) -> None:
        if (session := self.clients[client].session) is not None:
            session.read()

    def pump(self, client: int, count: int) -> None:
        if (session := self.clients[client].session) is not None:
            session.pump(count)

    def pos(self, client: int) -> None:
        if (session := self.clients[client].session) is not None:
            session.pos()

    def receive(self, client: int, count: int) -> None:
        self.clients[client].receive(count)

    def detach(self, client: int) -> None:
        self.clients[client].drop()

    def hop(self, client: int) -> None:
        """Lose the connection, and reconnect to the other node."""
        if (session := self.clients[client].session) is not None:
            self.detach(client)
            self.attach(client, 1 - self.nodes.index(session.node))

    def serve(self, client: int) -> None:
        """Send a client everything that its node can send."""
        for _ in range(PARTITIONS):
            self.read(client)
        self.pump(client, 99)
        self.receive(client, 99)

    def trim(self, partition: int, count: int) -> None:
        self.harmless = False
        self.logs[partition].trim(count)

    def wipe(self, partition: int) -> None:
        self.harmless = False
        self.logs[partition].wipe()

    # -- the oracle

    def settle(self) -> None:
        """Finish all work: nodes are in sync, clients are connected, wires are empty."""
        for _ in range(4):
            for number, node in enumerate(self.nodes):
                node.reconnect()
                node.probe()
                node.deliver(999)
                node.catch_up()
                node.deliver(999)
                assert node.logs[0].epoch == node.tails[0].epoch, number
            for number in range(len(self.clients)):
                self.attach(number, number % 2)
                for _ in range(PARTITIONS + 1):
                    self.read(number)
                    self.pump(number, 999)
                self.receive(number, 999)

    def check(self, *, complete: bool) -> None:
        for client in self.clients:
            for partition, base in client.base.items():
                stored = self.stored.get((partition, base.epoch), [])
                truth = [r.offset for r in stored if (r.offset or 0) > base.offset and client.matches(r.topic)]
                got = client.got[partition]
                assert got == truth[: len(got)], "a hole, a repeat, or out of order"
                if complete:
                    assert base.epoch == self.logs[partition].epoch, "the log restarted without a gap"
                    assert got == truth, "something is missing"


def _table(calm: bool) -> list[tuple[Any, ...]]:
    """Return all steps, the important ones several times. Without weights, thousands of examples miss broken rules."""
    clients, nodes, partitions = range(len(WISHES)), range(2), range(PARTITIONS)
    steps: list[tuple[Any, ...]] = [("pub", topic) for topic in "aaaadddde"]
    for client in clients:
        steps += [("attach", client, node) for node in nodes]
        steps += [("hop", client)] * 3 + [("serve", client)] * 2
        steps += [("detach", client), ("read", client), ("pos", client)]
        steps += [(name, client, count) for name in ("pump", "receive") for count in (1, 2, 99)]
    for node in nodes:
        steps += [("deliver", node, 99)] * 3 + [("deliver", node, 1)]
        steps += [(name, node) for name in ("losemsg", "cut", "reconnect", "probe", "catch")]
    if not calm:
        steps += [("trim", partition, count) for partition in partitions for count in (1, 3)]
        steps += [("wipe", partition) for partition in partitions]
    return steps


STEPS = st.booleans().flatmap(lambda calm: st.lists(st.sampled_from(_table(calm)), min_size=20, max_size=60))
Case: TypeAlias = tuple[list[tuple[Any, ...]], int, int]
"""Steps, records in a node's cache, and live records that a recovery may hold back."""

CASES: st.SearchStrategy[Case] = st.tuples(STEPS, st.sampled_from([0, 2, 99]), st.sampled_from([1, 3, 99]))


def play(rules: Rules, case: Case) -> None:
    """Run a case with the given rules. Raise `AssertionError` if a client receives something wrong."""
    steps, cached, held = case
    World(rules, cached=cached, held=held).run(steps)
