"""Built-in codecs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cost import cpu_time

from dws_core import CodecError
from dws_core._wire.codecs import Codec, JSONCodec, MsgpackCodec, decode_id, splice

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize("codec", [JSONCodec(), MsgpackCodec()], ids=lambda c: c.name)
@given(value=JSON_VALUES)
def test_every_value_round_trips(codec: Codec, value: Any) -> None:
    assert codec.decode(codec.encode(value)) == value


@pytest.mark.parametrize("codec", [JSONCodec(), MsgpackCodec()], ids=lambda c: c.name)
@given(garbage=st.binary(max_size=40))
def test_garbage_raises_only_codec_error(codec: Codec, garbage: bytes) -> None:
    try:
        codec.decode(garbage)
    except CodecError as error:
        assert error.codec == codec.name


@pytest.mark.parametrize("codec", [JSONCodec(), MsgpackCodec()], ids=lambda c: c.name)
def test_unencodable_value_raises_codec_error(codec: Codec) -> None:
    recursive: list[Any] = []
    recursive.append(recursive)
    for value in (object(), recursive, {1j: 2}):
        with pytest.raises(CodecError, match="Fix: send JSON values only"):
            codec.encode(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_number_is_exact(number: float) -> None:
    text = f"{number:.17e}"
    assert JSONCodec().decode(text) == float(text)


@pytest.mark.parametrize("text", ["1e309", "-1e400", "1e99999", "1.8e308"])
def test_number_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(CodecError):
        JSONCodec().decode(f"[{text}]")


def test_large_numbers_cost_little() -> None:
    """msgspec itself takes 110 ms."""
    with cpu_time() as cost:
        assert JSONCodec().decode("[" + "1e308," * 10_000 + "0]")[0] == 1e308
    assert cost.cpu_s < 0.05


def test_error_hides_payload() -> None:
    with pytest.raises(CodecError) as caught:
        JSONCodec().decode('{"password": hunter2}')
    assert "hunter2" not in str(caught.value)


class _Plain:
    name, binary = "plain", False

    def encode(self, value: Any) -> bytes:
        return JSONCodec().encode(value)

    def decode(self, data: bytes | str) -> Any:
        return JSONCodec().decode(data)


@pytest.mark.parametrize("codec", [JSONCodec(), MsgpackCodec(), _Plain()], ids=lambda c: c.name)
def test_encoded_data_is_spliced_in_as_last_member(codec: Codec) -> None:
    spliced = splice(codec, {"type": "message", "topic": "é"}, codec.encode([1, {"a": None}]))
    assert codec.decode(spliced) == {"type": "message", "topic": "é", "data": [1, {"a": None}]}


@pytest.mark.parametrize("codec", [JSONCodec(), MsgpackCodec()], ids=["json", "msgpack"])
@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"id": "x", "data": [{"id": 1}]}, "x"),
        ({"data": 1, "id": 7}, 7),
        ({"data": {"id": 7}}, None),
        ({"id": True}, None),
        ({"id": 1.5}, None),
        ({"id": None}, None),
        ([1], None),
        (None, None),
    ],
)
def test_id_is_decoded_without_rest(codec: Codec, message: object, expected: object) -> None:
    class Plain:
        """A codec of a plugin without the optional methods."""

        name, binary, encode, decode = codec.name, codec.binary, codec.encode, codec.decode

    for one in (codec, Plain()):
        assert decode_id(one, codec.encode(message)) == expected
        assert decode_id(one, b"\xc1") is None
