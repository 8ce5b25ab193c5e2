"""The conformance suite for codecs."""

from __future__ import annotations

import copy
import random
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from dws_core.plugin import JSON, Codec, CodecError
from dws_core.testing.suites.conformance import Conformance

_SECRET = "open-sesame"  # noqa: S105 -- not a real secret
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2: a token, the syntax of a subprotocol's name

_VALUES: list[JSON] = [
    None,
    True,
    False,
    0,
    -1,
    2**53,
    -(2**53),
    1.5,
    -0.25,
    1e300,
    "",
    "text",
    'quotes " and \\ and \0 and \u2028',
    "é/日本/🙂",
    "x" * 100_000,
    [],
    {},
    [[[]]],
    {"": {"": []}},
    [None, True, 1, "a", {"b": [2.5]}],
    {"type": "message", "topic": "chat/lobby", "data": {"text": "hi"}, "pos": "0:k9x2:17"},
    list(range(1000)),
    {f"key {number}": number for number in range(1000)},
]


class CodecConformance(Conformance):
    """Tests that every codec must pass. Requires one fixture, `codec`."""

    @pytest.fixture
    def codec(self) -> Codec:
        """The codec under test."""
        raise NotImplementedError("the suite needs a fixture 'codec'. Fix: define it in your subclass")

    def test_codec_name_is_valid_as_subprotocol(self, codec: Codec) -> None:
        assert isinstance(codec, Codec)
        assert _TOKEN.fullmatch(codec.name), codec.name
        assert isinstance(codec.binary, bool)

    @pytest.mark.parametrize("value", _VALUES, ids=lambda value: repr(value)[:30])
    def test_value_round_trips(self, codec: Codec, value: JSON) -> None:
        encoded = codec.encode(value)
        assert isinstance(encoded, bytes)
        assert _same(codec.decode(encoded), value)

    def test_random_values_round_trip(self, codec: Codec) -> None:
        rng = random.Random(2024)  # noqa: S311 -- the same values in every run
        for _ in range(300):
            value = _random_value(rng, depth=4)
            assert _same(codec.decode(codec.encode(value)), value), value

    def test_same_value_encodes_to_same_bytes(self, codec: Codec) -> None:
        for value in _VALUES:
            assert codec.encode(value) == codec.encode(copy.deepcopy(value))

    def test_encoding_does_not_change_its_input(self, codec: Codec) -> None:
        for value in _VALUES:
            before = copy.deepcopy(value)
            codec.encode(value)
            assert _same(value, before)

    def test_text_codec_encodes_to_text(self, codec: Codec) -> None:
        if codec.binary:
            pytest.skip("for a codec with text frames")
        for value in _VALUES:
            assert _same(codec.decode(codec.encode(value).decode("utf-8")), value)

    def test_truncated_message_raises_codec_error(self, codec: Codec) -> None:
        """The error must not contain the message."""
        encoded = codec.encode({"data": [_SECRET, _SECRET]})
        for end in range(1, len(encoded)):
            with pytest.raises(CodecError) as caught:
                codec.decode(encoded[:end])
            assert caught.value.codec == codec.name
            assert _SECRET not in str(caught.value)

    def test_garbage_raises_only_codec_error(self, codec: Codec) -> None:
        rng = random.Random(2025)  # noqa: S311 -- the same values in every run
        garbage: list[bytes | str] = [b"", "", b"\xff" * 20, b"\xc1", b"{]", "[" * 100_000, b"\x91" * 100_000, "\ud800"]
        garbage += [rng.randbytes(rng.randrange(1, 60)) for _ in range(300)]
        for data in garbage:
            try:
                codec.decode(data)  # some of the data may be valid
            except CodecError as error:
                assert error.codec == codec.name  # noqa: PT017 -- a codec may accept the data

    def test_unsupported_value_raises_codec_error(self, codec: Codec) -> None:
        circular: list[JSON] = []
        circular.append(circular)
        for value in (object(), {"a": [object()]}, circular):
            with pytest.raises(CodecError) as caught:
                codec.encode(value)
            assert caught.value.codec == codec.name

    def test_codec_works_in_several_threads(self, codec: Codec) -> None:
        with ThreadPoolExecutor(4) as threads:
            for encoded in threads.map(codec.encode, _VALUES * 5):
                codec.decode(encoded)
            assert list(threads.map(codec.encode, _VALUES)) == [codec.encode(value) for value in _VALUES]

    def test_splice_equals_encode(self, codec: Codec) -> None:
        if (splice := getattr(codec, "splice", None)) is None:
            pytest.skip("the codec has no splice()")
        members = {"type": "message", "topic": "t"}
        for value in _VALUES:
            spliced = splice(members, codec.encode(value))
            assert _same(codec.decode(spliced), {**members, "data": value})
        assert members == {"type": "message", "topic": "t"}


def _same(one: JSON, other: JSON) -> bool:
    """Compare values and types, so that `True` and 1.0 differ from 1."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    return bool(one == other)


def _random_value(rng: random.Random, depth: int) -> JSON:
    kind = rng.randrange(7 if depth else 5)
    if kind == 5:
        return [_random_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind == 6:
        return {_random_text(rng): _random_value(rng, depth - 1) for _ in range(rng.randrange(4))}
    leaves: list[JSON] = [None, rng.random() < 0.5, rng.randrange(-(2**53), 2**53), rng.uniform(-1e9, 1e9)]
    return [*leaves, _random_text(rng)][kind]


def _random_text(rng: random.Random) -> str:
    return "".join(chr(rng.choice((rng.randrange(32, 127), rng.randrange(0xD800), 0x1F600))) for _ in range(6))
