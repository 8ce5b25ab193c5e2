"""The simulated world of the model tests: two nodes, their links to the broker, and the oracle.

The nodes tail two partitions through links that delay pushes, lose pushes and disconnect. A model adds clients and their
sessions, in which the code under test makes all decisions. The log, the links and the wire are written to be small and
obviously correct.

The oracle: from its last baseline (its first answer, or a gap) on, a receiver must have received exactly the matching
records of each partition, in order. At the end, it must have received all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeAlias

from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from unit._log.model_log import PARTITIONS, PLACE, Log, Push

from dws_core._log.cache import LogCache
from dws_core._log.records import GapReason, Offset, Record
from dws_core._log.recovery import ReplayLimits
from dws_core._log.tail import Advance, Lost, TailEvent, TailState
from dws_core._wire.cursor import Position


class Session(Protocol):
    """One connection of a client on a node."""

    def on_record(self, partition: int, epoch: str, record: Record) -> None: ...

    def on_discontinuity(self, lost: Lost) -> None: ...


class Node:
    """A node: a tail and a cache for each partition, and a link to the broker on which pushes wait."""

    def __init__(self, logs: list[Log], cached: int, *, catches_up: bool) -> None:
        self.broker = logs
        self.catches_up = catches_up
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

    def lose(self) -> None:
        del self.link[:1]

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
                records = answer.records if self.catches_up else ()
                trimmed = answer.gap is GapReason.TRIMMED
                self.tell(
                    tail.give_up(answer.gap, log.head) if trimmed and answer.gap else tail.caught_up(log.head, records)
                )

    def sync(self) -> None:
        """Receive everything that the broker has."""
        self.reconnect()
        self.probe()
        self.deliver(999)
        self.catch_up()
        self.deliver(999)
        assert [log.epoch for log in self.logs.values()] == [tail.epoch for tail in self.tails]

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


class Receiver(ABC):
    """What an application received since the last baseline of each partition."""

    def __init__(self) -> None:
        self.base: dict[int, Position] = {}
        self.got: dict[int, list[Offset]] = {}

    @abstractmethod
    def matches(self, topic: str) -> bool:
        """Return whether it receives a topic."""

    def rebase(self, position: Position) -> None:
        self.base[position.partition] = position
        self.got[position.partition] = []

    def take(self, topic: str, position: Position) -> None:
        assert self.matches(topic)
        assert position.partition in self.base, "a message before the answer"
        assert position.epoch == self.base[position.partition].epoch, "another epoch without a gap"
        self.got[position.partition].append(position.offset)


class World(ABC):
    """The logs and the nodes, and the steps that change them."""

    def __init__(self, *, cached: int, held: int, catches_up: bool = True) -> None:
        self.logs = [Log(number) for number in range(PARTITIONS)]
        self.stored: dict[tuple[int, str], list[Record]] = {}
        self.nodes = [Node(self.logs, cached, catches_up=catches_up) for _ in range(2)]
        self.limits = ReplayLimits(held_bytes=held * 256)
        self.harmless = held > 50

    @property
    @abstractmethod
    def receivers(self) -> Iterable[Receiver]:
        """The receivers that the oracle checks."""

    @property
    @abstractmethod
    def gaps(self) -> int:
        """The number of received gaps."""

    @abstractmethod
    def settle(self) -> None:
        """Finish all work: nodes are in sync, clients are connected, wires are empty."""

    def run(self, steps: Iterable[tuple[Any, ...]]) -> None:
        for name, *arguments in steps:
            getattr(self, name)(*arguments)
            self.check(complete=False)
        self.settle()
        self.check(complete=True)
        assert not (self.harmless and self.gaps), "a gap although the log lost nothing"

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

    def trim(self, partition: int, count: int) -> None:
        self.harmless = False
        self.logs[partition].trim(count)

    def wipe(self, partition: int) -> None:
        self.harmless = False
        self.logs[partition].wipe()

    # -- the oracle

    def check(self, *, complete: bool) -> None:
        for receiver in self.receivers:
            for partition, base in receiver.base.items():
                stored = self.stored.get((partition, base.epoch), [])
                truth = [r.offset for r in stored if (r.offset or 0) > base.offset and receiver.matches(r.topic)]
                got = receiver.got[partition]
                assert got == truth[: len(got)], "a hole, a repeat, or out of order"
                if complete:
                    assert base.epoch == self.logs[partition].epoch, "the log restarted without a gap"
                    assert got == truth, "something is missing"


Case: TypeAlias = tuple[list[tuple[Any, ...]], int, int]
"""Steps, records in a node's cache, and live records that a recovery may hold back."""


def make_cases(table: Callable[[bool], list[tuple[Any, ...]]]) -> st.SearchStrategy[Case]:
    """Return cases with steps of a table. It receives whether the log loses nothing."""
    steps = st.booleans().flatmap(lambda calm: st.lists(st.sampled_from(table(calm)), min_size=20, max_size=60))
    return st.tuples(steps, st.sampled_from([0, 2, 99]), st.sampled_from([1, 3, 99]))


def search(cases: st.SearchStrategy[Case], play: Callable[[Case], None]) -> None:
    """Play the same 3,000 cases in each run. Raise `AssertionError` if one of them fails."""

    @settings(max_examples=3_000, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    @given(cases)
    def played(case: Case) -> None:
        play(case)

    played()
