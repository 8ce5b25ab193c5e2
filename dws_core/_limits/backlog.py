"""What waits for one slow connection: frames in order, bounded in bytes, and what gives way when there are too many."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Literal, TypeAlias, get_args

from dws_core._wire.frames import Frame

SlowConsumer: TypeAlias = Literal["close", "drop-oldest", "drop-newest", "keep-latest"]
"""What happens to a connection that does not read fast enough.

`close`: over its limit it is closed with 4000; it comes back and recovers. `drop-oldest`, `drop-newest`: over the limit
the oldest or newest waiting deliveries are dropped. `keep-latest`: of each topic only the newest delivery waits, and
over the limit the connection is closed. Answers and announcements are never dropped; dropped deliveries are counted.
"""

SLOW_CONSUMER: Final = get_args(SlowConsumer)


class Backlog:
    """Frames that wait for one connection.

    Args:
        limit_bytes: Payload bytes that may wait; None: no limit. One frame alone may be larger.
        policy: What gives way over the limit.
    """

    __slots__ = ("_count", "_frames", "_limit_bytes", "_policy", "size_bytes")

    def __init__(self, limit_bytes: int | None, policy: SlowConsumer) -> None:
        self._frames: OrderedDict[int | str, Frame] = OrderedDict()
        self._limit_bytes = limit_bytes
        self._policy = policy
        self._count = 0
        self.size_bytes: int = 0

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: Frame, *, beside_bytes: int = 0) -> int | None:
        """Add a frame; return how many deliveries gave way, or None: over the limit, and nothing may give way.

        Args:
            frame: What is to wait.
            beside_bytes: Bytes that wait further on, in the server's buffer; they count against the limit.
        """
        dropped = 0
        self._count += 1
        key: int | str = self._count
        if self._policy == "keep-latest" and frame.topic is not None:
            key = frame.topic
            dropped += self._drop(key)
        self._frames[key] = frame
        self.size_bytes += len(frame)
        while self._is_over(beside_bytes):
            victim = self._victim()
            if victim is None:
                return None
            dropped += self._drop(victim)
        return dropped

    def take(self) -> Frame:
        """Remove and return the first frame.

        Raises:
            KeyError: Nothing waits.
        """
        frame = self._frames.popitem(last=False)[1]
        self.size_bytes -= len(frame)
        return frame

    def _is_over(self, beside_bytes: int) -> bool:
        if self._limit_bytes is None or not self._frames:
            return False
        alone = len(self._frames) == 1 and not beside_bytes
        return not alone and self.size_bytes + beside_bytes > self._limit_bytes

    def _victim(self) -> int | str | None:
        if self._policy == "drop-oldest":
            return next((key for key, frame in self._frames.items() if frame.topic is not None), None)
        if self._policy == "drop-newest":
            return next((key for key, frame in reversed(self._frames.items()) if frame.topic is not None), None)
        return None

    def _drop(self, key: int | str) -> int:
        frame = self._frames.pop(key, None)
        if frame is None:
            return 0
        self.size_bytes -= len(frame)
        return 1
