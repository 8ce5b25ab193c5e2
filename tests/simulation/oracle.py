"""What must be true after a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from dws_core._log.stream.envelope import Kind, readable
from dws_core._log.stream.tail import INDEX_BITS
from dws_core.plugin import GapReason, ReadResult, Receipt, Record

if TYPE_CHECKING:
    from simulation.world import World


@dataclass
class Part:
    """What a node delivered of a partition from one baseline on."""

    node: int
    partition: int
    epoch: str
    base: int
    hi: int
    reason: GapReason | None
    records: list[Record] = field(default_factory=list)


@dataclass
class Call:
    """One call of `publish`."""

    number: int
    node: int
    broker: int
    partition: int
    topic: str
    key: str | None
    at: float
    receipt: Receipt | None = None
    outcome: str = ""

    @property
    def payload(self) -> bytes:
        return b"%d" % self.number


def find_problems(world: World) -> list[str]:
    """Return everything that is wrong."""
    checks = (
        *(_faults, _acknowledged, _once, _one_order, _publisher_order, _unsent, _unknown, _complete),
        *(_gaps, _reads, _agreement, _memory),
    )
    return [problem for check in checks for problem in check(world)]


def _parts(world: World) -> Iterator[Part]:
    for sink in world.all_sinks:
        for parts in sink.parts.values():
            yield from parts


def _certain(world: World, partition: int, epoch: str) -> bool:
    """Return whether places of an epoch have one meaning.

    If a broker silently loses records, nodes may write to the changed stream before one of them starts a new epoch. And
    if all nodes that have seen the lost records are gone, nobody can notice the loss.
    """
    witnesses = [brokers for number, brokers in world.rewinds if number == partition]
    if not all(any(broker in world.brokers for broker in brokers) for brokers in witnesses):
        return False
    return not witnesses or all(sink.parts[partition][-1].epoch == epoch for sink in world.sinks)


def _faults(world: World) -> Iterator[str]:
    for sink in world.all_sinks:
        yield from sink.faults


def _acknowledged(world: World) -> Iterator[str]:
    """What was acknowledged is delivered by every node that covers its place, once, and at this place."""
    for call in world.calls:
        receipt = call.receipt
        if receipt is None or receipt.offset is None or not _certain(world, call.partition, receipt.epoch):
            continue
        for part in _parts(world):
            if (part.partition, part.epoch) == (
                call.partition,
                receipt.epoch,
            ) and part.base < receipt.offset <= part.hi:
                found = [record for record in part.records if record.offset == receipt.offset]
                if len(found) != 1:
                    yield f"lost: {call} on node {part.node}"
                elif (found[0].key, found[0].topic) != (call.key, call.topic):
                    yield f"the receipt of {call} names another record: {found[0]}"
                elif not receipt.duplicate and found[0].payload != call.payload:
                    yield f"the receipt of {call} names {found[0].payload!r}"


def _once(world: World) -> Iterator[str]:
    """Within an epoch, a node delivers each message once."""
    seen: set[tuple[object, ...]] = set()
    for sink in world.all_sinks:
        for parts in sink.parts.values():
            for part in parts if _certain(world, parts[0].partition, parts[0].epoch) else parts[-1:]:
                for record in part.records:
                    name = record.key or record.payload
                    place = (id(sink), part.partition, part.epoch, record.topic, name)
                    if place in seen:
                        yield f"twice: {record.topic} {name!r} on node {part.node}"
                    seen.add(place)


def _one_order(world: World) -> Iterator[str]:
    """All nodes deliver the same record at the same place."""
    places: dict[tuple[int, str, int], bytes] = {}
    parts = [part for part in _parts(world) if _certain(world, part.partition, part.epoch)]
    for part in parts:
        for record in part.records:
            if record.offset is not None:
                known = places.setdefault((part.partition, part.epoch, record.offset), record.payload)
                if known != record.payload:
                    yield f"two records at {part.partition}:{part.epoch}:{record.offset}"
    for part in parts:
        have = {record.offset for record in part.records}
        for partition, epoch, offset in places:
            if (
                (partition, epoch) == (part.partition, part.epoch)
                and part.base < offset <= part.hi
                and offset not in have
            ):
                yield f"node {part.node} misses {partition}:{epoch}:{offset}"


def _publisher_order(world: World) -> Iterator[str]:
    """Each node delivers the messages with history of a publisher in order, and also those without history."""
    calls = {call.payload: call for call in world.calls}
    for part in _parts(world):
        by_broker: dict[tuple[int, bool], list[int]] = {}
        for record in part.records:
            call = calls[record.payload]
            by_broker.setdefault((call.broker, record.offset is None), []).append(call.number)
        for numbers in by_broker.values():
            if any(second < first for first, second in pairwise(numbers)):
                yield f"out of order on node {part.node}: {numbers}"
        offsets = [record.offset for record in part.records if record.offset is not None]
        if offsets != sorted(set(offsets)):
            yield f"offsets do not grow on node {part.node}"


def _unsent(world: World) -> Iterator[str]:
    """What was reported as certainly not stored was never stored."""
    stored = _payloads(data for stream in world.server.streams for data in stream.ever)
    for call in world.calls:
        if call.outcome == "unsent" and call.payload in stored:
            yield f"stored although it was reported as not stored: {call}"


def _unknown(world: World) -> Iterator[str]:
    """An outcome is unknown only if the message left the node."""
    handed = _payloads(world.server.handed)
    for call in world.calls:
        if call.outcome == "unknown" and call.payload not in handed:
            yield f"never sent, and reported as unknown: {call}"


def _payloads(envelopes: Iterable[bytes]) -> set[bytes]:
    found = (readable(data) for data in envelopes)
    return {draft.payload for envelope in found if envelope for draft in envelope.drafts}


def _complete(world: World) -> Iterator[str]:
    """A node has delivered everything that the stream contains since the node's last baseline, except for repeats."""
    for partition, stream in enumerate(world.server.streams):
        expected = _first_copies(stream.kept)
        for sink in world.sinks:
            part = sink.parts[partition][-1]
            have = {record.payload for record in part.records}
            for place, payload in expected:
                if part.base < place <= part.hi and payload not in have:
                    yield f"node {sink.number} does not deliver {payload!r}, which is stored at {place}"


