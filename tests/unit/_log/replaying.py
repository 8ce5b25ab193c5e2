"""The simulated world of `test_replay_model`.

One client opens and closes topics with their past, loses its connection at any frame, and reconnects to any of two
nodes. The nodes are those of `roaming`, with links that delay and lose pushes. `ClientState`, `Replay` and `Recovery`
make all decisions. A session only routes live messages, and carries frames and requests.

The oracle: from its last baseline (its first answer, or a gap) on, each subscription must have received exactly the
matching records of each partition, in order. At the end, it must have received all of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeAlias

from hypothesis import strategies as st
from unit._log.roaming import Node
from unit._log.roaming import Rules as NodeRules
from unit._log.roaming_log import LAYOUT, PARTITIONS, PLACE, Log

from dws_core._log.records import Head, Offset, ReadSpan, Record, WantedTopics
from dws_core._log.recovery import Due, Recovery, ReplayLimits, wanted_topics, watermarks
from dws_core._log.replay import Replay
from dws_core._log.tail import Lost
from dws_core._wire import server_messages
from dws_core._wire.client_errors import ClientError
from dws_core._wire.cursor import Position, parse_cursor, parse_position
from dws_core.client._events import Connected, Event, Message, Past, PastEnded, Postponed, Subscribed
from dws_core.client._state import ClientState

EVERYTHING = "#"
"""The only filter with a wildcard. It is opened with a cursor at the beginning of the logs."""

FILTERS = ["a", "d", "e", EVERYTHING]


def matches(filter_: str, topic: str) -> bool:
    return filter_ in (EVERYTHING, topic)


def wanted(filters: Collection[str]) -> dict[int, WantedTopics]:
    match = (lambda topic: True) if EVERYTHING in filters else None
    return wanted_topics(frozenset(filters) - {EVERYTHING}, match, LAYOUT)


@dataclass(frozen=True)
class Rules:
    """The code under test. Each mutant replaces a part."""

    recovery: type[Recovery] = Recovery
    replay: type[Replay] = Replay
    state: type[ClientState] = ClientState
    session: type[Session] | None = None


@dataclass
class Sending:
    """A replay in progress on a session."""

    filter: str
    replay: Replay
    answered: bool = False


class Session:
    """One connection of the client on a node: its requests, its live filters and replays, and the frames on its wire."""

    def __init__(self, node: Node, limits: ReplayLimits, rules: Rules) -> None:
        self.node = node
        self.limits = limits
        self.rules = rules
        self.requests: list[dict[str, Any]] = []
        self.wire: list[dict[str, Any]] = []
        self.live: set[str] = set()
        self.connecting: tuple[int, Recovery] | None = None
        self.answered = False
        self.searches: list[tuple[dict[str, Any], Head]] = []
        self.replays: dict[int, Sending] = {}
        self.spans: list[tuple[Recovery, ReadSpan]] = []
        node.sessions.append(self)  # type: ignore[arg-type]

    # -- requests

    @property
    def quiet(self) -> bool:
        """Whether nothing is in progress."""
        return not (self.requests or self.wire or self.connecting or self.searches or self.replays)

    def handle(self) -> None:
        """Handle the next request, unless an earlier one is unanswered or a `connect` is recovering."""
        busy = self.connecting or self.searches or not all(sending.answered for sending in self.replays.values())
        if self.requests and not busy:
            request = self.requests.pop(0)
            getattr(self, request["type"])(request)

    def connect(self, request: dict[str, Any]) -> None:
        data = request["data"]
        self.live = set(data["filters"])
        if "cursor" in data:
            recovery = Recovery(parse_cursor(data["cursor"]), wanted(self.live), self.node.logs, limits=self.limits)
            self.connecting = request["id"], recovery
        else:
            self.connected(request["id"], self.position(), None)

    def connected(self, number: int, cursor: dict[int, Position], recovered: bool | None) -> None:
        frame = server_messages.connected(number, conn_id="me", ping_s=20.0, cursor=cursor, recovered=recovered)
        self.wire.append(frame)

    def subscribe(self, request: dict[str, Any]) -> None:
        filter_ = request["topic"]
        if "last" not in request:
            self.start(request, parse_cursor(request["cursor"]), ())
            return
        log = self.node.logs[PLACE[filter_]]
        records = log.last(filter_, log.hi, limit=request["last"], max_bytes=10**6)
        if records is None:
            self.searches.append((request, log.head))
        else:
            self.found(request, log.head, records)

    def found(self, request: dict[str, Any], end: Head, records: Collection[Record]) -> None:
        past = [Due(end.partition, end.epoch, record) for record in records]
        self.start(request, {end.partition: Position(end.partition, end.epoch, end.offset)}, past)

    def start(self, request: dict[str, Any], cursor: dict[int, Position], past: Collection[Due]) -> None:
        filter_ = request["topic"]
        recovery = self.rules.recovery(cursor, wanted([filter_]), self.node.logs, limits=self.limits)
        self.replays[request["id"]] = Sending(filter_, self.rules.replay(recovery, past))

    def unsubscribe(self, request: dict[str, Any]) -> None:
        self.live.discard(request["topic"])
        for number, sending in list(self.replays.items()):
            if sending.filter == request["topic"]:
                del self.replays[number]

    # -- events of the node

    def on_record(self, partition: int, epoch: str, record: Record) -> None:
        due = Due(partition, epoch, record)
        if any(matches(filter_, record.topic) for filter_ in self.live):
            if self.connecting is None:
                self.message(due)
            else:
                self.connecting[1].on_record(*due)
        for sending in self.replays.values():
            if matches(sending.filter, record.topic):
                sending.replay.recovery.on_record(*due)

    def on_discontinuity(self, lost: Lost) -> None:
        if self.connecting is not None:
            self.connecting[1].on_discontinuity(lost.reason, lost.head)
        elif lost.head.partition in wanted(self.live):
            self.gap(lost)
        for sending in self.replays.values():
            sending.replay.recovery.on_discontinuity(lost.reason, lost.head)

    # -- frames

    def position(self) -> dict[int, Position]:
        return watermarks(self.node.logs, wanted(self.live))

    def message(self, due: Due, replay: int | None = None) -> None:
        assert due.record.offset is not None
        position = str(Position(due.partition, due.epoch, due.record.offset))
        self.wire.append({**server_messages.message(due.record.topic, position, replay=replay), "data": None})

    def gap(self, lost: Lost, replay: int | None = None, filter_: str = "") -> None:
        head = lost.head
        cursor = {head.partition: Position(head.partition, head.epoch, head.offset)}
        filters = self.live if replay is None else {filter_}
        self.wire.append(server_messages.gap(filters, lost.reason, cursor, replay=replay))

    def send(self, items: list[Due | Lost], replay: int | None = None, filter_: str = "") -> None:
        for item in items:
            if isinstance(item, Lost):
                self.gap(item, replay, filter_)
            else:
                self.message(item, replay)

    # -- the work of the node

    def recoveries(self) -> list[Recovery]:
        own = [] if self.connecting is None else [self.connecting[1]]
        return own + [sending.replay.recovery for sending in self.replays.values()]

    def read(self) -> None:
        """Let the broker answer one request."""
        if self.searches:
            self.search(*self.searches.pop(0))
            return
        for recovery in self.recoveries():
            for partition in sorted(recovery.to_confirm)[:1]:
                recovery.confirmed(self.node.broker[partition].head)
                return
            self.spans += [(recovery, span) for span in recovery.to_read()]
        if self.spans:
            recovery, span = self.spans.pop()
            recovery.found(span, self.node.broker[span.partition].read(span.since, span.until, span.epoch, span.topics))

    def search(self, request: dict[str, Any], end: Head) -> None:
        log = self.node.broker[end.partition]
        if log.epoch != end.epoch:
            refusal = ClientError(code="unavailable", message="the log was lost", temporary=True)
            self.wire.append(server_messages.error(refusal, request["id"]))
            return
        kept = [r for r in log.records if (r.offset or 0) <= end.offset and r.topic == request["topic"]]
        self.found(request, end, kept[-request["last"] :])

    def pump(self, which: int, count: int) -> None:
        """Send the answer of a recovery and some of the items after it, and go live when no item is left."""
        if self.connecting is not None:
            self.pump_connect(*self.connecting, count)
        elif self.replays:
            number = list(self.replays)[which % len(self.replays)]
            self.pump_replay(number, self.replays[number], count)

    def pump_connect(self, number: int, recovery: Recovery, count: int) -> None:
        if recovery.answer is None:
            return
        cursor, gap = dict(recovery.answer.cursor), recovery.answer.gap
        if not self.answered:
            self.answered = True
            self.connected(number, cursor, gap is None)
            if gap is not None:
                self.wire.append(server_messages.gap(self.live, gap, cursor))
        self.send(recovery.take(max_messages=count, max_bytes=10**6))
        if recovery.settled:
            self.wire.append(server_messages.pos(recovery.position()))
            self.connecting = None

    def pump_replay(self, number: int, sending: Sending, count: int) -> None:
        replay, filter_ = sending.replay, sending.filter
        if replay.recovery.answer is None:
            return
        if not sending.answered:
            sending.answered = True
            answer = replay.answer()
            self.wire.append(server_messages.ack(number, cursor=answer.cursor, recovered=answer.gap is None))
            if answer.gap is not None:
                self.wire.append(server_messages.gap([filter_], answer.gap, answer.cursor, replay=number))
        self.send(replay.take(max_messages=count, max_bytes=10**6), number, filter_)
        if replay.settled:
            del self.replays[number]
            self.live.add(filter_)
            self.wire.append(server_messages.replayed(number, self.position()))

    def pos(self) -> None:
        if self.connecting is None and self.live:
            self.wire.append(server_messages.pos(self.position()))


class Subscription:
    """What the application sees of one subscription."""

    def __init__(self, filter_: str) -> None:
        self.filter = filter_
        self.live = False
        self.base: dict[int, Position] = {}
        self.got: dict[int, list[Offset]] = {}
        self.gaps = 0

    def rebase(self, cursor: dict[int, Position]) -> None:
        for partition in cursor.keys() & wanted([self.filter]).keys():
            self.base[partition] = cursor[partition]
            self.got[partition] = []

    def take(self, message: Message) -> None:
        assert message.topic is not None
        assert matches(self.filter, message.topic)
        assert self.base, "a message before the answer"
        position = parse_position(message.position or "")
        assert position.epoch == self.base[position.partition].epoch, "another epoch without a gap"
        self.got[position.partition].append(position.offset)


class Client:
    """A client, whose `ClientState` decides."""

    def __init__(self, rules: Rules) -> None:
        self.state = rules.state(key_prefix="k")
        self.session: Session | None = None
        self.open: dict[int, Subscription] = {}
        self.opened = 0
        self.postponed: list[int] = []
        self.gaps = 0

    def send(self, message: dict[str, Any] | None) -> None:
        if message is not None and self.session is not None:
            self.session.requests.append(message)

    def subscribe(self, filter_: str, last: int) -> None:
        self.opened += 1
        self.open[self.opened] = Subscription(filter_)
        if filter_ != EVERYTHING:
            self.send(self.state.open(self.opened, filter_, last))
            return
        self.state._replays.open(self.opened, filter_, 0)
        start: dict[int, Position] = {partition: Position(partition, "e0", 0) for partition in range(PARTITIONS)}
        self.state._replays._all[self.opened].cursor = start
        self.open[self.opened].rebase(start)
        self.send(self.state.reopen(self.opened))

    def close(self, which: int) -> None:
        if self.open:
            number = list(self.open)[which % len(self.open)]
            self.send(self.state.unsubscribe(self.open.pop(number).filter, number))

    def retry(self) -> None:
        for number in self.postponed:
            self.send(self.state.reopen(number))
        self.postponed = []

    def drop(self) -> None:
        if self.session is not None:
            self.session.node.sessions.remove(self.session)  # type: ignore[arg-type]
            self.session = None
            self.state.offline()

    def receive(self, count: int) -> None:
        if self.session is not None:
            wire = self.session.wire
            frames, wire[:] = wire[:count], wire[count:]
            for frame in frames:
                self.take(frame)

    def take(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "gap":
            self.gaps += 1
            for subscription in self.concerned(frame):
                subscription.rebase(parse_cursor(frame["cursor"]))
        for event in self.state.receive(frame):
            if isinstance(event, Connected):
                for message in self.state.resume(0.0)[0]:
                    self.send(message)
            elif isinstance(event, Postponed):
                self.postponed.append(event.subscription)
            elif isinstance(event, Subscribed):
                self.accepted(event, frame)
            else:
                self.deliver(event)

    def accepted(self, event: Subscribed, frame: dict[str, Any]) -> None:
        if event.subscription is not None and frame["type"] == "ack" and not self.open[event.subscription].base:
            self.open[event.subscription].rebase(parse_cursor(frame["cursor"]))

    def deliver(self, event: Event) -> None:
        if isinstance(event, Past):
            self.open[event.subscription].take(event.message)
        elif isinstance(event, PastEnded):
            self.open[event.subscription].live = True
        elif isinstance(event, Message):
            for subscription in self.open.values():
                if subscription.live and matches(subscription.filter, event.topic or ""):
                    subscription.take(event)

    def concerned(self, gap: dict[str, Any]) -> list[Subscription]:
        if "replay" not in gap:
            return [subscription for subscription in self.open.values() if subscription.live]
        replay = self.state._replays._requested.get(gap["replay"])
        return [] if replay is None else [self.open[replay.subscription]]


class World:
    """The logs, the nodes and the client, and the steps that change them."""

    def __init__(self, rules: Rules, *, cached: int, held: int) -> None:
        self.rules = rules
        self.logs = [Log(number) for number in range(PARTITIONS)]
        self.stored: dict[tuple[int, str], list[Record]] = {}
        self.nodes = [Node(self.logs, NodeRules(), cached) for _ in range(2)]
        self.client = Client(rules)
        self.limits = ReplayLimits(held_bytes=held * 256)
        self.harmless = held > 50

    def run(self, steps: list[tuple[Any, ...]]) -> None:
        for name, *arguments in steps:
            getattr(self, name)(*arguments)
            self.check(complete=False)
        self.settle()
        self.check(complete=True)
        if self.harmless:
            assert not self.client.gaps, "a gap although the log lost nothing"

    # -- steps

    def pub(self, topic: str) -> None:
        log = self.logs[PLACE[topic]]
        record = log.publish(topic)
        self.stored.setdefault((log.number, log.epoch), []).append(record)
        for node in self.nodes:
            node.push((log.number, log.epoch, log.end - 1, log.end, (record,)))

    def deliver(self, node: int, count: int) -> None:
        self.nodes[node].deliver(count)

    def link(self, node: int, what: str) -> None:
        getattr(self.nodes[node], what)()

    def attach(self, node: int) -> None:
        if self.client.session is None:
            make = self.rules.session or Session
            self.client.session = make(self.nodes[node], self.limits, self.rules)
            self.client.send(self.client.state.hello())

    def drop(self) -> None:
        self.client.drop()

    def hop(self) -> None:
        """Lose the connection, and reconnect to the other node."""
        if (session := self.client.session) is not None:
            self.client.drop()
            self.attach(1 - self.nodes.index(session.node))

    def subscribe(self, filter_: str, last: int) -> None:
        self.client.subscribe(filter_, last)

    def close(self, which: int) -> None:
        self.client.close(which)

    def retry(self) -> None:
        self.client.retry()

    def session(self, what: str, *arguments: int) -> None:
        if self.client.session is not None:
            getattr(self.client.session, what)(*arguments)

    def receive(self, count: int) -> None:
        self.client.receive(count)

    def open(self, filter_: str, last: int, count: int) -> None:
        """Subscribe, and receive only the first frames."""
        self.client.subscribe(filter_, last)
        self.advance(0, count)

    def glance(self, filter_: str) -> None:
        """Subscribe, and close the subscription while its past arrives."""
        self.serve()
        self.open(filter_, 3, 1)
        self.client.close(-1)
        self.serve()

    def overtake(self, filter_: str, loses: bool) -> None:
        """Subscribe. Messages are published while the broker is searched, and the node may then lose its place."""
        self.subscribe(filter_, 3)
        self.session("handle")
        self.pub(filter_)
        for node in self.nodes:
            node.deliver(99)
        self.session("read")
        if loses and (session := self.client.session) is not None:
            session.node.cut()
            self.pub(filter_)
            self.trim(PLACE[filter_], 99)
            session.node.reconnect()
            session.node.catch_up()

    def advance(self, which: int, count: int) -> None:
        """Handle a request, and send and receive a few frames."""
        self.session("handle")
        for _ in range(PARTITIONS + 1):
            self.session("read")
        self.session("pump", which, count)
        self.client.receive(count)

    def serve(self) -> None:
        """Do everything for the client that its node can do."""
        for which in range(4):
            self.advance(which, 99)

    def trim(self, partition: int, count: int) -> None:
        self.harmless = False
        self.logs[partition].trim(count)

    def wipe(self, partition: int) -> None:
        self.harmless = False
        self.logs[partition].wipe()

    # -- the oracle

    def settle(self) -> None:
        """Finish all work: nodes are in sync, the client is connected, the wire is empty."""
        for _ in range(len(self.client.open) + 4):
            for node in self.nodes:
                node.reconnect()
                node.probe()
                node.deliver(999)
                node.catch_up()
                node.deliver(999)
            self.attach(0)
            self.client.retry()
            for _ in range(4):
                self.serve()

    def check(self, *, complete: bool) -> None:
        for subscription in self.client.open.values():
            for partition, base in subscription.base.items():
                stored = self.stored.get((partition, base.epoch), [])
                later = [record for record in stored if (record.offset or 0) > base.offset]
                truth = [record.offset for record in later if matches(subscription.filter, record.topic)]
                got = subscription.got[partition]
                assert got == truth[: len(got)], "a hole, a repeat, or out of order"
                if complete:
                    assert base.epoch == self.logs[partition].epoch, "the log restarted without a gap"
                    assert got == truth, "something is missing"
            assert subscription.live or not complete, "the past has not ended"
        if (session := self.client.session) is not None and self.client.state.online and session.quiet:
            covered = set(self.client.state.filters)
            postponed = {subscription.filter for subscription in self.client.open.values() if not subscription.live}
            assert covered <= session.live <= covered | postponed, "a filter that nobody wants"


def _table(calm: bool) -> list[tuple[Any, ...]]:
    """Return all steps, the important ones several times. Without weights, thousands of examples miss broken rules."""
    steps: list[tuple[Any, ...]] = [("pub", topic) for topic in "aaadddde"]
    steps += [("open", filter_, 3, count) for filter_ in FILTERS for count in (1, 2)] * 2
    steps += [("subscribe", filter_, last) for filter_ in "ad" for last in (1, 3)]
    steps += [("glance", filter_) for filter_ in "ad"]
    steps += [("overtake", filter_, False) for filter_ in "ad"]
    steps += [("attach", node) for node in range(2)] + [("hop",)] * 4 + [("serve",)] * 3
    steps += [("close", which) for which in range(2)] + [("drop",), ("retry",)]
    steps += [("session", what) for what in ("handle", "handle", "read", "pos")]
    steps += [("advance", which, count) for which in range(3) for count in (1, 2)]
    steps += [("session", "pump", which, count) for which in range(2) for count in (1, 99)]
    steps += [("receive", count) for count in (1, 99)]
    for node in range(2):
        steps += [("deliver", node, 99)] * 3 + [("deliver", node, 1)]
        steps += [("link", node, what) for what in ("cut", "reconnect", "catch_up")]
    if not calm:
        steps += [("trim", partition, count) for partition in range(PARTITIONS) for count in (1, 3)]
        steps += [("overtake", "a", True)] * 2
        steps += [("wipe", partition) for partition in range(PARTITIONS)]
    return steps


STEPS = st.booleans().flatmap(lambda calm: st.lists(st.sampled_from(_table(calm)), min_size=20, max_size=60))
Case: TypeAlias = tuple[list[tuple[Any, ...]], int, int]
"""Steps, records in a node's cache, and live records that a recovery may hold back."""

CASES: st.SearchStrategy[Case] = st.tuples(STEPS, st.sampled_from([0, 2, 99]), st.sampled_from([1, 3, 99]))


def play(rules: Rules, case: Case) -> None:
    """Run a case with the given rules. Raise `AssertionError` if a subscription receives something wrong."""
    steps, cached, held = case
    World(rules, cached=cached, held=held).run([("attach", 0), ("serve",), *steps])
