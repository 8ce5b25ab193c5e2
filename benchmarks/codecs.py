"""Codecs: the cost of reading a client's message and of making a frame, compared with the standard library.

    python benchmarks/codecs.py [--quick]

Rates are per second of this process's CPU time, the best of five rounds. Compare the ratios, not the rates.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import process_time

from dws_core._wire.codecs import JSONCodec, MsgpackCodec
from dws_core._wire.envelope import header_of, open_envelope
from dws_core._wire.message import Message
from harness.results import keep, parser

DATA = {"user": "u-1042", "text": "x" * 64, "at": 1700000000.25, "tags": ["a", "b", "c"], "seen": False}
SENT = {"type": "send", "topic": "chat/lobby", "id": 17, "data": DATA}
MEMBERS = {"type": "message", "topic": "chat/lobby", "pos": "3:k9x2p0aa:1042"}
ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: our rate and the baseline's."""

    what: str
    per_s: float
    baseline: str
    baseline_per_s: float


def rate(call: Callable[[], object], seconds: float) -> float:
    """Return calls per CPU second, the best of `ROUNDS` rounds."""
    best, times = 0.0, 200
    for _ in range(ROUNDS):
        took = 0.0
        while took < seconds / ROUNDS:
            started = process_time()
            for _ in range(times):
                call()
            took = process_time() - started
            best = max(best, times / took) if took > seconds / ROUNDS / 4 else best
            times = times if took > seconds / ROUNDS else times * 2
    return best


def rows(seconds: float) -> list[Row]:
    ours, binary = JSONCodec(), MsgpackCodec()
    text, packed = ours.encode(SENT), binary.encode(SENT)
    data = ours.encode(DATA)
    stored = header_of("json") + data
    std_decode, std_encode = rate(lambda: json.loads(text), seconds), rate(lambda: json.dumps(SENT), seconds)

    def whole_frame() -> bytes:
        return json.dumps({**MEMBERS, "data": json.loads(data)}).encode()

    def spliced() -> bytes:
        return ours.splice(MEMBERS, open_envelope(stored)[1])

    return [
        Row(
            what="decode, json",
            per_s=rate(lambda: ours.decode(text), seconds),
            baseline="json.loads",
            baseline_per_s=std_decode,
        ),
        Row(
            what="decode, msgpack",
            per_s=rate(lambda: binary.decode(packed), seconds),
            baseline="json.loads",
            baseline_per_s=std_decode,
        ),
        Row(
            what="encode, json",
            per_s=rate(lambda: ours.encode(SENT), seconds),
            baseline="json.dumps",
            baseline_per_s=std_encode,
        ),
        Row(
            what="encode, msgpack",
            per_s=rate(lambda: binary.encode(SENT), seconds),
            baseline="json.dumps",
            baseline_per_s=std_encode,
        ),
        Row(
            what="client message: decode and check",
            per_s=rate(lambda: Message.from_client_message(data=ours.decode(text)), seconds),
            baseline="json.loads",
            baseline_per_s=std_decode,
        ),
        Row(
            what="record to frame: envelope and splice",
            per_s=rate(spliced, seconds),
            baseline="json.loads, then json.dumps",
            baseline_per_s=rate(whole_frame, seconds),
        ),
    ]


def main() -> None:
    arguments = parser(__doc__).parse_args()
    found = rows(0.05 if arguments.quick else 1.0)
    print(f"{'':40}{'per CPU s':>14}{'baseline':>14}{'ratio':>8}  baseline is")
    for row in found:
        print(
            f"{row.what:40}{row.per_s:14,.0f}{row.baseline_per_s:14,.0f}{row.per_s / row.baseline_per_s:8.2f}  {row.baseline}"
        )
    if path := keep("codecs", [asdict(row) for row in found], arguments):
        print(f"written to {path}")


if __name__ == "__main__":
    main()
