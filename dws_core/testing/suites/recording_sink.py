"""A sink that records its events and checks the contract of `TailSink`, for the broker suite."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from dws_core.plugin import BrokerState, GapReason, Head, Offset, Record


class RecordingSink:
    """A `TailSink` that stores all events and checks the contract of every broker.

    Attributes:
        records: Received records, in order.
        controls: Senders and payloads of the received control messages.
        states: Received states, in order.
        discontinuities: Received discontinuities. A healthy broker sends none.
        violations: Violations of the contract of `TailSink`.
        wanted: The partitions that the node tails.
        epochs: Last received epoch of each tailed partition.
        observe: Called with the records and the state of each event, for tests that watch both.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.controls: list[tuple[bytes, bytes]] = []
        self.states: list[BrokerState] = []
        self.discontinuities: list[tuple[int, GapReason, Head]] = []
        self.violations: list[str] = []
        self.wanted: frozenset[int] = frozenset()
        self.epochs: dict[int, str] = {}
        self.changed: asyncio.Event = asyncio.Event()
        self.observe: Callable[[Sequence[Record], BrokerState | None], None] = lambda records, state: None
        self._watermarks: dict[int, tuple[Offset, Offset]] = {}  # partition: baseline, watermark

    @property
    def positions(self) -> dict[int, tuple[str, Offset]]:
        """Epoch and watermark of each partition."""
        return {p: (self.epochs[p], watermark) for p, (_, watermark) in self._watermarks.items()}

    def expect_interest(self, wanted: frozenset[int]) -> None:
        """Set the partitions that the node is about to tail."""
        self.wanted = wanted
        self._watermarks = {p: w for p, w in self._watermarks.items() if p in wanted}
        self.epochs = {p: epoch for p, epoch in self.epochs.items() if p in wanted}

    def take_losses(self) -> set[GapReason]:
        """Return and clear the reasons of the discontinuities, for a test that expects them."""
        reasons = {reason for _, reason, _ in self.discontinuities}
        self.discontinuities.clear()
        return reasons

    def check_baseline(self, heads: dict[int, Head]) -> None:
        """Check the result of `set_interest` against the ranges that arrived during the call."""
        if heads.keys() != self.wanted:
            self.violations.append(f"set_interest({set(self.wanted)}) returned heads of {set(heads)}")
        for partition, head in heads.items():
            began, _ = self._watermarks.setdefault(partition, (head.offset, head.offset))
            self._check_epoch(partition, head.epoch)
            if began > head.offset:
                self.violations.append(f"partition {partition} started at {began}, but its baseline is {head.offset}")

    def on_records(self, partition: int, epoch: str, lo: Offset, hi: Offset, records: Sequence[Record]) -> None:
        self._check_call("on_records")
        if partition not in self.wanted:
            return
        began, watermark = self._watermarks.get(partition, (lo, lo))
        self._check_epoch(partition, epoch)
        if lo != watermark:
            self.violations.append(f"partition {partition}: range ({lo}, {hi}] follows the watermark {watermark}")
        last = lo
        for record in records:
            if record.offset is not None:
                if not last < record.offset <= hi:
                    self.violations.append(
                        f"partition {partition}: offset {record.offset} after {last} in ({lo}, {hi}]"
                    )
                last = record.offset
        self._watermarks[partition] = (began, hi)
        self.records += records
        self.observe(records, None)

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None:
        self._check_call("on_discontinuity")
        self.discontinuities.append((partition, reason, head))
        self.epochs[partition] = head.epoch
        self._watermarks[partition] = (head.offset, head.offset)

    def on_control(self, sender: bytes, payload: bytes) -> None:
        self._check_call("on_control")
        self.controls.append((sender, payload))

    def on_state(self, state: BrokerState, detail: str) -> None:
        self._check_call("on_state")
        self.states.append(state)
        self.observe((), state)

    def _check_epoch(self, partition: int, epoch: str) -> None:
        known = self.epochs.setdefault(partition, epoch)
        if known != epoch:
            self.violations.append(f"partition {partition}: epoch {epoch} follows {known} without a discontinuity")

    def _check_call(self, name: str) -> None:
        if "closed" in self.states:
            self.violations.append(f"{name} was called after the state 'closed'")
        self.changed.set()
