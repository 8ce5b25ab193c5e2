"""Batched fan-out: all messages of one event-loop tick are written to each connection with one call.

Messages for the same receivers are collected together and joined once for each codec, for any number of receivers. The
cost of a message grows with its receivers only in the write itself, and a write carries all messages of the tick.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby
from operator import attrgetter, itemgetter, length_hint
from typing import Final, Protocol

from dws_core._node.sending.outbox import CHUNK_BYTES, Outbox
from dws_core._node.stats import Counters
from dws_core._wire.codecs import Codec
from dws_core._wire.frames import Frame, encode_frame
from dws_core._wire.message import JSON

logger = logging.getLogger("dws")

_MIN_PLANNED: Final = 32
"""Minimum number of receivers that are worth a plan."""

_MAX_PLANS: Final = 64
"""Maximum number of receiver sequences whose plans are kept."""

_OUTBOX = attrgetter("_outbox")


class Receiver(Protocol):
    """Anything with an outbox. The attribute is private because connections are public objects."""

    @property
    def _outbox(self) -> Outbox:
        """The writing side of the connection."""
        ...


class Encodable(Protocol):
    """One message, encoded at most once for each codec."""

    def frame(self, codec: Codec) -> Frame | None:
        """Return the frame for connections with a codec, or None if the codec cannot encode the message."""
        ...


class _Batch:
    """Messages of one tick for the same receivers. Each has its number in the tick."""

    __slots__ = ("messages", "receivers")

    def __init__(self, receivers: Sequence[Receiver]) -> None:
        self.receivers = receivers
        self.messages: list[tuple[int, Encodable]] = []


class Fanout:
    """Collects the messages of one event-loop tick and writes them at the end of the tick, in order.

    Args:
        counters: Counts deliveries.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._batches: dict[int, _Batch] = {}
        self._plans = _Plans(counters)
        self._number = 0
        self._flushed: asyncio.Future[None] | None = None

    def push(self, receivers: Sequence[Receiver], message: Encodable) -> None:
        """Send a message to receivers. Do not change the sequence afterwards.

        Repeated use of the same sequence object is cheapest.
        """
        self._push(id(receivers), receivers, message)
        self._counters.deliveries += len(receivers)

    def push_one(self, receiver: Receiver, message: Encodable) -> bool:
        """Send a message to one receiver, in order with its messages of `push`. Return False if it is closed."""
        if receiver._outbox.closed:
            return False
        self._push(id(receiver), (receiver,), message)
        return True

    def push_each(self, receiver: Receiver, messages: Sequence[Encodable]) -> None:
        """Send messages to one receiver, as `push_one`."""
        if messages and self.push_one(receiver, messages[0]):
            first = self._number + 1
            self._batches[id(receiver)].messages.extend(enumerate(messages[1:], first))
            self._number += len(messages) - 1

    def send(self, receiver: Receiver, message: JSON) -> bool:
        """Encode a message for one receiver and send it. Return False if the receiver is closed.

        Raises:
            CodecError: The receiver's codec cannot encode the message.
        """
        return self.push_one(receiver, encode_frame(receiver._outbox.codec, message))

    def flush(self) -> None:
        """Write the collected messages now."""
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
        """Wait until the messages of this tick are written."""
        if self._batches:
            if self._flushed is None:
                self._flushed = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._flushed)

    def _push(self, key: int, receivers: Sequence[Receiver], message: Encodable) -> None:
        batch = self._batches.get(key)
        if batch is None:
            if not self._batches:
                asyncio.get_running_loop().call_soon(self.flush)
            batch = self._batches[key] = _Batch(receivers)  # keeps the receivers alive, so that the key stays unique
        self._number += 1
        batch.messages.append((self._number, message))


class _Plan:
    """The write calls for receivers that share one codec and all accept frames directly.

    Attributes:
        receivers: The receivers. The reference keeps their `id()` unique.
        version: Value of `Counters.plan_version` for which the plan is valid.
        codec: The codec of all receivers.
        writes: One write call per receiver. None before `make`, or if a plan is impossible in this version.
    """

    __slots__ = ("codec", "receivers", "version", "writes")

    def __init__(self, receivers: Sequence[Receiver], version: int) -> None:
        self.receivers = receivers
        self.version = version
        self.codec: Codec = receivers[0]._outbox.codec
        self.writes: list[Callable[[bytes], object]] | None = None

    def make(self) -> None:
        """Collect the write calls."""
        outboxes = [receiver._outbox for receiver in self.receivers]
        if all(outbox.direct and outbox.codec is self.codec for outbox in outboxes):
            self.writes = [outbox.write for outbox in outboxes]

    def write(self, data: bytes, writes: list[Callable[[bytes], object]]) -> None:
        """Write to all receivers. Close a receiver whose write raises, and continue with the others."""
        rest = iter(writes)
        while True:
            try:
                for write in rest:
                    write(data)
            except Exception:
                logger.exception("writing to a connection failed, so it is closed")
                self.receivers[len(writes) - length_hint(rest) - 1]._outbox.close()
            else:
                return


class _Plans:
    """Plans for receiver sequences that repeat: a planned delivery only touches its sockets.

    A plan is made when its receivers repeat within one version. Where sockets fill and drain all the time, no plan is made.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._plans: dict[int, _Plan] = {}

    def write(self, batches: list[_Batch]) -> bool:
        """Write a batch by its plan. Return False, without writing, if there is no plan."""
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
    """Group outboxes by the batches they receive. Each outbox is returned once."""
    if len(batches) == 1:
        return [(batches, map(_OUTBOX, batches[0].receivers))]
    found: dict[Outbox, list[_Batch]] = {}
    for batch in batches:
        for receiver in batch.receivers:
            parts = found.get(receiver._outbox)
            if parts is None:
                found[receiver._outbox] = [batch]
            else:
                parts.append(batch)
    grouped = groupby(found.items(), key=itemgetter(1))
    return ((parts, map(itemgetter(0), items)) for parts, items in grouped)


def _write(parts: list[_Batch], outboxes: Iterable[Outbox]) -> None:
    """Write messages to outboxes, joined once per codec. The loop runs once per delivery and dominates the benchmarks."""
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
            logger.exception("writing to a connection failed, so it is closed")
            outbox.close()


class _Joined:
    """The messages of batches, in the order of sending, encoded for one codec.

    Attributes:
        whole: All messages as one write, or None if they are too long or empty.
    """

    __slots__ = ("_chunks", "whole")

    def __init__(self, parts: list[_Batch], codec: Codec) -> None:
        encoded = [message.frame(codec) for message in _in_order(parts)]
        chunks = _chunks(frame for frame in encoded if frame is not None)
        self._chunks = [(b"".join([frame.ready for frame in chunk]), chunk) for chunk in chunks]
        self.whole: bytes | None = self._chunks[0][0] if len(self._chunks) == 1 else None

    def write_to(self, outbox: Outbox) -> None:
        """Write chunk by chunk. Queue the frames in the outbox if the socket is full."""
        for data, frames in self._chunks:
            if outbox.direct:
                outbox.write(data)
            else:
                outbox.put(frames)


def _chunks(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    chunk: list[Frame] = []
    size = 0
    for frame in frames:
        length = len(frame.payload)
        if chunk and size + length > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(frame)
        size += length
    if chunk:
        yield chunk


def _in_order(parts: list[_Batch]) -> list[Encodable]:
    numbered = parts[0].messages
    if len(parts) > 1:
        numbered = sorted(chain.from_iterable(part.messages for part in parts), key=itemgetter(0))
    return [message for _, message in numbered]
