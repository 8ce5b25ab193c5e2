"""Values that stand for JSON values, encoded by both built-in codecs."""

from __future__ import annotations

import collections
import dataclasses
import enum
import json
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import numpy
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dws_core import CodecError
from dws_core._wire.codecs import Codec, JSONCodec, MsgpackCodec

CODECS = [JSONCodec(), MsgpackCodec()]


class Text(str):
    """A subclass that shows itself in another way, like the safe strings of template engines."""

    __slots__ = ()

    def __str__(self) -> str:
        return "shown"


class Number(int):
    def __repr__(self) -> str:
        return "shown"


class Real(float):
    def __repr__(self) -> str:
        return "shown"


class Data(bytes): ...


class Moment(datetime): ...


class Day(date): ...


class Clock(time): ...


class Span(timedelta): ...


class Amount(Decimal): ...


class Colour(enum.StrEnum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 2


class Point(NamedTuple):
    x: int
    y: int


class Names(list[str]): ...


class Item(pydantic.BaseModel):
    id: uuid.UUID
    at: datetime
    price: Decimal = Decimal("1.50")
    shown_as: str = pydantic.Field(default="x", alias="shownAs")
    parts: list[Item] = []


class Items(pydantic.RootModel[list[Item]]): ...


ITEM = Item(
    id=uuid.UUID(int=7),
    at=datetime(2026, 1, 2, tzinfo=UTC),
    parts=[Item(id=uuid.UUID(int=8), at=datetime(2026, 1, 3, tzinfo=UTC))],
)
DUMPED = ITEM.model_dump(mode="json")


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@pytest.mark.parametrize(
    "value",
    [
        Text("x"), Number(3), Number(-(2**63)), Real(1.5), Colour.RED, Size.BIG, Point(1, 2), Names(["a"]),
        {"a": Text("x")}, [Number(3)], (Real(0.1), Text("")), {Text("k"): Text("v")}, {Colour.RED: Colour.RED},
        collections.OrderedDict(a=1), collections.defaultdict(int, a=1), collections.Counter("aab"),
        numpy.float64(1.5), numpy.str_("text"), {"a": [numpy.float64(0.1)]},
    ],
    ids=repr,
)  # fmt: skip
def test_value_is_encoded_as_json_dumps_does(codec: Codec, value: Any) -> None:
    assert codec.decode(codec.encode(value)) == json.loads(json.dumps(value))


_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.integers(-(2**63), 2**64 - 1).map(Number)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(allow_nan=False, allow_infinity=False).map(Real)
    | _TEXTS
    | _TEXTS.map(Text)
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(_TEXTS | _TEXTS.map(Text), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(_VALUES)
def test_both_codecs_agree_with_json_dumps(value: Any) -> None:
    expected = json.loads(json.dumps(value))
    for codec in CODECS:
        assert codec.decode(codec.encode(value)) == expected


@given(st.dictionaries(_SCALARS, st.integers(0, 9), max_size=1))
def test_json_writes_keys_as_json_dumps_does(value: dict[Any, int]) -> None:
    found = JSONCodec().decode(JSONCodec().encode(value))
    expected = json.loads(json.dumps(value))
    if any(isinstance(key, float) for key in value):  # 1e+16 may be written as 1e16
        found, expected = ({float(key): n for key, n in each.items()} for each in (found, expected))
    assert found == expected


@pytest.mark.parametrize("key", [None, True, False, 1, Number(2), Size.BIG, Colour.RED, Text("k")], ids=repr)
def test_key_is_accepted_by_both_codecs(key: Any) -> None:
    """MessagePack has keys of every type, so only JSON needs texts."""
    value = {"outer": {key: [key]}}
    assert JSONCodec().decode(JSONCodec().encode(value)) == json.loads(json.dumps(value))
    assert MsgpackCodec().decode(MsgpackCodec().encode(value)) == value


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (ITEM, DUMPED),
        ({"items": [ITEM, {"deeper": ITEM}]}, {"items": [DUMPED, {"deeper": DUMPED}]}),
        (Items([ITEM]), [DUMPED]),
        ([1, (ITEM,)], [1, [DUMPED]]),
    ],
)
def test_model_is_encoded_as_model_dump_does(codec: Codec, value: Any, expected: Any) -> None:
    assert codec.decode(codec.encode(value)) == expected


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@pytest.mark.parametrize(
    "number", [numpy.int64(-3), numpy.uint8(3), numpy.float32(0.5), numpy.bool_(True), numpy.float16(0.5)], ids=repr
)
def test_number_of_numpy_is_encoded_as_number(codec: Codec, number: Any) -> None:
    found = codec.decode(codec.encode({"n": number}))["n"]
    assert found == number.item()
    assert type(found) is type(number.item())


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@pytest.mark.parametrize("number", [numpy.longdouble(0.5), numpy.complex128(1j), numpy.array([1])], ids=repr)
def test_number_without_json_form_is_refused(codec: Codec, number: Any) -> None:
    with pytest.raises(CodecError, match=r"cannot encode data\.n: values of type"):
        codec.encode({"n": number})


