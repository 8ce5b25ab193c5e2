"""Finding the place where to begin to read, so that everything of the last minute before a place is read, too."""

from __future__ import annotations

from typing import Final

from dws_core._log.stream.dedupe import KEY_WINDOW_MS
from dws_core._log.stream.wire import Start

LOOKBACK_MS: Final = KEY_WINDOW_MS + 30_000
"""How far to read back. More than the window of keys, because the clocks of publishers differ."""

_STEP: Final = 64


class Lookback:
    """A search in growing steps. The caller reads the envelope at `sample` and reports it until `start` is set.

    Args:
        end: Stream offset to look back from.
        time_ms: Time of the envelope at `end`.

    Attributes:
        sample: Offset of the envelope to look at.
        start: Where to begin to read, or None while the search goes on. `Start.FIRST` if the window begins before
            everything that is stored.
    """

    def __init__(self, end: int, time_ms: int) -> None:
        self.sample = max(0, end - _STEP)
        self.start: int | Start | None = None
        self._until_ms = time_ms - LOOKBACK_MS
        self._step = _STEP

    def found(self, time_ms: int, *, suitable: bool) -> None:
        """Report the envelope: its time, and whether reading can begin there."""
        if time_ms <= self._until_ms and suitable:
            self.start = self.sample
        elif self.sample == 0:
            self.start = Start.FIRST
        else:
            self._step *= 2
            self.sample = max(0, self.sample - self._step)

    def missing(self) -> None:
        """Report that nothing is stored there."""
        self.start = Start.FIRST
