from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from dws_core._log.records import Receipt
from dws_core._log.stream.envelope import Draft
from dws_core._log.stream.publishing import Failure, Flight, Outcomes, Place, PublishQueue, Waiting, most_bytes
from dws_core._log.stream.settings import StreamSettings


def _draft(payload: bytes = b"", topic: str = "t") -> Draft:
    return Draft(topic, payload, 1, 1000)


def _queue(**changes: int) -> PublishQueue[str]:
    return PublishQueue(StreamSettings(**{"envelope_records": 2} | changes))  # type: ignore[arg-type]


def _item(ticket: str, draft: Draft, due: float, place: Place | None = None) -> Waiting[str]:
    return Waiting(ticket, draft, due, most_bytes(draft), place)


def _filled(count: int, **changes: int) -> PublishQueue[str]:
    """Return an open queue with tickets "1", "2", ... and deadlines at 1, 2, ..."""
    queue = _queue(**changes)
    for number in range(1, count + 1):
        assert queue.add(_item(str(number), _draft(), float(number)))
    queue.opened(again=False)
    return queue


def _next(queue: PublishQueue[str], now_ms: int = 0) -> Flight[str]:
    flight = queue.next_flight(now_ms)
    assert flight is not None
    queue.sent(flight)
    return flight


def _receipts(count: int) -> list[Receipt]:
    return [Receipt(epoch="e", offset=offset) for offset in range(count)]


def test_publishes_leave_in_envelopes_in_order() -> None:
    queue = _filled(3)
    first = _next(queue)
    assert (first.first, first.last, [item.ticket for item in first.items]) == (1, 2, ["1", "2"])
    queue.confirmed(first)
    second = _next(queue)
    assert (second.first, [item.ticket for item in second.items]) == (3, ["3"])
    assert queue.next_flight(0) is None


def test_closed_queue_sends_nothing() -> None:
    queue = _queue()
    queue.add(_item("1", _draft(), 1.0))
    assert queue.next_flight(0) is None


def test_first_append_of_connection_is_alone() -> None:
    queue = _filled(8, in_flight=3)
    first = _next(queue)
    assert queue.next_flight(0) is None
    queue.confirmed(first)
    assert [_next(queue).first for _ in range(3)] == [3, 5, 7]
    queue.closed()
    queue.opened(again=False)
    assert _next(queue).first == 1
    assert queue.next_flight(0) is None


def test_window_limits_the_appends_in_the_air() -> None:
    queue = _filled(12, in_flight=2)
    queue.confirmed(_next(queue))
    second = _next(queue)
    _next(queue)
    assert queue.next_flight(0) is None
    queue.confirmed(second)
    assert _next(queue).first == 7


def test_part_of_an_envelope_waits_for_the_confirmation() -> None:
    queue = _queue(envelope_records=3, envelope_bytes=1000, in_flight=4)
    queue.opened(again=False)
    queue.add(_item("1", _draft(), 1.0))
    queue.confirmed(_next(queue))
    queue.add(_item("2", _draft(), 1.0))
    second = _next(queue)
    queue.add(_item("3", _draft(bytes(600)), 1.0))
    assert queue.next_flight(0) is None
    queue.add(_item("4", _draft(bytes(600)), 1.0))
    assert [item.ticket for item in _next(queue).items] == ["3"], "the two have more bytes than an envelope"
    queue.confirmed(second)
    assert queue.next_flight(0) is None
    queue.add(_item("5", _draft(), 1.0))
    queue.add(_item("6", _draft(), 1.0))
    assert [item.ticket for item in _next(queue).items] == ["4", "5", "6"], "three records do, too"


def test_envelope_is_limited_in_bytes() -> None:
    queue = _queue(envelope_records=10, envelope_bytes=300)
    for number in range(4):
        queue.add(_item(str(number), _draft(bytes(100)), 1.0))
    queue.opened(again=False)
    assert len(_next(queue).items) == 2


def test_large_record_travels_alone() -> None:
    queue = _queue(envelope_bytes=100)
    for size in (1, 1000, 1):
        queue.add(_item(str(size), _draft(bytes(size)), 1.0))
    queue.opened(again=False)
    sizes = []
    for _ in range(3):
        flight = _next(queue)
        sizes.append([len(draft.payload) for draft in flight.drafts])
        queue.confirmed(flight)
    assert sizes == [[1], [1000], [1]]


