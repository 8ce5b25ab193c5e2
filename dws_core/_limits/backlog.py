"""The queue of one slow connection: frames in order, limited in bytes, with a policy that chooses what to drop."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Literal, TypeAlias, get_args

from dws_core._wire.frames import Frame

SlowConsumer: TypeAlias = Literal["close", "drop-oldest", "drop-newest", "keep-latest"]
"""Policy for a connection that does not read fast enough.

- `close`: Close the connection with 4000 when it is over the limit for a second, or far over it. The client reconnects
  and recovers.
- `drop-oldest`, `drop-newest`: Drop the oldest or newest queued messages when the connection is over the limit.
- `keep-latest`: Queue only the newest message of each topic. Close the connection when it is over the limit anyway.

Frames without a topic, such as replies and gaps, are never dropped. Dropped messages are counted.
"""

SLOW_CONSUMER: Final = get_args(SlowConsumer)


class Backlog:
    """The frames that are queued for one connection.

    Args:
        limit_bytes: Maximum payload size of all queued frames, in bytes. A single frame may be larger. If None, the
            size is not limited.
        policy: Policy that chooses what to drop above the limit.
        moved_s: Current time, in seconds of any clock.

    Attributes:
        size_bytes: Payload size of all queued frames, in bytes.
        moved_s: Time when the socket last accepted queued data, or when the queue was created. The owner keeps it.
    """

    __slots__ = ("_count", "_frames", "_limit_bytes", "_policy", "moved_s", "size_bytes")

    def __init__(self, limit_bytes: int | None, policy: SlowConsumer, *, moved_s: float = 0.0) -> None:
        self._frames: OrderedDict[int | str, Frame] = OrderedDict()
        self._limit_bytes = limit_bytes
        self._policy = policy
        self._count = 0
        self.size_bytes: int = 0
        self.moved_s: float = moved_s

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: Frame, *, sent_bytes: int = 0) -> int | None:
        """Add a frame.

        Args:
            frame: The frame to queue.
            sent_bytes: Number of bytes in the server's buffer, which also count against the limit.

        Returns:
            The number of messages that were dropped, or None if the queue is over the limit and nothing may be dropped.
        """
        dropped = 0
        self._count += 1
        key: int | str = self._count
        if self._policy == "keep-latest" and frame.topic is not None:
            key = frame.topic
            dropped += self._drop(key)
        self._frames[key] = frame
        self.size_bytes += len(frame)
        while self._is_over(sent_bytes):
            victim = self._victim()
            if victim is None:
                return None
            dropped += self._drop(victim)
        return dropped

    def take(self) -> Frame:
        """Remove and return the first frame.

        Raises:
            KeyError: The queue is empty.
        """
        frame = self._frames.popitem(last=False)[1]
        self.size_bytes -= len(frame)
        return frame

    def _is_over(self, sent_bytes: int) -> bool:
        if self._limit_bytes is None or not self._frames:
            return False
        alone = len(self._frames) == 1 and not sent_bytes
        return not alone and self.size_bytes + sent_bytes > self._limit_bytes

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
