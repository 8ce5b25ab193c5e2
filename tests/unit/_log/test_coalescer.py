from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dws_core._log.coalescer import Coalescer


class Desk:
    """A coalescer with a manual event-loop tick, and the batches it sent."""

    def __init__(self, **options: int) -> None:
        self.sent: list[tuple[int, list[object]]] = []
        self.refused: list[tuple[int, list[object]]] = []
        self.refuses = False
        self._next: list[Callable[[], None]] = []
        self.coalescer: Coalescer[object] = Coalescer(self._send, call_soon=self._next.append, **options)

    def _send(self, partition: int, batch: list[object]) -> None:
        if self.refuses:
            self.refused.append((partition, batch))
            raise RuntimeError("refused, for the test")
        self.sent.append((partition, batch))

    def tick(self) -> int:
        due, self._next[:] = list(self._next), []
        for callback in due:
            callback()
        return len(due)

    def refuse(self) -> bool:
        """Tick while every send fails, and return whether a send was attempted."""
        self.refuses = True
        try:
            self.tick()
        except RuntimeError:
            return True
        finally:
            self.refuses = False
        return False


def test_items_of_one_tick_share_batch_per_partition() -> None:
    desk = Desk()
    for partition, item in ((0, "a"), (1, "b"), (0, "c")):
        desk.coalescer.add(partition, item, 1)
    assert desk.sent == []
    assert desk.tick() == 1, "one callback for the tick"
    assert desk.sent == [(0, ["a", "c"]), (1, ["b"])]
    assert desk.tick() == 0


def test_batch_is_limited_by_item_count() -> None:
    desk = Desk()
    for n in range(65):
        desk.coalescer.add(0, n, 1)
    desk.tick()
    assert [len(batch) for _, batch in desk.sent] == [64, 1]


def test_batch_is_limited_by_bytes() -> None:
    """An item that is larger than the limit is sent alone."""
    desk = Desk(max_bytes=10)
    for item, size in (("a", 4), ("b", 6), ("c", 1), ("huge", 50), ("d", 1)):
        desk.coalescer.add(0, item, size)
    assert desk.coalescer.waiting_bytes == 62
    desk.tick()
    assert desk.sent == [(0, ["a", "b"]), (0, ["c"]), (0, ["huge"]), (0, ["d"])]
    assert desk.coalescer.waiting_bytes == 0


def test_unanswered_batches_are_limited() -> None:
    desk = Desk(max_items=1, max_in_flight=2)
    for item in "abcd":
        desk.coalescer.add(0, item, 1)
    desk.coalescer.add(1, "x", 1)
    desk.tick()
    assert desk.sent == [(0, ["a"]), (0, ["b"]), (1, ["x"])]
    assert desk.coalescer.waiting_bytes == 2
    desk.coalescer.answered(0)
    desk.tick()
    assert desk.sent[3:] == [(0, ["c"])]
    desk.coalescer.answered(1)
    assert desk.tick() == 0, "nothing waits in partition 1"


def test_drain_returns_unsent_items() -> None:
    desk = Desk(max_items=1, max_in_flight=1)
    desk.coalescer.add(0, "a", 1)
    desk.tick()
    desk.coalescer.add(0, "b", 1)
    desk.coalescer.add(1, "c", 1)
    assert desk.coalescer.drain() == ["b", "c"]
    assert desk.coalescer.waiting_bytes == 0
    desk.tick()
    assert desk.sent == [(0, ["a"])]


def test_drop_removes_matching_items_and_bytes() -> None:
    desk = Desk(max_items=1, max_in_flight=1)
    desk.coalescer.add(0, "sent", 1)
    desk.tick()
    for partition, item, size in ((0, "a", 2), (0, "old", 3), (0, "b", 4), (1, "old", 5)):
        desk.coalescer.add(partition, item, size)
    desk.coalescer.drop(lambda item: item == "old")
    assert desk.coalescer.waiting_bytes == 6
    desk.coalescer.add(0, "c", 1)
    for _ in range(3):
        desk.coalescer.answered(0)
        desk.tick()
    assert [batch for _, batch in desk.sent] == [["sent"], ["a"], ["b"], ["c"]], "nothing in partition 1"
    assert desk.coalescer.waiting_bytes == 0