def test_stream_limit_is_respected() -> None:
    queue = _queue(envelope_records=10)
    queue.max_bytes = 300
    for number in range(4):
        queue.add(_item(str(number), _draft(bytes(100)), 1.0))
    queue.opened(again=False)
    assert len(_next(queue).items) == 2


def test_full_queue_rejects_publish() -> None:
    queue = _queue(queue_bytes=10_000)
    accepted = [queue.add(_item(str(number), _draft(bytes(1000)), 1.0)) for number in range(20)]
    assert 5 < sum(accepted) < 11
    assert accepted == sorted(accepted, reverse=True)
    queue.drain()
    assert queue.add(_item("again", _draft(bytes(1000)), 1.0))


def test_small_publishes_count_with_their_overhead() -> None:
    """A flood of tiny messages must not use many times the memory of the limit."""
    queue = _queue(queue_bytes=100_000)
    accepted = 0
    while queue.add(_item("x", _draft(b""), 1.0)):
        accepted += 1
    assert accepted <= 200


def test_empty_queue_accepts_any_publish() -> None:
    queue = _queue(queue_bytes=10)
    assert queue.add(_item("large", _draft(bytes(1000)), 1.0))
    assert not queue.add(_item("next", _draft(), 1.0))


def test_slow_tail_stops_publishing() -> None:
    """Confirmed envelopes that the tail does not contain yet are bounded, so memory is, too."""
    queue = _filled(200, envelope_records=1)
    sent = 0
    while (flight := queue.next_flight(0)) is not None:
        queue.sent(flight)
        queue.confirmed(flight)
        sent += 1
    assert sent == 64
    queue.stored(1, _receipts(1))
    assert _next(queue).first == 65


def test_tail_completes_publishes() -> None:
    queue = _filled(2)
    flight = _next(queue)
    receipts = _receipts(2)
    assert queue.stored(1, receipts) == [("1", receipts[0]), ("2", receipts[1])]
    assert (len(queue), queue.acknowledged) == (0, 2)
    queue.confirmed(flight)  # the reply of the wire may come after the record itself
    assert queue.stored(1, receipts) == []


def test_later_publish_in_the_tail_decides_about_earlier_ones() -> None:
    """The tail contains numbers 3 and 4, so 1 and 2 are not in the stream, or were dropped as repeats."""
    queue = _filled(4)
    queue.confirmed(_next(queue))
    _next(queue)
    receipts = _receipts(2)
    assert queue.stored(3, receipts) == [
        ("1", Failure.UNKNOWN),
        ("2", Failure.UNKNOWN),
        ("3", receipts[0]),
        ("4", receipts[1]),
    ]


def test_part_of_an_envelope_may_be_repeated() -> None:
    queue = _filled(2)
    _next(queue)
    receipt = _receipts(1)
    assert queue.stored(2, receipt) == [("1", Failure.UNKNOWN), ("2", receipt[0])]


def test_failed_append_is_sent_again_with_its_numbers() -> None:
    queue = _filled(3)
    queue.confirmed(_next(queue))
    flight = _next(queue)
    queue.failed(flight, sent=True)
    assert _next(queue) is flight
    assert queue.next_flight(0) is None, "the window is small again"


def test_resend_keeps_numbers_and_time() -> None:
    queue = _filled(3)
    flight = _next(queue, now_ms=5)
    queue.closed()
    queue.opened(again=False)
    again = _next(queue, now_ms=9)
    assert (again.first, [item.ticket for item in again.items], again.time_ms) == (flight.first, ["1", "2"], 5)


def test_late_reply_of_old_connection_changes_nothing() -> None:
    queue = _filled(1)
    flight = _next(queue)
    queue.closed()
    queue.confirmed(flight)
    queue.failed(flight, sent=False)
    queue.opened(again=False)
    assert _next(queue) is flight


def test_envelope_that_never_reached_the_wire_is_unsent() -> None:
    """The session ended before the task of the append has begun."""
    queue = _filled(2)
    assert queue.next_flight(0) is not None
    queue.closed()
    assert queue.drain() == [("1", Failure.UNSENT), ("2", Failure.UNSENT)]


def test_envelope_on_its_way_to_the_wire_expires_later() -> None:
    """The wire may reject it before anything is sent."""
    queue = _filled(1)
    flight = queue.next_flight(0)
    assert flight is not None
    assert queue.expire(9.0) == []
    queue.sent(flight)
    queue.failed(flight, sent=False)
    assert queue.expire(9.0) == [("1", Failure.UNSENT)]