_ZONE = timezone(timedelta(hours=-3, minutes=-30))


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Data(b"ab"), b"ab"),
        (Moment(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)),
        (Moment(2026, 1, 2, 3, tzinfo=_ZONE), datetime(2026, 1, 2, 3, tzinfo=_ZONE)),
        (Moment(2026, 1, 2), datetime(2026, 1, 2)),  # noqa: DTZ001 -- without a zone
        (Day(2026, 1, 2), date(2026, 1, 2)),
        (Clock(3, 4, tzinfo=UTC), time(3, 4, tzinfo=UTC)),
        (Span(days=1, seconds=-1), timedelta(days=1, seconds=-1)),
        (Amount("1.50"), Decimal("1.50")),
    ],
    ids=repr,
)
def test_subclass_is_encoded_like_its_base(codec: Codec, value: Any, plain: Any) -> None:
    assert codec.encode({"v": value}) == codec.encode({"v": plain})


@dataclasses.dataclass
class Pair:
    one: Any
    two: Any


class Struct(msgspec.Struct):
    one: Any


@pytest.mark.parametrize(
    "value",
    [
        1, 2**63, -1.5, None, True, "é", b"\xff", bytearray(b"x"), memoryview(b"x"), [1], (1,), {1}, frozenset([1]),
        datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 2), time(1, 2), timedelta(1), Decimal("1.5"), uuid.UUID(int=1),
        Colour.RED, Size.BIG, Pair(1, [2]), Struct(1), Point(1, 2), {1: 2, 1.5: 3}, {date(2026, 1, 2): 1},
        {uuid.UUID(int=1): {Decimal(1): 1}}, float("nan"), float("-inf"),
    ],
    ids=repr,
)  # fmt: skip
def test_values_of_msgspec_are_encoded_as_before(value: Any) -> None:
    for nested in (value, {"a": [value, Pair(value, value)]}):
        assert JSONCodec().encode(nested) == msgspec.json.encode(nested)
        assert MsgpackCodec().encode(nested) == msgspec.msgpack.encode(nested)


def test_large_integer_is_encoded_where_it_fits() -> None:
    for number in (2**64, -(2**70)):
        assert JSONCodec().decode(JSONCodec().encode([number])) == [number]
        with pytest.raises(CodecError, match=r"cannot encode data\[0\]: can't serialize ints"):
            MsgpackCodec().encode([number])


@pytest.mark.parametrize("value", [object(), 1j, Item, iter([1]), range(2), lambda: None, {"k"}.__iter__()], ids=repr)
def test_other_value_is_refused(value: Any) -> None:
    for codec in CODECS:
        with pytest.raises(CodecError) as caught:
            codec.encode({"a": [value]})
        assert caught.value.path == "data.a[0]"
