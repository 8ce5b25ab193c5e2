"""Joining a stream on a new connection: the verdict probe, and the place to follow from."""

from __future__ import annotations

from dws_core._log.stream.envelope import Envelope, Kind, readable
from dws_core._log.stream.epochs import Claim
from dws_core._log.stream.io.clock import Clock
from dws_core._log.stream.io.host import Log
from dws_core._log.stream.io.scanning import Scanner, closing
from dws_core._log.stream.lane import to_all
from dws_core._log.stream.lookback import Lookback
from dws_core._log.stream.wire import Start, StreamWire, WireLost


async def join(wire: StreamWire, log: Log, clock: Clock, step_s: float) -> int | Start:
    """Append the verdict probe, and return where to follow from.

    Without a stream, the probe is sent to all nodes. It shows that publishing works.

    Raises:
        WireError: The wire failed.
    """
    if not log.stores:
        await wire.send_control(to_all(log.number, log.next_probe(clock.now_ms())[1]))
        return Start.LAST
    bounds = await wire.bounds(log.number)
    number, data = log.next_probe(clock.now_ms(), verdict=True)
    probe_offset = await wire.append(log.number, data)
    if probe_offset is None:
        probe_offset = await _locate(wire, log, number, clock)
    resumed = log.judge(probe_offset, bounds)
    if resumed is not None:
        return resumed
    start, claim = await look_back(Scanner(wire, log.number, step_s), probe_offset, clock.now_ms())
    log.begin(claim)
    return start


async def _locate(wire: StreamWire, log: Log, number: int, clock: Clock) -> int:
    """Find a verdict probe on a broker that does not report offsets.

    The end of the stream may be after the first probe, because other nodes append, too. So when something arrives, another
    probe follows. That one must arrive later.
    """
    is_certain = False
    async with closing(wire.follow({log.number: Start.LAST})) as records:
        async for _, offset, data in records:
            envelope = readable(data)
            if envelope is not None and _is_probe(envelope, log.publisher) and envelope.first >= number:
                return offset
            if not is_certain:
                is_certain = True
                await wire.append(log.number, log.next_probe(clock.now_ms(), verdict=True)[1])
    raise WireLost("the stream ended")


def _is_probe(envelope: Envelope, publisher: bytes) -> bool:
    return (envelope.kind, envelope.publisher) == (Kind.PROBE, publisher)


async def look_back(scanner: Scanner, end: int, time_ms: int) -> tuple[int | Start, Claim | None]:
    """Return where to begin to read so that the last window before `end` is covered, and the epoch there."""
    search, claim = Lookback(end, time_ms), None
    while search.start is None:
        envelope = await scanner.sample(search.sample, end)
        if envelope is None:
            search.missing()
        else:
            claim = await _verified(scanner, search.sample, end, envelope)
            search.found(envelope.time_ms, suitable=claim is not None)
    return search.start, claim if isinstance(search.start, int) else None


async def _verified(scanner: Scanner, at: int, end: int, envelope: Envelope) -> Claim | None:
    """Return the claim of an ordinary envelope, if its epoch really began at the stated place or that was removed."""
    if envelope.kind is Kind.GENESIS or not any(envelope.epoch) or envelope.began >= at:
        return None
    genesis = await scanner.sample(envelope.began, end)
    if genesis is not None and (genesis.kind, genesis.epoch) != (Kind.GENESIS, envelope.epoch):
        return None
    return Claim(envelope.epoch, envelope.began)