def test_refused_envelope_is_certainly_not_stored() -> None:
    queue = _filled(2)
    assert queue.refused(_next(queue)) == [("1", Failure.UNSENT), ("2", Failure.UNSENT)]


def test_refused_resend_may_be_stored() -> None:
    """Its first append had no reply."""
    queue = _filled(1)
    _next(queue)
    queue.closed()
    queue.opened(again=False)
    assert queue.refused(_next(queue)) == [("1", Failure.UNKNOWN)]


def test_refusal_after_completion_is_ignored() -> None:
    queue = _filled(1)
    flight = _next(queue)
    queue.stored(1, _receipts(1))
    assert queue.refused(flight) == []


def test_unsent_publish_expires_as_unsent() -> None:
    queue = _filled(3)
    assert queue.next_due() == 1.0
    assert queue.expire(2.0) == [("1", Failure.UNSENT), ("2", Failure.UNSENT)]
    assert queue.next_due() == 3.0
    assert [item.ticket for item in _next(queue).items] == ["3"]


def test_sent_publish_expires_as_unknown_and_is_sent_again() -> None:
    queue = _filled(2)
    flight = _next(queue)
    assert queue.expire(1.0) == [("1", Failure.UNKNOWN)]
    queue.failed(flight, sent=True)
    assert _next(queue).drafts == flight.drafts
    assert len(flight.drafts) == 2, "the numbers of an envelope that may be stored do not change"
    assert queue.expire(9.0) == [("2", Failure.UNKNOWN)]
    assert (len(queue), queue.next_due()) == (0, None)


def test_expired_publish_is_never_sent() -> None:
    """It was in an envelope that the wire rejected before it was sent."""
    queue = _filled(2)
    queue.failed(_next(queue), sent=False)
    assert queue.expire(1.0) == [("1", Failure.UNSENT)]
    assert [item.ticket for item in _next(queue).items] == ["2"]
    queue = _filled(1)
    queue.failed(_next(queue), sent=False)
    queue.expire(1.0)
    assert queue.next_flight(0) is None


def test_abandoned_envelope_is_not_sent_again() -> None:
    queue = _filled(3)
    _next(queue)
    queue.expire(2.0)
    queue.closed()
    queue.opened(again=False)
    assert _next(queue).first == 3


def test_fresh_start_gives_up_uncertain_flights() -> None:
    """The stream was read again from its recent past, so the tail would not see an older copy of a resent envelope."""
    queue = _filled(4)
    queue.confirmed(_next(queue))
    queue.failed(_next(queue), sent=False)
    queue.closed()
    assert queue.opened(again=True) == [("1", Failure.UNKNOWN), ("2", Failure.UNKNOWN)]
    assert _next(queue).first == 3
    assert queue.acknowledged == 0


def test_drain_gives_up_everything() -> None:
    queue = _filled(4)
    _next(queue)
    assert queue.drain() == [
        ("1", Failure.UNKNOWN),
        ("2", Failure.UNKNOWN),
        ("3", Failure.UNSENT),
        ("4", Failure.UNSENT),
    ]
    assert (len(queue), queue.next_due()) == (0, None)


def test_followers_of_failed_publish_are_not_sent() -> None:
    queue = _queue()
    for number, order in enumerate("abaa", 1):
        queue.add(_item(str(number), _draft(), 9.0, Place(order, number)))
    queue.opened(again=False)
    flight = _next(queue)
    assert [item.ticket for item in flight.items] == ["1", "2"]
    queue.closed()
    assert queue.fail_after({"a": 1}) == [("3", Failure.UNSENT), ("4", Failure.UNSENT)]
    queue.opened(again=False)
    assert [item.ticket for item in _next(queue).items] == ["1", "2"]
    assert queue.next_flight(0) is None


def test_followers_that_were_sent_are_unknown() -> None:
    queue = _queue()
    for number in range(1, 4):
        queue.add(_item(str(number), _draft(), 9.0, Place("a", number)))
    queue.opened(again=False)
    _next(queue)
    assert queue.fail_after({"a": 1}) == [("2", Failure.UNKNOWN), ("3", Failure.UNSENT)]
    assert queue.fail_after({"a": 1}) == []


def test_follower_in_taken_envelope_is_removed() -> None:
    queue = _queue()
    for number in range(1, 3):
        queue.add(_item(str(number), _draft(), 9.0, Place("ab"[number - 1], number)))
    queue.opened(again=False)
    flight = queue.next_flight(0)
    assert flight is not None
    assert queue.fail_after({"b": 0}) == [("2", Failure.UNSENT)]
    assert [item.ticket for item in flight.items] == ["1"]


