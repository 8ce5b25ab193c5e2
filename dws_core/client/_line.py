"""The publishes of a client to one topic, which keep their order when the node refuses some of them."""

from __future__ import annotations

import asyncio

from dws_core._log.backoff import Backoff


class Entry:
    """One publish of a line.

    Attributes:
        recall: While it is sent, set when an earlier one was refused.
        turn: While it waits, set when it may be sent.
    """

    __slots__ = ("recall", "turn")

    def __init__(self) -> None:
        self.recall: asyncio.Future[None] | None = None
        self.turn: asyncio.Future[None] | None = None


class Line:
    """The publishes to one topic, in their order.

    When one is refused temporarily, it waits, and all later ones with it. After a delay, all are sent in their order.

    Args:
        backoff: Delays after refusals.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._entries: dict[Entry, None] = {}
        self._waiting = 0  # number of entries with a turn
        self._backoff = backoff
        self._pause: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def enter(self) -> Entry:
        """Add a publish at the end."""
        entry = Entry()
        self._entries[entry] = None
        return entry

    def leave(self, entry: Entry) -> None:
        """Remove a publish that has ended."""
        del self._entries[entry]
        self._go(entry)

    async def turn(self, entry: Entry) -> asyncio.Future[None]:
        """Wait until a publish may be sent. Return the future that recalls it. The caller must send in the same step."""
        if entry.turn is None and self._waiting:
            self._wait(entry)
        if entry.turn is not None:
            await entry.turn
        self._go(entry)
        entry.recall = asyncio.get_running_loop().create_future()
        return entry.recall

    def stored(self) -> None:
        """Note that a publish has succeeded."""
        self._backoff.reset()

    def refused(self, entry: Entry, retry_in_s: float) -> None:
        """Let a publish that was refused wait, and recall all later ones."""
        later = False
        for other in self._entries:
            later = later or other is entry
            if later and other.recall is not None:
                self._wait(other)
                other.recall.set_result(None)
                other.recall = None
        if self._pause is None:
            self._pause = asyncio.get_running_loop().call_later(max(retry_in_s, self._backoff.next_s()), self._continue)

    def _wait(self, entry: Entry) -> None:
        entry.turn = asyncio.get_running_loop().create_future()
        self._waiting += 1

    def _continue(self) -> None:
        self._pause = None
        self._release()

    def _go(self, entry: Entry) -> None:
        """Note that a publish does not wait any more, and let the next one go."""
        if entry.turn is not None:
            entry.turn = None
            self._waiting -= 1
            if self._pause is None:
                self._release()

    def _release(self) -> None:
        """Let the first publish that waits go. It releases the next one."""
        turns = (entry.turn for entry in self._entries if entry.turn is not None)
        if (turn := next(turns, None)) is not None and not turn.done():
            turn.set_result(None)
