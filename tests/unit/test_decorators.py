"""Decorators that handle the given exceptions and no others."""

from __future__ import annotations

import inspect

import pytest

from dws_core._decorators import ahandle, handle


async def _text(error: Exception) -> str:
    return f"handled: {error}"


def test_handler_value_becomes_return_value() -> None:
    @handle(ValueError, str)
    def parse(text: str, *, base: int = 10) -> int:
        """Parse."""
        return int(text, base)

    assert parse("ff", base=16) == 255
    assert "invalid literal" in str(parse("x"))
    assert (parse.__name__, parse.__doc__) == ("parse", "Parse.")


def test_other_exception_propagates() -> None:
    @handle(LookupError, str)
    def divide() -> float:
        return 1 / 0

    with pytest.raises(ZeroDivisionError):
        divide()


def test_subclass_is_handled_and_handler_error_chained() -> None:
    def raise_anew(error: LookupError) -> None:
        raise RuntimeError("anew")

    @handle(LookupError, raise_anew)
    def look_up() -> None:
        {}["key"]

    with pytest.raises(RuntimeError, match="anew") as caught:
        look_up()
    assert isinstance(caught.value.__context__, KeyError)


async def test_async_handler_accepts_async_and_sync_functions() -> None:
    @ahandle(ValueError, _text)
    async def fail_later() -> int:
        raise ValueError("later")

    @ahandle(ValueError, _text)
    def fail_now() -> int:
        raise ValueError("now")

    assert inspect.iscoroutinefunction(fail_later)
    assert [await fail_later(), await fail_now()] == ["handled: later", "handled: now"]


async def test_async_decorator_passes_normal_results() -> None:
    @ahandle(ValueError, _text)
    async def double(number: int) -> int:
        return number * 2

    @ahandle(ValueError, _text)
    def triple(number: int) -> int:
        return number * 3

    assert [await double(2), await triple(number=2)] == [4, 6]


async def test_async_handler_leaves_other_exceptions() -> None:
    @ahandle(ValueError, _text)
    async def fail() -> None:
        raise KeyError("other")

    with pytest.raises(KeyError):
        await fail()
