"""Recognizing records that were stored before: repeats of a publisher, and repeats of an application under one key."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from dws_core._log.records import Offset

KEY_WINDOW_MS: Final = 60_000
"""Time in which a repeat of (topic, key) is recognized, by the times in the records."""

_SKEW_MS: Final = 3_600_000
"""Largest difference of clocks. A record that is further in the future is the original of nothing."""


class Dedupe:
    """What one partition contained in the recent past. A pure function of the stream, so all nodes agree.

    Args:
        publishers: Maximum number of publishers to remember. The one that was silent for longest is forgotten first.
        keys: Maximum number of keys to remember.
    """

    def __init__(self, *, publishers: int = 4096, keys: int = 250_000) -> None:
        self._max_publishers = publishers
        self._max_keys = keys
        self._highest: OrderedDict[bytes, int] = OrderedDict()
        self._missed: dict[bytes, int] = {}
        self._keys: OrderedDict[tuple[str, str], tuple[int, Offset | None]] = OrderedDict()

    def misses(self, publisher: bytes, previous: int) -> bool:
        """Return whether records of a known publisher are missing, up to a sequence number. They are missed only once.

        They may still come later, and are no repeats then.
        """
        if previous <= max(self._highest.get(publisher, previous), self._missed.get(publisher, 0)):
            return False
        self._missed[publisher] = previous
        return True

    def lacks(self, publisher: bytes, number: int) -> bool:
        """Return whether a known publisher's records up to a sequence number are still to come."""
        return number > self._highest.get(publisher, number)

    def repeated(self, publisher: bytes, first: int, count: int) -> int:
        """Note a publisher's records, and return how many at their beginning are repeats.

        A publisher resends in order with unchanged numbers. So "not above the highest" means "seen before".
        """
        highest = self._highest.get(publisher, 0)
        last = first + count - 1
        if last > highest:
            self._highest[publisher] = last
            self._highest.move_to_end(publisher)
            if len(self._highest) > self._max_publishers:
                forgotten, _ = self._highest.popitem(last=False)
                self._missed.pop(forgotten, None)
        return min(count, max(0, highest - first + 1))

    def find_key(self, topic: str, key: str, time_ms: int) -> tuple[Offset | None] | None:
        """Return the place of the first record with this key, in a tuple because it may be None; or None."""
        found = self._keys.get((topic, key))
        return (found[1],) if found is not None and -_SKEW_MS < time_ms - found[0] < KEY_WINDOW_MS else None

    def add_key(self, topic: str, key: str, time_ms: int, offset: Offset | None) -> None:
        """Note the first record with a key."""
        self._keys[topic, key] = (time_ms, offset)
        self._keys.move_to_end((topic, key))
        self._forget_keys(time_ms)

    def _forget_keys(self, time_ms: int) -> None:
        # Clocks of publishers differ, so a key is kept for two windows. The new key is the last one, and stays.
        while len(self._keys) > self._max_keys or not self._is_recent(next(iter(self._keys.values()))[0], time_ms):
            self._keys.popitem(last=False)

    def _is_recent(self, key_ms: int, time_ms: int) -> bool:
        return -_SKEW_MS < time_ms - key_ms <= 2 * KEY_WINDOW_MS
