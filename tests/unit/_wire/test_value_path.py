"""The path of a value that cannot be encoded."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dws_core import CodecError
from dws_core._wire.codecs import Codec, JSONCodec, MsgpackCodec, encode_within
from dws_core._wire.value_path import path_of_failure

BAD = object()


@dataclasses.dataclass
class Pair:
    one: Any
    two: Any


@attrs.define
class Attrs:
    one: Any
    two: Any


class Struct(msgspec.Struct):
    one: Any
    two: Any


class Model(pydantic.BaseModel):
    one: Any
    two: Any = None


class Root(pydantic.RootModel[Any]): ...


class Custom(pydantic.BaseModel):
    secret: str

    @pydantic.model_serializer
    def refuse(self) -> str:
        raise ValueError("no")


def _path(value: Any, codec: Codec) -> str:
    with pytest.raises(CodecError) as caught:
        codec.encode(value)
    assert caught.value.path is not None
    assert f"cannot encode {caught.value.path}: " in caught.value.message
    return caught.value.path


@pytest.mark.parametrize("codec", [JSONCodec(), MsgpackCodec()], ids=lambda codec: codec.name)
@pytest.mark.parametrize(
    ("value", "path"),
    [
        (BAD, "data"),
        ([BAD], "data[0]"),
        ([1, 2, 3, BAD, 4], "data[3]"),
        ([1, BAD, BAD], "data[1]"),
        ((1, (BAD,)), "data[1][0]"),
        ({"items": [{"price": 1}] * 3 + [{"price": BAD}]}, "data.items[3].price"),
        ({"a b": {"": BAD}}, "data['a b']['']"),
        ({"x" * 100: BAD}, f"data['{'x' * 39}…]"),
        ({1: {2.5: BAD}}, "data[1][2.5]"),
        ({b"k": [BAD]}, "data[a bytes][0]"),
        ({"a": {"b": {(1, BAD): 1}}}, "a key of data.a.b"),
        ({"s": {BAD}}, "data.s"),
        ({"text": "\ud800"}, "data.text"),
        ({"\ud800": 1}, "a key of data"),
        ([Pair(1, [BAD])], "data[0].two[0]"),
        ([Attrs({"k": BAD}, 1)], "data[0].one.k"),
        ([Struct(1, BAD)], "data[0].two"),
        ([Model(one=[{"price": BAD}])], "data[0].one[0].price"),
        (Model(one=1, two=Model(one=BAD)), "data.two.one"),
        (Root([1, Model(one=BAD)]), "data[1].one"),
        ({"m": Custom(secret="hunter2")}, "data.m"),
        ([[[[[[[[[[[[BAD]]]]]]]]]]]], "data" + "[0]" * 10 + "…"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_path_leads_to_the_value(value: Any, path: str, codec: Codec) -> None:
    assert _path(value, codec) == path


@pytest.mark.parametrize("codec", [JSONCodec(), MsgpackCodec()], ids=lambda codec: codec.name)
def test_value_that_contains_itself_is_named(codec: Codec) -> None:
    circle: dict[str, Any] = {"a": 1}
    circle["b"] = [circle]
    assert _path(circle, codec) == "data.b[0], which contains itself"


def test_error_has_no_value() -> None:
    with pytest.raises(CodecError) as caught:
        JSONCodec().encode({"user": {"password": ["hunter2", BAD]}})
    assert str(caught.value) == (
        "codec 'json': cannot encode data.user.password[1]: values of type object are not supported. "
        "Fix: send JSON values only [dws:codec]"
    )


def test_path_begins_at_the_data_of_a_message() -> None:
    with pytest.raises(CodecError) as caught:
        encode_within(JSONCodec(), {"a": BAD}, {"type": "send", "data": {"a": BAD}})
    assert caught.value.path == "data.a"
    assert encode_within(JSONCodec(), 1, [1]) == b"[1]"


def test_failure_outside_the_data_is_raised() -> None:
    """For example, a message may be nested too deeply, although its data is not."""
    with pytest.raises(CodecError) as caught:
        encode_within(JSONCodec(), 1, [1, BAD])
    assert caught.value.path == "data[1]"


_TREES = st.recursive(
    st.integers(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text("ab1 ", max_size=3), inner, max_size=4),
)


@given(_TREES, st.randoms())
def test_path_can_be_followed(tree: Any, random: Any) -> None:
    """The path of one bad value, put anywhere into a value, is the way to it."""
    steps, place = "", tree
    holder: Any = None
    while isinstance(place, list | dict) and place and len(steps) < 60 and (holder is None or random.random() < 0.8):
        key = random.choice(list(place) if isinstance(place, dict) else range(len(place)))
        steps += f".{key}" if isinstance(key, str) and key.isidentifier() else f"[{key!r}]"
        holder, place = (place, key), place[key]
    if holder is None:
        tree = BAD
    else:
        holder[0][holder[1]] = BAD

    def fails(value: Any) -> bool:
        try:
            json.dumps(value)
        except TypeError:
            return True
        return False

    path = path_of_failure(tree, fails)
    assert path == f"data{steps}" or path.endswith("…")
