"""The model of `test_recovery_model`.

Three clients connect, lose their connection while frames are on the wire, and reconnect to any node with the cursor that
results from the two rules of the protocol. `Recovery` makes all decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from unit._log.model_log import LAYOUT, PARTITIONS
from unit._log.model_world import Case, Node, Receiver, World, make_cases

from dws_core._log.records import ReadSpan, Record
from dws_core._log.recovery import Due, Recovery, ReplayLimits, wanted_topics, watermarks
from dws_core._log.tail import Lost
from dws_core._wire.cursor import Position, format_cursor, merge, parse_cursor, replace

WISHES: list[tuple[frozenset[str], Callable[[str], bool] | None]] = [
    (frozenset("a"), None),
    (frozenset("d"), None),
    (frozenset(), lambda topic: topic != "e"),
]
"""The topics that the clients subscribe to: two exact topics, and a wildcard."""


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
    rules: Rules
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
            self.recovery = self.rules.recovery(cursor, self.wanted, logs, limits=self.limits)
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
            until = span.until if self.rules.bounds_history else log.end
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
            self.send("pos", watermarks(logs, self.wanted) if self.rules.pos_is_watermark else heads)


class Client(Receiver):
    """A client that follows the protocol's two rules."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.wish = WISHES[number]
        self.cursor: str | None = None
        self.session: Session | None = None
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
            self.apply(frame)

    def apply(self, frame: Frame) -> None:
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
                self.take(frame.topic, position)


class Roaming(World):
    """Clients that move between the nodes."""

    def __init__(self, rules: Rules, *, cached: int, held: int) -> None:
        super().__init__(cached=cached, held=held, catches_up=rules.catches_up)
        self.rules = rules
        self.clients = [Client(number) for number in range(len(WISHES))]

    @property
    def receivers(self) -> list[Client]:
        return self.clients

    @property
    def gaps(self) -> int:
        return sum(client.gaps for client in self.clients)

    # -- steps

    def attach(self, client: int, node: int) -> None:
        if self.clients[client].session is None:
            self.clients[client].session = Session(self.clients[client], self.nodes[node], self.limits, self.rules)

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

    # -- the end

    def settle(self) -> None:
        for _ in range(4):
            for node in self.nodes:
                node.sync()
            for number in range(len(self.clients)):
                self.attach(number, number % 2)
                for _ in range(PARTITIONS + 1):
                    self.read(number)
                    self.pump(number, 999)
                self.receive(number, 999)


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
        steps += [("link", node, what) for what in ("lose", "cut", "reconnect", "probe", "catch_up")]
    if not calm:
        steps += [("trim", partition, count) for partition in partitions for count in (1, 3)]
        steps += [("wipe", partition) for partition in partitions]
    return steps


CASES = make_cases(_table)


def play(rules: Rules, case: Case) -> None:
    """Run a case with the given rules. Raise `AssertionError` if a client receives something wrong."""
    steps, cached, held = case
    Roaming(rules, cached=cached, held=held).run(steps)
