"""Exceptions are handled by decoration: the named ones, and no others."""

from __future__ import annotations

import inspect

import pytest

from dws_core._decorators import ahandle, handle


async def _text(error: Exception) -> str:
    return f"handled: {error}"


def test_the_handlers_value_becomes_the_functions() -> None:
    @handle(ValueError, str)
    def parse(text: str, *, base: int = 10) -> int:
        """Parse."""
        return int(text, base)

    assert parse("ff", base=16) == 255
    assert "invalid literal" in str(parse("x"))
    assert (parse.__name__, parse.__doc__) == ("parse", "Parse.")


def test_an_exception_of_another_type_goes_on() -> None:
    @handle(LookupError, str)
    def divide() -> float:
        return 1 / 0

    with pytest.raises(ZeroDivisionError):
        divide()


def test_subclasses_are_handled_and_what_the_handler_raises_has_its_cause_in_sight() -> None:
    def raise_anew(error: LookupError) -> None:
        raise RuntimeError("anew")

    @handle(LookupError, raise_anew)
    def look_up() -> None:
        {}["key"]

    with pytest.raises(RuntimeError, match="anew") as caught:
        look_up()
    assert isinstance(caught.value.__context__, KeyError)


async def test_an_async_handler_takes_async_and_plain_functions() -> None:
    @ahandle(ValueError, _text)
    async def fail_later() -> int:
        raise ValueError("later")

    @ahandle(ValueError, _text)
    def fail_now() -> int:
        raise ValueError("now")

    assert inspect.iscoroutinefunction(fail_later)
    assert [await fail_later(), await fail_now()] == ["handled: later", "handled: now"]


async def test_what_goes_well_goes_through_an_async_decoration_too() -> None:
    @ahandle(ValueError, _text)
    async def double(number: int) -> int:
        return number * 2

    @ahandle(ValueError, _text)
    def triple(number: int) -> int:
        return number * 3

    assert [await double(2), await triple(number=2)] == [4, 6]


async def test_an_async_handler_leaves_other_exceptions_alone() -> None:
    @ahandle(ValueError, _text)
    async def fail() -> None:
        raise KeyError("other")

    with pytest.raises(KeyError):
        await fail()
