"""Which epoch a stream is in. Every node computes the same answer from the same stream."""

from __future__ import annotations

from dataclasses import dataclass

from dws_core._log.stream.envelope import NO_EPOCH, Envelope, Kind


@dataclass(frozen=True, slots=True)
class Claim:
    """An epoch and where it began.

    Attributes:
        epoch: 8 bytes.
        began: Stream offset of the envelope that started it.
    """

    epoch: bytes
    began: int

    @property
    def text(self) -> str:
        """The epoch as the node sees it: 16 hexadecimal digits."""
        return self.epoch.hex()


class Epochs:
    """The epoch at the end of what was read of a stream.

    Only a `GENESIS` starts an epoch, and only if it replaces the epoch that the stream is in. So if two nodes propose an
    epoch at the same time, the lower offset wins. A reader that cannot see the `GENESIS` adopts the claim of an ordinary
    envelope, but only if the epoch began before everything that the reader sees.

    Args:
        claim: The verified claim at the start of reading, or None.

    Attributes:
        current: The epoch of the stream, or None if nothing has started one.
    """

    def __init__(self, claim: Claim | None = None) -> None:
        self.current = claim
        self._known = {claim.epoch} if claim else set[bytes]()
        self._first: int | None = None

    def is_strange(self, envelope: Envelope) -> bool:
        """Return whether an envelope claims an epoch that this reader should have seen begin, and has not."""
        return envelope.kind is not Kind.GENESIS and envelope.epoch != NO_EPOCH and envelope.epoch not in self._known

    def take(self, offset: int, envelope: Envelope) -> bool:
        """Read the next envelope. Return whether the epoch changed."""
        if self._first is None:
            self._first = offset
        found = self._started(offset, envelope) if envelope.kind is Kind.GENESIS else self._claimed(envelope)
        if found is None:
            return False
        self.current = found
        self._known.add(found.epoch)
        return True

    def _started(self, offset: int, envelope: Envelope) -> Claim | None:
        replaces = self.current is None or envelope.parent == self.current.epoch
        return Claim(envelope.epoch, offset) if replaces else None

    def _claimed(self, envelope: Envelope) -> Claim | None:
        if envelope.epoch == NO_EPOCH or (self.current is not None and envelope.began <= self.current.began):
            return None
        return Claim(envelope.epoch, envelope.began) if envelope.began < (self._first or 0) else None
