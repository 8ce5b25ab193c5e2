"""From messages to writes: what arrives in one tick of the loop leaves in one write for each connection.

Messages for the same receivers are kept together and joined once for each codec, however many receivers there are. The
cost of a message does not grow with its receivers until the write, and a write carries all messages of the tick.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby
from operator import attrgetter, itemgetter, length_hint
from typing import Final, Protocol

from dws_core._node.sending.outbox import Outbox
from dws_core._node.stats import Counters
from dws_core._wire.codecs import Codec
from dws_core._wire.frames import Frame

logger = logging.getLogger("dws")

_CHUNK_BYTES: Final = 65_536
"""What is longer goes out in several writes, so that a socket which is full after the first is noticed."""

_MIN_PLANNED: Final = 32
"""Receivers for which planning pays."""

_MAX_PLANS: Final = 64
"""Sequences of receivers whose plans are kept."""

_OUTBOX = attrgetter("outbox")


class Receiver(Protocol):
    """Whatever has an outbox."""

    @property
    def outbox(self) -> Outbox:
        """Where its frames go."""
        ...


class Encodable(Protocol):
    """One message, encoded at most once for each codec."""

    def frame(self, codec: Codec) -> Frame | None:
        """Return the frame for connections of a codec; None: the codec cannot express it."""
        ...


class _Batch:
    """Messages of one tick for the same receivers, each with its number in the tick."""

    __slots__ = ("messages", "receivers")

    def __init__(self, receivers: Sequence[Receiver]) -> None:
        self.receivers = receivers
        self.messages: list[tuple[int, Encodable]] = []


class Fanout:
    """Collects what is sent in one tick of the event loop and writes it at the end of the tick, in order.

    Args:
        counters: Where deliveries are counted.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._batches: dict[int, _Batch] = {}
        self._plans = _Plans(counters)
        self._number = 0
        self._flushed: asyncio.Future[None] | None = None

    def push(self, receivers: Sequence[Receiver], message: Encodable) -> None:
        """Send a message to receivers; the sequence must not be changed afterwards.

        Cheapest where the same sequence object comes again.
        """
        self._push(id(receivers), receivers, message)
        self._counters.deliveries += len(receivers)

    def push_one(self, receiver: Receiver, message: Encodable) -> None:
        """Send a message to one receiver, in order with what it gets through `push`."""
        self._push(id(receiver), (receiver,), message)

    def flush(self) -> None:
        """Write now what waits for the end of the tick."""
        if not self._batches:
            return
        batches, self._batches, self._number = list(self._batches.values()), {}, 0
        if not (len(batches) == 1 and self._plans.write(batches)):
            for parts, outboxes in _by_parts(batches):
                _write(parts, outboxes)
        if self._flushed is not None:
            self._flushed.set_result(None)
            self._flushed = None

    async def flushed(self) -> None:
        """Wait for the end of the tick."""
        if self._batches:
            if self._flushed is None:
                self._flushed = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._flushed)

    def _push(self, key: int, receivers: Sequence[Receiver], message: Encodable) -> None:
        batch = self._batches.get(key)
        if batch is None:
            if not self._batches:
                asyncio.get_running_loop().call_soon(self.flush)
            batch = self._batches[key] = _Batch(receivers)  # keeps the receivers alive, and so the key unique
        self._number += 1
        batch.messages.append((self._number, message))


class _Plan:
    """How to write to receivers of one codec that all take frames at once.

    Attributes:
        receivers: Who; kept alive, and so their id unique.
        version: In which this holds.
        codec: Theirs.
        writes: One call for each; None: not made yet, or not possible in this version.
    """

    __slots__ = ("codec", "receivers", "version", "writes")

    def __init__(self, receivers: Sequence[Receiver], version: int) -> None:
        self.receivers = receivers
        self.version = version
        self.codec: Codec = receivers[0].outbox.codec
        self.writes: list[Callable[[bytes], object]] | None = None

    def make(self) -> None:
        """Collect the calls."""
        outboxes = [receiver.outbox for receiver in self.receivers]
        if all(outbox.direct and outbox.codec is self.codec for outbox in outboxes):
            self.writes = [outbox.write for outbox in outboxes]

    def write(self, data: bytes, writes: list[Callable[[bytes], object]]) -> None:
        """Write to all; one that raises is closed, the others go on."""
        rest = iter(writes)
        while True:
            try:
                for write in rest:
                    write(data)
            except Exception:
                logger.exception("a connection could not be written to; it is closed")
                self.receivers[len(writes) - length_hint(rest) - 1].outbox.close()
            else:
                return


