"""Batched sending: all messages of one event-loop tick."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit._node.sockets import JSON, Asgi, Ready, ready

from dws_core._node.sending.fanout import Fanout
from dws_core._node.stats import Counters
from dws_core._wire.codecs import Codec, MsgpackCodec
from dws_core._wire.frames import Frame

MSGPACK = MsgpackCodec()


@dataclass
class _Text:
    """A message that counts how often it is encoded."""

    text: str
    encoded: list[str] = field(default_factory=list)
    impossible: str = ""

    def frame(self, codec: Codec) -> Frame | None:
        self.encoded.append(codec.name)
        if codec.name == self.impossible:
            return None
        return Frame(f"{codec.name[0]}{self.text}".encode(), binary=codec.binary, topic="t")


def _in_json(*texts: str) -> bytes:
    return ready(*[f"j{text}".encode() for text in texts])


async def _tick() -> None:
    await asyncio.sleep(0)


async def test_messages_of_one_tick_share_one_write() -> None:
    sockets = [Ready() for _ in range(3)]
    fanout, receivers = Fanout(Counters()), tuple(sockets)
    for text in "abc":
        fanout.push(receivers, _Text(text))
    assert all(not socket.sink.writes for socket in sockets)
    await _tick()
    assert all(socket.sink.writes == [_in_json("a", "b", "c")] for socket in sockets)


async def test_message_is_encoded_once_per_codec() -> None:
    """Connections with the same codec share the bytes of a joined write."""
    sockets = [Ready(), Ready(), Ready(codec=MSGPACK), Ready()]
    fanout, message = Fanout(Counters()), _Text("a")
    fanout.push(tuple(sockets[:2]), message)
    fanout.flush()
    assert message.encoded == ["json"]
    assert sockets[0].sink.writes[0] is sockets[1].sink.writes[0]
    fanout.push(tuple(sockets), _Text("b"))
    fanout.flush()
    assert sockets[2].sink.writes == [Frame(b"mb", binary=True).ready]
    assert sockets[3].sink.writes == [_in_json("b")]


async def test_replies_keep_their_place_between_messages() -> None:
    one, other = Ready(), Ready()
    fanout, both = Fanout(Counters()), (one, other)
    fanout.push(both, _Text("1"))
    fanout.push_one(one, _Text("!"))
    fanout.push(both, _Text("2"))
    fanout.push_one(one, _Text("?"))
    await _tick()
    assert one.sink.writes == [_in_json("1", "!", "2", "?")]
    assert other.sink.writes == [_in_json("1", "2")]


async def test_encoding_failure_skips_only_that_codec() -> None:
    """The other messages of the tick are still sent."""
    one, other = Ready(), Ready(codec=MSGPACK)
    fanout, both = Fanout(Counters()), (one, other)
    fanout.push(both, _Text("a", impossible="msgpack"))
    fanout.push(both, _Text("b"))
    fanout.flush()
    assert one.written == _in_json("a", "b")
    assert other.written == Frame(b"mb", binary=True).ready
    fanout.push(both, _Text("c", impossible="msgpack"))
    fanout.flush()
    assert other.sink.writes == [Frame(b"mb", binary=True).ready]


async def test_batch_over_64_kib_is_split() -> None:
    quick, slow = Ready(), Ready(room=1)
    fanout = Fanout(Counters())
    texts = [letter * 30_000 for letter in "abc"]
    receivers = (quick, slow)
    for text in texts:
        fanout.push(receivers, _Text(text))
    fanout.flush()
    assert quick.sink.writes == [_in_json(*texts[:2]), _in_json(texts[2])]
    assert slow.sink.writes == [_in_json(*texts[:2])]
    slow.sink.read()
    assert slow.written == _in_json(*texts)


async def test_slow_connection_does_not_affect_others() -> None:
    slow, quick, without = Ready(room=1, limit=1), Ready(), Asgi()
    fanout, receivers = Fanout(Counters()), (slow, quick, without)
    for text in "abcdef":
        fanout.push(receivers, _Text(text))
        fanout.flush()
    assert slow.overflows == 1
    assert quick.written == _in_json(*"abcdef")
    for _ in "abcdef":
        without.permits.release()
    await without._outbox.flushed()
    assert without.written == [f"j{text}".encode() for text in "abcdef"]
    without._outbox.close()
    await asyncio.gather(*without.tasks)


async def test_failing_socket_is_closed_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def explode(data: bytes) -> None:
        raise RuntimeError("the handle is closed")

    broken, whole = Ready(), Ready()
    broken._outbox.write = explode
    fanout = Fanout(Counters())
    with caplog.at_level(logging.ERROR, "dws"):
        fanout.push((broken, whole), _Text("a"))
        fanout.flush()
    assert broken._outbox.closed
    assert whole.written == _in_json("a")
    assert "the handle is closed" in caplog.text


async def test_flushed_waits_for_end_of_tick() -> None:
    socket, fanout = Ready(), Fanout(Counters())
    await fanout.flushed()
    fanout.push_one(socket, _Text("a"))
    await fanout.flushed()
    assert socket.written == _in_json("a")
    fanout.flush()


async def test_deliveries_are_counted() -> None:
    counters = Counters()
    fanout, receivers = Fanout(counters), (Ready(), Ready())
    fanout.push(receivers, _Text("a"))
    fanout.push(receivers, _Text("b"))
    fanout.push_one(receivers[0], _Text("!"))
    assert counters.deliveries == 4
    fanout.flush()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(0, 4), min_size=1), st.booleans()), max_size=30))
def test_each_connection_receives_its_messages_in_order(sends: list[tuple[set[int], bool]]) -> None:
    async def run() -> None:
        sockets = [Ready() for _ in range(5)]
        known: dict[frozenset[int], tuple[Ready, ...]] = {}
        fanout = Fanout(Counters())
        expected: list[list[str]] = [[] for _ in sockets]
        for number, (members, ends_tick) in enumerate(sends):
            if len(members) == 1:
                fanout.push_one(sockets[next(iter(members))], _Text(str(number)))
            else:
                fanout.push(
                    known.setdefault(frozenset(members), tuple(sockets[m] for m in sorted(members))),
                    _Text(str(number)),
                )
            for member in members:
                expected[member].append(str(number))
            if ends_tick:
                fanout.flush()
        fanout.flush()
        for socket, texts in zip(sockets, expected, strict=True):
            assert socket.written == _in_json(*texts)

    asyncio.run(run())


# -- large tuples of receivers that are used repeatedly: their writes are planned

_STEPS = st.lists(
    st.tuples(st.sampled_from(["send", "send", "send", "send large", "fill", "read", "close"]), st.integers(0, 39)),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(_STEPS)
def test_planned_writes_arrive_in_order(steps: list[tuple[str, int]]) -> None:
    """This holds for any sequence of sends, full buffers, reads and closed sockets."""
    asyncio.run(_play(steps))


class _Room:
    """Forty connections, one of them with another codec, and the messages that each must receive."""

    def __init__(self) -> None:
        counters = Counters()
        self.sockets = tuple(Ready(counters=counters, codec=MSGPACK if n == 7 else JSON) for n in range(40))
        self.of_one_codec = self.sockets[:7] + self.sockets[8:]
        self.due: dict[Ready, list[str]] = {socket: [] for socket in self.sockets}
        self.fanout = Fanout(counters)

    def do(self, step: str, which: int, number: int) -> None:
        socket = self.sockets[which]
        if step == "fill":
            socket._outbox.pause()
        elif step == "read":
            socket.sink.read()
        elif step == "close":
            socket.sink.close()
        else:
            large = ["x" * 70_000] if step == "send large" else []
            receivers = self.of_one_codec if which % 2 else self.sockets
            self.send(receivers, [f"{number}-{n}" for n in range(1 + which % 3)] + large)

    def send(self, receivers: tuple[Ready, ...], texts: list[str]) -> None:
        for text in texts:
            self.fanout.push(receivers, _Text(text))
        self.fanout.flush()
        for socket in receivers:
            if not socket._outbox.closed:
                self.due[socket] += texts

    def check(self) -> None:
        for socket, texts in self.due.items():
            socket.sink.read()
            codec = socket._outbox.codec
            frames = [Frame(f"{codec.name[0]}{text}".encode(), binary=codec.binary) for text in texts]
            due = b"".join(frame.ready for frame in frames)
            assert due.startswith(socket.written) if socket._outbox.closed else socket.written == due
            assert socket.sink.late == []


async def _play(steps: list[tuple[str, int]]) -> None:
    room = _Room()
    for number, (step, which) in enumerate(steps):
        room.do(step, which, number)
    room.check()


@pytest.mark.parametrize("broken", [0, 17, 39])
async def test_failing_planned_write_closes_one_connection(broken: int, caplog: pytest.LogCaptureFixture) -> None:
    counters = Counters()
    sockets = tuple(Ready(counters=counters) for _ in range(40))
    fanout = Fanout(counters)
    explode = False
    whole = sockets[broken]._outbox.write

    def write(data: bytes) -> None:
        if explode:
            raise RuntimeError("the handle is closed")
        whole(data)

    sockets[broken]._outbox.write = write
    with caplog.at_level(logging.ERROR, "dws"):
        for text in "abcd":
            explode = text == "c"
            fanout.push(sockets, _Text(text))
            fanout.flush()
    assert [socket._outbox.closed for socket in sockets] == [n == broken for n in range(40)]
    assert sockets[broken].written == _in_json("a", "b")
    assert all(s.written == _in_json(*"abcd") for n, s in enumerate(sockets) if n != broken)
    assert [record.getMessage() for record in caplog.records] == ["writing to a connection failed, so it is closed"]


async def test_plans_are_bounded() -> None:
    counters = Counters()
    fanout = Fanout(counters)
    for _ in range(500):
        receivers = tuple(Ready(counters=counters) for _ in range(40))
        for text in "abc":
            fanout.push(receivers, _Text(text))
            fanout.flush()
    assert len(fanout._plans._plans) <= 64
