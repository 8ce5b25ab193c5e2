"""The past of one new filter on a connection, until live delivery.

The rule, next to that of `recovery`: a replay belongs to its filter. It contains every message of the filter from its
start on, whether or not other filters of the connection have delivered it. Live messages of the filter wait until the
replay has ended, and live messages of other filters do not.

The last messages of a topic are found first, up to some offset. The recovery then begins at that offset, so that nothing
is lost or repeated between the two.

No I/O, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from dws_core._log.recovery import Answer, Due, Recovery
from dws_core._log.tail import Lost
from dws_core._wire.cursor import Position


class Replay:
    """The past of one filter.

    The caller must pass all events and results to `recovery`, as described there, and send the items of `take`.

    Args:
        recovery: Recovers the topics of the filter, and no others.
        past: Records that were found before, up to the position at which the recovery begins, oldest first. All belong
            to one partition and have offsets.
    """

    __slots__ = ("_begin", "_past", "recovery")

    def __init__(self, recovery: Recovery, past: Iterable[Due] = ()) -> None:
        self.recovery: Recovery = recovery
        self._past = deque(past)
        self._begin = _before(self._past[0]) if self._past else None

    def answer(self) -> Answer:
        """Return the answer to the client. If it is a gap, no past messages follow.

        Raises:
            RuntimeError: The recovery has no answer yet.
        """
        answer = self.recovery.answer
        if answer is None:
            raise RuntimeError("the recovery has no answer yet")
        if answer.gap is not None:
            self._past.clear()
        elif self._begin is not None:
            return Answer(cursor={**answer.cursor, self._begin.partition: self._begin})
        return answer

    @property
    def settled(self) -> bool:
        """Whether everything was taken, so that the next live record is the filter's next message."""
        return not self._past and self.recovery.settled

    def take(self, *, max_messages: int, max_bytes: int) -> list[Due | Lost]:
        """Return the next items to send, oldest first, as `Recovery.take`. Call it after `answer`."""
        taken: list[Due | Lost] = []
        while self._past and len(taken) < max_messages and max_bytes > 0:
            due = self._past.popleft()
            taken.append(due)
            max_bytes -= len(due.record.payload)
        if not self._past:
            taken += self.recovery.take(max_messages=max_messages - len(taken), max_bytes=max_bytes)
        return taken


def _before(due: Due) -> Position:
    """Return the position from which a record is the next one."""
    return Position(due.partition, due.epoch, (due.record.offset or 1) - 1)