def _first_copies(kept: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Return place and payload of the records that are no repeats."""
    highest: dict[bytes, int] = {}
    keys: set[tuple[str, str | None]] = set()
    found: list[tuple[int, bytes]] = []
    for offset, data in kept:
        envelope = readable(data)
        if envelope is None or envelope.kind is not Kind.RECORDS:
            continue
        for index, draft in enumerate(envelope.drafts):
            if envelope.first + index <= highest.get(envelope.publisher, 0):
                continue
            highest[envelope.publisher] = envelope.first + index
            name = (draft.topic, draft.key)
            if draft.key is None or name not in keys:
                found.append((offset << INDEX_BITS | index, draft.payload))
            keys.add(name)
    return found


def _gaps(world: World) -> Iterator[str]:
    """A gap names its reason, and without a loss there is none."""
    for sink in world.all_sinks:
        for parts in sink.parts.values():
            for before, part in pairwise(parts):
                if (part.reason is GapReason.EPOCH) is (part.epoch == before.epoch):
                    yield f"the reason {part.reason} is wrong on node {part.node}"
    if not world.plan.loses:
        for part in _parts(world):
            if part.reason is not None:
                yield f"a gap ({part.reason}) without a reason on node {part.node}"
        for client in world.clients:
            for node, span, result in client.reads:
                if isinstance(result, ReadResult) and result.gap not in {None, GapReason.TRIMMED}:
                    yield f"a read on node {node} has the gap {result.gap}: {span}"


def _reads(world: World) -> Iterator[str]:
    """A read is complete or a gap."""
    known: dict[tuple[str, int], Record] = {}
    for part in _parts(world):
        if part.partition == 0:
            known |= {(part.epoch, record.offset): record for record in part.records if record.offset is not None}
    for client in world.clients:
        for node, span, result in client.reads:
            if not isinstance(result, ReadResult) or result.gap is not None or not _certain(world, 0, span.epoch):
                continue
            wanted = span.topics if callable(span.topics) else frozenset(span.topics).__contains__
            expected = {
                offset
                for (epoch, offset), record in known.items()
                if epoch == span.epoch and span.since < offset <= span.until and wanted(record.topic)
            }
            found = [record.offset for record in result.records]
            if missing := expected - set(found):
                yield f"a read on node {node} misses {sorted(missing)}: {span}"
            covered = [part for part in _parts(world) if part.partition == 0 and part.epoch == span.epoch]
            extra = {
                offset
                for offset in set(found) - expected
                if any(part.base < (offset or 0) <= part.hi for part in covered)
            }
            if extra or found != sorted(set(found), key=lambda offset: offset or 0):
                yield f"a read on node {node} has {sorted(map(str, extra))} too many: {span}"


def _agreement(world: World) -> Iterator[str]:
    """In the end all nodes are live, in one epoch, and have everything."""
    for partition in range(world.plan.partitions):
        ends = {sink.parts[partition][-1].epoch for sink in world.sinks}
        if len(ends) != 1:
            yield f"partition {partition} ends in the epochs {ends}"
    yield from (f"node {sink.number} ends in the state {sink.state}" for sink in world.sinks if sink.state != "live")
    for call in world.calls:
        for sink in world.sinks if call.receipt and (call.key or "").startswith("last") else ():
            if not any(r.key == call.key for part in sink.parts[call.partition] for r in part.records):
                yield f"node {sink.number} does not have the last message {call}"


def _memory(world: World) -> Iterator[str]:
    for broker in world.brokers:
        for log in broker._node.logs if broker._node else ():
            if len(log.queue) or log.queue._bytes:
                yield f"the publish queue still has {len(log.queue)} messages, {log.queue._bytes} bytes"
