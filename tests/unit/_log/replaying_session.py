"""One connection of the client in `replaying`: it routes live messages, and carries frames and requests.

`Replay` and `Recovery` make all decisions.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from unit._log.model_log import LAYOUT, PLACE
from unit._log.model_world import Node

from dws_core._log.records import Head, ReadSpan, Record, WantedTopics
from dws_core._log.recovery import Due, Recovery, ReplayLimits, wanted_topics, watermarks
from dws_core._log.replay import Replay
from dws_core._log.tail import Lost
from dws_core._wire import server_messages
from dws_core._wire.client_errors import ClientError
from dws_core._wire.cursor import Position, parse_cursor
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
        node.sessions.append(self)

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
