"""What stands between a broker and its node, and can keep from the node what the broker tells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dws_core.plugin import BrokerState, GapReason, Head, Offset, Record, TailSink

Call = Callable[[TailSink], None]


class FaultyTail:
    """A `TailSink` in front of another one. It knows where each partition is, to begin anew there after a cut."""

    def __init__(self) -> None:
        self._sink: TailSink | None = None
        self._heads: dict[int, Head] = {}
        self._cuts = 0
        self._holds = 0
        self._held: list[Call] = []
        self._at_end: list[Callable[[], None]] = []

    # -- called by the broker in front

    def begin(self, sink: TailSink) -> None:
        """Tell this one."""
        self._sink, self._heads, self._held = sink, {}, []

    def end(self) -> None:
        """Let nothing wait any longer: the broker is about to stop."""
        at_end, self._at_end = self._at_end, []
        for call in at_end:
            call()
        self._holds = 0
        self._flush()

    def at_end(self, call: Callable[[], None]) -> None:
        """Have something done when the broker stops."""
        self._at_end.append(call)

    def forget(self) -> None:
        """Tell nobody any more."""
        self._sink, self._heads = None, {}

    @property
    def partitions(self) -> list[int]:
        """What the node tails."""
        return list(self._heads)

    def tune(self, partitions: frozenset[int]) -> None:
        """Note what the node is about to tail."""
        self._heads = {number: head for number, head in self._heads.items() if number in partitions}

    def baseline(self, heads: Mapping[int, Head]) -> None:
        """Note where it begins."""
        for number, head in heads.items():
            self._heads.setdefault(number, head)

    def cut(self) -> None:
        """Drop what comes from now on."""
        self._cuts += 1
        self._held.clear()
        self._tell(lambda sink: sink.on_state("degraded", "cut off by a FaultyBroker"))

    def mend(self, reason: GapReason, heads: Mapping[int, Head]) -> None:
        """Begin anew at these heads, where the log is by now. What comes late of the time before is dropped."""
        self._cuts -= 1
        if self._cuts == 0:
            self._heads = dict(heads)
            for head in heads.values():
                self._tell(_lost(head, reason))
            self._tell(lambda sink: sink.on_state("live", "joined again by a FaultyBroker"))

    def hold(self) -> None:
        """Keep what comes from now on."""
        self._tell(lambda sink: sink.on_state("degraded", "frozen by a FaultyBroker"))
        self._holds += 1

    def release(self) -> None:
        """Hand over what was kept."""
        self._holds = max(0, self._holds - 1)
        if self._holds == 0:
            self._flush()
            self._tell(lambda sink: sink.on_state("live", "thawed by a FaultyBroker"))

    # -- called by the broker behind

    def on_records(self, partition: int, epoch: str, lo: Offset, hi: Offset, records: Sequence[Record]) -> None:
        known = self._heads.get(partition)
        if known is not None and known.epoch == epoch and lo < known.offset:  # it was on its way when the cut ended
            if hi <= known.offset:
                return
            lo, records = known.offset, [r for r in records if r.offset is None or r.offset > known.offset]
        self._heads[partition] = Head(partition=partition, epoch=epoch, offset=hi)
        self._tell_unless_cut(lambda sink: sink.on_records(partition, epoch, lo, hi, records))

    def on_discontinuity(self, partition: int, reason: GapReason, head: Head) -> None:
        self._heads[partition] = head
        self._tell_unless_cut(lambda sink: sink.on_discontinuity(partition, reason, head))

    def on_control(self, sender: bytes, payload: bytes) -> None:
        self._tell_unless_cut(lambda sink: sink.on_control(sender, payload))

    def on_state(self, state: BrokerState, detail: str) -> None:
        if state == "closed" or not self._cuts:
            self._tell(lambda sink: sink.on_state(state, detail))

    def _tell_unless_cut(self, call: Call) -> None:
        if not self._cuts:
            self._tell(call)

    def _tell(self, call: Call) -> None:
        if self._holds:
            self._held.append(call)
        elif self._sink is not None:
            call(self._sink)

    def _flush(self) -> None:
        held, self._held = self._held, []
        for call in held:
            self._tell(call)


def _lost(head: Head, reason: GapReason) -> Call:
    return lambda sink: sink.on_discontinuity(head.partition, reason, head)