def test_drop_of_all_items_leaves_nothing_to_send() -> None:
    desk = Desk()
    desk.coalescer.drop(lambda _: True)
    desk.coalescer.add(0, "a", 1)
    desk.coalescer.drop(lambda _: True)
    desk.tick()
    assert (desk.sent, desk.coalescer.waiting_bytes, desk.coalescer.drain()) == ([], 0, [])


def test_failed_batch_is_discarded_and_others_are_sent() -> None:
    """The failed batch counts as answered, so the other batches are sent in the next tick."""
    desk = Desk(max_items=1, max_in_flight=1)
    for partition, item in ((0, "poison"), (0, "a"), (1, "b")):
        desk.coalescer.add(partition, item, 1)
    assert desk.refuse(), "it is told"
    assert (desk.refused, desk.sent) == ([(0, ["poison"])], [])
    assert desk.coalescer.waiting_bytes == 2
    assert desk.tick() == 1
    assert desk.sent == [(0, ["a"]), (1, ["b"])], "it counts as answered: there is room for the next one"


def test_failed_last_batch_leaves_no_state() -> None:
    desk = Desk()
    desk.coalescer.add(0, "poison", 1)
    assert desk.refuse()
    desk.tick()
    assert desk.tick() == 0
    desk.coalescer.add(0, "a", 1)
    desk.tick()
    assert desk.sent == [(0, ["a"])]


class AnyOrder(RuleBasedStateMachine):
    """Items are sent once, in order and within the bounds, for any sequence of add, drop, answer and refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk(max_items=3, max_bytes=12, max_in_flight=2)
        self.waiting: dict[int, list[tuple[int, int]]] = {0: [], 1: [], 2: []}  # number and size
        self.number = self.seen = self.answered = 0

    @rule(partition=st.integers(0, 2), size=st.integers(0, 9))
    def add(self, partition: int, size: int) -> None:
        self.number += 1
        self.waiting[partition].append((self.number, size))
        self.desk.coalescer.add(partition, (self.number, size), size)

    @rule()
    def tick(self) -> None:
        self.desk.tick()

    @rule()
    def refuse(self) -> None:
        self.desk.refuse()

    @precondition(lambda self: self.answered < len(self.desk.sent))
    @rule()
    def answer(self) -> None:
        self.desk.coalescer.answered(self.desk.sent[self.answered][0])
        self.answered += 1

    @rule(sizes=st.sets(st.integers(0, 9), max_size=3))
    def drop(self, sizes: set[int]) -> None:
        self.desk.coalescer.drop(lambda item: item[1] in sizes)  # type: ignore[index]
        for partition, items in self.waiting.items():
            self.waiting[partition] = [item for item in items if item[1] not in sizes]

    def take_what_has_left(self) -> None:
        for partition, batch in self.desk.sent[self.seen :] + self.desk.refused:
            assert 1 <= len(batch) <= 3
            assert len(batch) == 1 or sum(size for _, size in batch) <= 12  # type: ignore[misc]
            assert batch == self.waiting[partition][: len(batch)]
            del self.waiting[partition][: len(batch)]
        self.seen = len(self.desk.sent)
        self.desk.refused.clear()

    @invariant()
    def what_has_left_was_next_and_the_bounds_hold(self) -> None:
        self.take_what_has_left()
        sizes = [size for items in self.waiting.values() for _, size in items]
        assert self.desk.coalescer.waiting_bytes == sum(sizes)
        for partition in self.waiting:
            assert sum(p == partition for p, _ in self.desk.sent[self.answered :]) <= 2

    def teardown(self) -> None:
        while self.desk.tick() or self.answered < len(self.desk.sent):
            while self.answered < len(self.desk.sent):
                self.answer()
            self.take_what_has_left()
        assert not any(self.waiting.values()), "all that is wanted has left"


AnyOrder.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestAnyOrder = AnyOrder.TestCase
