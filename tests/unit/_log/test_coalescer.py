from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from dws_core._log.coalescer import Coalescer


class Desk:
    """A loop that ticks when told to, and what was sent."""

    def __init__(self, **options: int) -> None:
        self.sent: list[tuple[int, list[object]]] = []
        self._next: list[Callable[[], None]] = []
        self.coalescer: Coalescer[object] = Coalescer(
            lambda partition, batch: self.sent.append((partition, batch)), call_soon=self._next.append, **options
        )

    def tick(self) -> int:
        due, self._next[:] = list(self._next), []
        for callback in due:
            callback()
        return len(due)


def test_what_is_added_in_a_tick_leaves_in_one_batch_for_each_partition() -> None:
    desk = Desk()
    for partition, item in ((0, "a"), (1, "b"), (0, "c")):
        desk.coalescer.add(partition, item, 1)
    assert desk.sent == []
    assert desk.tick() == 1, "one callback for the tick"
    assert desk.sent == [(0, ["a", "c"]), (1, ["b"])]
    assert desk.tick() == 0


def test_a_batch_ends_at_its_number_of_items() -> None:
    desk = Desk()
    for n in range(65):
        desk.coalescer.add(0, n, 1)
    desk.tick()
    assert [len(batch) for _, batch in desk.sent] == [64, 1]


def test_a_batch_ends_at_its_bytes_and_a_larger_item_travels_alone() -> None:
    desk = Desk(max_bytes=10)
    for item, size in (("a", 4), ("b", 6), ("c", 1), ("huge", 50), ("d", 1)):
        desk.coalescer.add(0, item, size)
    assert desk.coalescer.waiting_bytes == 62
    desk.tick()
    assert desk.sent == [(0, ["a", "b"]), (0, ["c"]), (0, ["huge"]), (0, ["d"])]
    assert desk.coalescer.waiting_bytes == 0


def test_more_than_a_few_unanswered_batches_wait_for_answers() -> None:
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


def test_draining_takes_out_what_was_not_sent() -> None:
    desk = Desk(max_items=1, max_in_flight=1)
    desk.coalescer.add(0, "a", 1)
    desk.tick()
    desk.coalescer.add(0, "b", 1)
    desk.coalescer.add(1, "c", 1)
    assert desk.coalescer.drain() == ["b", "c"]
    assert desk.coalescer.waiting_bytes == 0
    desk.tick()
    assert desk.sent == [(0, ["a"])]


@given(st.lists(st.one_of(st.tuples(st.integers(0, 2), st.integers(0, 9)), st.sampled_from(["tick", "answer"]))))
def test_whatever_the_broker_does_items_leave_once_in_order_within_the_bounds(steps: list[object]) -> None:
    desk = Desk(max_items=3, max_bytes=12, max_in_flight=2)
    added: dict[int, list[object]] = {0: [], 1: [], 2: []}
    answered = 0
    for number, step in enumerate(steps):
        if step == "tick":
            desk.tick()
        elif step == "answer" and answered < len(desk.sent):
            desk.coalescer.answered(desk.sent[answered][0])
            answered += 1
        elif isinstance(step, tuple):
            partition, size = step
            added[partition].append((number, size))
            desk.coalescer.add(partition, (number, size), size)
        for partition in added:
            assert sum(p == partition for p, _ in desk.sent[answered:]) <= 2
    while desk.tick() or answered < len(desk.sent):
        for partition, _ in desk.sent[answered:]:
            desk.coalescer.answered(partition)
            answered += 1
    for partition, items in added.items():
        assert [item for p, batch in desk.sent if p == partition for item in batch] == items
    for _, batch in desk.sent:
        assert 1 <= len(batch) <= 3
        assert len(batch) == 1 or sum(size for _, size in batch) <= 12  # type: ignore[misc]
