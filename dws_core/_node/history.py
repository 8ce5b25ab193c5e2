"""The last messages of one topic."""

from __future__ import annotations

from dws_core._errors import BrokerUnavailable
from dws_core._log.cache import LogCache
from dws_core._log.interface import GapReason, LogBroker, Record
from dws_core._log.lookback import Lookback


async def last_records(
    broker: LogBroker, log: LogCache, topic: str, *, limit: int, max_bytes: int
) -> tuple[Record, ...]:
    """Return the last records of a topic that are kept, up to the node's watermark; at most `limit`.

    From the node's own memory where that is enough, else from the broker.

    Raises:
        BrokerUnavailable: The log could not be read, or was lost meanwhile.
    """
    epoch, until = log.epoch, log.hi
    recent = log.read(log.lo, until, (topic,)) or ()
    if len(recent) >= limit:
        return recent[-limit:]
    lookback = Lookback(until, limit)
    while not lookback.done:
        lookback.take(
            await broker.read(
                log.partition,
                since=lookback.since,
                until=until,
                epoch=epoch,
                topics=(topic,),
                limit=4 * limit,
                max_bytes=max_bytes,
            )
        )
    if lookback.gap is GapReason.UNAVAILABLE or lookback.gap is GapReason.EPOCH:
        raise BrokerUnavailable(f"the history of {topic!r} cannot be read: {lookback.gap}.", fix="try again")
    return lookback.records
