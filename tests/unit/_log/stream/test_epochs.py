from __future__ import annotations

from dws_core._log.stream.envelope import NO_EPOCH, Envelope, Kind
from dws_core._log.stream.epochs import Claim, Epochs

A, B, C = b"a" * 8, b"b" * 8, b"c" * 8


def _genesis(epoch: bytes, parent: bytes = NO_EPOCH) -> Envelope:
    return Envelope(kind=Kind.GENESIS, publisher=b"p" * 8, time_ms=1, epoch=epoch, parent=parent)


def _records(epoch: bytes, began: int) -> Envelope:
    return Envelope(kind=Kind.RECORDS, publisher=b"p" * 8, time_ms=1, epoch=epoch, began=began)


def test_genesis_starts_the_epoch_of_a_new_stream() -> None:
    epochs = Epochs()
    assert epochs.take(7, _genesis(A))
    assert epochs.current == Claim(A, 7)
    assert epochs.current.text == "61" * 8


def test_genesis_replaces_only_its_parent() -> None:
    epochs = Epochs(Claim(A, 0))
    assert not epochs.take(5, _genesis(C, parent=B))
    assert epochs.take(6, _genesis(B, parent=A))
    assert epochs.current == Claim(B, 6)


def test_lowest_offset_wins_between_two_proposals() -> None:
    epochs = Epochs(Claim(A, 0))
    assert epochs.take(5, _genesis(B, parent=A))
    assert not epochs.take(6, _genesis(C, parent=A))
    assert epochs.current == Claim(B, 5)


def test_claim_from_before_everything_seen_is_adopted() -> None:
    """A reader that starts in the middle of a stream cannot see the genesis."""
    epochs = Epochs()
    assert epochs.take(9, _records(A, began=3))
    assert epochs.current == Claim(A, 3)


def test_later_claim_replaces_an_older_one() -> None:
    epochs = Epochs()
    epochs.take(9, _records(A, began=3))
    assert epochs.take(10, _records(B, began=5))
    assert not epochs.take(11, _records(A, began=3))
    assert epochs.current == Claim(B, 5)


def test_claim_about_a_seen_place_is_not_adopted() -> None:
    """The reader would have seen this epoch begin. A publisher that was cut off may write such a claim."""
    epochs = Epochs()
    epochs.take(9, _records(NO_EPOCH, 0))
    assert not epochs.take(12, _records(A, began=10))
    assert epochs.current is None


def test_envelope_without_a_claim_changes_nothing() -> None:
    epochs = Epochs(Claim(A, 0))
    assert not epochs.take(5, _records(NO_EPOCH, 0))
    assert epochs.current == Claim(A, 0)


def test_unknown_claim_is_strange() -> None:
    epochs = Epochs(Claim(A, 0))
    assert epochs.is_strange(_records(B, 4))
    assert not epochs.is_strange(_records(A, 0))
    assert not epochs.is_strange(_records(NO_EPOCH, 0))
    assert not epochs.is_strange(_genesis(B))


def test_claim_of_a_replaced_epoch_is_not_strange() -> None:
    """Appends of a slow node may still claim the epoch before."""
    epochs = Epochs(Claim(A, 0))
    epochs.take(5, _genesis(B, parent=A))
    assert not epochs.is_strange(_records(A, 0))
