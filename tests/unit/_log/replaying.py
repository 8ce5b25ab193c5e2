"""The model of `test_replay_model`.

One client opens and closes topics with their past, loses its connection at any frame, and reconnects to any of two
nodes. `ClientState` makes its decisions.
"""

from __future__ import annotations

from typing import Any

from unit._log.model_log import PARTITIONS, PLACE
from unit._log.model_world import Case, Receiver, World, make_cases
from unit._log.replaying_session import EVERYTHING, FILTERS, Rules, Session, matches, wanted

from dws_core._wire.cursor import Position, parse_cursor, parse_position
from dws_core.client._events import Connected, Event, Message, Past, PastEnded, Postponed, Subscribed


class Subscription(Receiver):
    """What the application sees of one subscription."""

    def __init__(self, filter_: str) -> None:
        super().__init__()
        self.filter = filter_
        self.live = False

    def matches(self, topic: str) -> bool:
        return matches(self.filter, topic)

    def begin(self, cursor: dict[int, Position]) -> None:
        for partition in cursor.keys() & wanted([self.filter]).keys():
            self.rebase(cursor[partition])

    def on_message(self, message: Message) -> None:
        self.take(message.topic or "", parse_position(message.position or ""))


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
        self.open[self.opened].begin(start)
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
            self.session.node.sessions.remove(self.session)
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
                subscription.begin(parse_cursor(frame["cursor"]))
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
            self.open[event.subscription].begin(parse_cursor(frame["cursor"]))

    def deliver(self, event: Event) -> None:
        if isinstance(event, Past):
            self.open[event.subscription].on_message(event.message)
        elif isinstance(event, PastEnded):
            self.open[event.subscription].live = True
        elif isinstance(event, Message):
            for subscription in self.open.values():
                if subscription.live and subscription.matches(event.topic or ""):
                    subscription.on_message(event)

    def concerned(self, gap: dict[str, Any]) -> list[Subscription]:
        if "replay" not in gap:
            return [subscription for subscription in self.open.values() if subscription.live]
        replay = self.state._replays._requested.get(gap["replay"])
        return [] if replay is None else [self.open[replay.subscription]]


class Replaying(World):
    """A client that opens topics with their past."""

    def __init__(self, rules: Rules, *, cached: int, held: int) -> None:
        super().__init__(cached=cached, held=held)
        self.rules = rules
        self.client = Client(rules)

    @property
    def receivers(self) -> list[Subscription]:
        return list(self.client.open.values())

    @property
    def gaps(self) -> int:
        return self.client.gaps

    # -- steps

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

    # -- the end

    def settle(self) -> None:
        for _ in range(len(self.client.open) + 4):
            for node in self.nodes:
                node.sync()
            self.attach(0)
            self.client.retry()
            for _ in range(4):
                self.serve()

    def check(self, *, complete: bool) -> None:
        super().check(complete=complete)
        waiting = {subscription.filter for subscription in self.receivers if not subscription.live}
        assert not (complete and waiting), "the past has not ended"
        if (session := self.client.session) is not None and self.client.state.online and session.quiet:
            covered = set(self.client.state.filters)
            assert covered <= session.live <= covered | waiting, "a filter that nobody wants"


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


CASES = make_cases(_table)


def play(rules: Rules, case: Case) -> None:
    """Run a case with the given rules. Raise `AssertionError` if a subscription receives something wrong."""
    steps, cached, held = case
    Replaying(rules, cached=cached, held=held).run([("attach", 0), ("serve",), *steps])