def test_abandoned_envelope_is_sent_before_later_one() -> None:
    """Otherwise a publish of the later envelope would overtake it."""
    queue = _queue(in_flight=2)
    for number, due in enumerate((1.0, 1.0, 9.0), 1):
        queue.add(_item(str(number), _draft(), due))
    queue.opened(again=False)
    queue.confirmed(_next(queue))
    _next(queue)
    assert queue.expire(2.0) == [("1", Failure.UNKNOWN), ("2", Failure.UNKNOWN)]
    queue.closed()
    queue.opened(again=False)
    assert _next(queue).first == 1


class QueueAndStream(RuleBasedStateMachine):
    """A queue, the stream that it writes to, and a tail that drops repeats by number. The publishes have two orders.

    The wire keeps the prefix rule: after a lost append, no later append of the same connection is stored.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queue = self.make_queue()
        self.air: list[tuple[Flight[str], int, list[Draft]]] = []
        self.stream: list[tuple[int, list[Draft]]] = []
        self.read = self.highest = 0
        self.count = 0
        self.now = 0.0
        self.outcomes: dict[str, object] = {}
        self.delivered: list[str] = []
        self.live = False
        self.orders: dict[str, str] = {}
        self.before: dict[str, list[str]] = {}  # the publishes of the same order that had no outcome

    def make_queue(self) -> PublishQueue[str]:
        return _queue(envelope_records=3, in_flight=3)

    def _note(self, outcomes: Outcomes[str]) -> None:
        failed: dict[Hashable, int] = {}
        for ticket, outcome in outcomes:
            assert ticket not in self.outcomes, "each publish has one outcome"
            self.outcomes[ticket] = outcome
            if isinstance(outcome, Failure):
                order = self.orders[ticket]
                failed[order] = min(int(ticket), failed.get(order, int(ticket)))
        if failed:
            self._note(self.queue.fail_after(failed))

    @rule(deadline=st.integers(1, 20), order=st.sampled_from("ab"))
    def publish(self, deadline: int, order: str) -> None:
        self.count += 1
        ticket = str(self.count)
        same = (other for other, its in self.orders.items() if its == order)
        self.before[ticket] = [other for other in same if other not in self.outcomes]
        self.orders[ticket] = order
        assert self.queue.add(_item(ticket, _draft(b"%d" % self.count), self.now + deadline, Place(order, self.count)))

    @precondition(lambda self: not self.live)
    @rule()
    def connect(self) -> None:
        self._read_all()
        self.live = True
        self._note(self.queue.opened(again=False))

    @precondition(lambda self: self.live)
    @rule()
    def send(self) -> None:
        while (flight := self.queue.next_flight(0)) is not None:
            self.queue.sent(flight)
            self.air.append((flight, flight.first, flight.drafts))

    @precondition(lambda self: self.air)
    @rule(replied=st.booleans())
    def store_next(self, replied: bool) -> None:
        flight, first, drafts = self.air.pop(0)
        self.stream.append((first, drafts))
        if replied:
            self.queue.confirmed(flight)

    @precondition(lambda self: self.air)
    @rule()
    def refuse_next(self) -> None:
        flight, _, _ = self.air.pop(0)
        self._note(self.queue.refused(flight))

    @precondition(lambda self: self.air)
    @rule()
    def block_all(self) -> None:
        for flight, _, _ in self.air:
            self.queue.failed(flight, sent=False)
        self.air.clear()

    @precondition(lambda self: self.live)
    @rule(stored=st.integers(0, 3))
    def cut(self, stored: int) -> None:
        self.stream += [(first, drafts) for _, first, drafts in self.air[:stored]]
        self.air.clear()
        self.live = False
        self.queue.closed()

    @rule(count=st.integers(1, 3))
    def read_some(self, count: int) -> None:
        for first, drafts in self.stream[self.read : self.read + count]:
            self.read += 1
            skip = min(len(drafts), max(0, self.highest - first + 1))
            self.highest = max(self.highest, first + len(drafts) - 1)
            self.delivered += [draft.payload.decode() for draft in drafts[skip:]]
            if drafts[skip:]:
                self._note(self.queue.stored(first + skip, _receipts(len(drafts) - skip)))

    def _read_all(self) -> None:
        while self.read < len(self.stream):
            self.read_some(10)

    @rule(seconds=st.integers(1, 10))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        self._note(self.queue.expire(self.now))

    @invariant()
    def outcomes_are_exact(self) -> None:
        stored = {draft.payload.decode() for _, drafts in self.stream for draft in drafts}
        for ticket, outcome in self.outcomes.items():
            if isinstance(outcome, Receipt):
                assert ticket in self.delivered
            elif outcome is Failure.UNSENT:
                assert ticket not in stored
                assert not any(ticket == draft.payload.decode() for _, _, drafts in self.air for draft in drafts)

    @invariant()
    def deliveries_are_in_order_and_once(self) -> None:
        numbers = [int(ticket) for ticket in self.delivered]
        assert numbers == sorted(set(numbers))

    @invariant()
    def no_publish_overtakes_an_earlier_one(self) -> None:
        """A client that repeats what has failed, in order, therefore keeps its order."""
        for ticket in self.delivered:
            for other in self.before[ticket]:
                assert other in self.delivered, f"{ticket} is stored, and {other} of the same order is not"

    def teardown(self) -> None:
        self._note(self.queue.drain())
        assert len(self.outcomes) == self.count
        assert len(self.queue) == 0


TestQueueAndStream = QueueAndStream.TestCase
TestQueueAndStream.settings = settings(max_examples=100, stateful_step_count=30)


class FailsNoFollowers(PublishQueue[str]):
    def fail_after(self, failed: Mapping[Hashable, int]) -> Outcomes[str]:
        return []


class FailsWaitingFollowersOnly(PublishQueue[str]):
    def fail_after(self, failed: Mapping[Hashable, int]) -> Outcomes[str]:
        flights, self._flights = self._flights, type(self._flights)()
        outcomes = super().fail_after(failed)
        self._flights = flights
        return outcomes


class DropsAbandonedEnvelopes(PublishQueue[str]):
    def _drop_abandoned(self) -> None:
        kept = [flight for flight in self._flights if any(item.ticket is not None for item in flight.items)]
        self._flights = type(self._flights)(kept)


def refused_moment(world: QueueAndStream) -> None:
    """A publish expires while its envelope, which the broker did not take, waits."""
    world.publish(1, "a")
    world.publish(20, "a")
    world.connect()
    world.send()
    world.block_all()
    world.wait(2)
    world.send()
    while world.air:
        world.store_next(replied=True)


def cut_with_two_envelopes(world: QueueAndStream) -> None:
    """An envelope expires while the next one, which has a follower and another publish, waits."""
    world.publish(20, "b")
    world.connect()
    world.send()
    world.store_next(replied=True)
    for deadline, order in ((1, "a"), (1, "a"), (1, "a"), (20, "a"), (20, "b"), (20, "b")):
        world.publish(deadline, order)
    world.send()
    world.cut(0)
    world.wait(2)
    world.cut(0)
    world.connect()
    world.send()
    while world.air:
        world.store_next(replied=True)


@pytest.mark.parametrize("script", [refused_moment, cut_with_two_envelopes])
@pytest.mark.parametrize("mutant", [FailsNoFollowers, FailsWaitingFollowersOnly, DropsAbandonedEnvelopes, None])
def test_script_detects_broken_rule(
    script: Callable[[QueueAndStream], None], mutant: type[PublishQueue[str]] | None
) -> None:
    class World(QueueAndStream):
        def make_queue(self) -> PublishQueue[str]:
            return (mutant or PublishQueue)(StreamSettings(envelope_records=3, in_flight=3))

    world = World()
    script(world)
    world._read_all()
    stored = {"1", "2"} if script is refused_moment else {"1", *"234567"}
    broken = {
        refused_moment: (FailsNoFollowers, FailsWaitingFollowersOnly),
        cut_with_two_envelopes: (DropsAbandonedEnvelopes,),
    }
    assert set(world.delivered) <= stored
    if mutant in broken[script]:
        with pytest.raises(AssertionError, match="of the same order is not"):
            world.no_publish_overtakes_an_earlier_one()
    else:
        world.no_publish_overtakes_an_earlier_one()


def test_model_detects_broken_rule() -> None:
    class Broken(QueueAndStream):
        def make_queue(self) -> PublishQueue[str]:
            return FailsNoFollowers(StreamSettings(envelope_records=3, in_flight=3))

    search = settings(
        max_examples=2_000,
        stateful_step_count=30,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        deadline=None,
    )
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Broken, settings=search)