class _Plans:
    """Plans for sequences of receivers that come again: a delivery touches nothing but its socket.

    A plan is made when its receivers come a second time within a version: where sockets fill and empty all the time, none
    is made.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._plans: dict[int, _Plan] = {}

    def write(self, batches: list[_Batch]) -> bool:
        """Write a batch by its plan; False: there is none, and nothing was written."""
        receivers = batches[0].receivers
        if len(receivers) < _MIN_PLANNED:
            return False
        plan = self._plans.get(id(receivers))
        if plan is None or plan.version != self._counters.plan_version:
            self._begin(receivers)
            return False
        if plan.writes is None:
            plan.make()
        whole = _Joined(batches, plan.codec).whole if plan.writes is not None else None
        if whole is None or plan.writes is None:
            return False
        plan.write(whole, plan.writes)
        return True

    def _begin(self, receivers: Sequence[Receiver]) -> None:
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        self._plans[id(receivers)] = _Plan(receivers, self._counters.plan_version)


def _by_parts(batches: list[_Batch]) -> Iterable[tuple[list[_Batch], Iterable[Outbox]]]:
    """Return batches that have receivers in common, with their outboxes; each outbox once."""
    if len(batches) == 1:
        return [(batches, map(_OUTBOX, batches[0].receivers))]
    found: dict[Outbox, list[_Batch]] = {}
    for batch in batches:
        for receiver in batch.receivers:
            parts = found.get(receiver.outbox)
            if parts is None:
                found[receiver.outbox] = [batch]
            else:
                parts.append(batch)
    grouped = groupby(found.items(), key=itemgetter(1))
    return ((parts, map(itemgetter(0), items)) for parts, items in grouped)


def _write(parts: list[_Batch], outboxes: Iterable[Outbox]) -> None:
    """Write messages to outboxes, joined once for each codec. The loop runs once for each delivery: see benchmarks."""
    joined: dict[str, _Joined] = {}
    codec: Codec | None = None
    for outbox in outboxes:
        if outbox.codec is not codec:
            codec = outbox.codec
            if codec.name not in joined:
                joined[codec.name] = _Joined(parts, codec)
            frames = joined[codec.name]
            whole = frames.whole
        try:
            if outbox.direct and whole is not None:
                outbox.write(whole)
            else:
                frames.write_to(outbox)
        except Exception:
            logger.exception("a connection could not be written to; it is closed")
            outbox.close()


class _Joined:
    """The messages of batches, in the order they were sent, for connections of one codec.

    Attributes:
        whole: All of them for one write; None: they are too much, or nothing.
    """

    __slots__ = ("_chunks", "whole")

    def __init__(self, parts: list[_Batch], codec: Codec) -> None:
        encoded = [message.frame(codec) for message in _in_order(parts)]
        chunks = _chunks(frame for frame in encoded if frame is not None)
        self._chunks = [(b"".join([frame.ready for frame in chunk]), chunk) for chunk in chunks]
        self.whole: bytes | None = self._chunks[0][0] if len(self._chunks) == 1 else None

    def write_to(self, outbox: Outbox) -> None:
        """Write chunk by chunk, or hand over the frames where the socket takes no more."""
        for data, frames in self._chunks:
            if outbox.direct:
                outbox.write(data)
            else:
                outbox.put(frames)


def _chunks(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    chunk: list[Frame] = []
    size = 0
    for frame in frames:
        if chunk and size + len(frame) > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(frame)
        size += len(frame)
    if chunk:
        yield chunk


def _in_order(parts: list[_Batch]) -> list[Encodable]:
    numbered = parts[0].messages
    if len(parts) > 1:
        numbered = sorted(chain.from_iterable(part.messages for part in parts), key=itemgetter(0))
    return [message for _, message in numbered]
