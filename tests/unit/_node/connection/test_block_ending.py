"""Close codes for the exceptions that leave a block."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import HTTPException, WebSocketException
from starlette.websockets import WebSocketDisconnect

from dws_core import AuthenticationFailed, ConnectionClosed
from dws_core._node.connection.block_ending import ending_of, has_own_handler


def test_block_without_exception_ends_normally() -> None:
    ending = ending_of(None)
    assert (ending.code, ending.reason, ending.error) == (1000, None, None)
    assert not ending.is_refusal
    assert not ending.left


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), SystemExit()])
def test_end_of_the_server_is_going_away(error: BaseException) -> None:
    assert ending_of(error).code == 1001
    assert ending_of(error).error is error


def test_refusal_keeps_its_code_and_reason() -> None:
    for error in (WebSocketException(4401, "x"), AuthenticationFailed("x")):
        ending = ending_of(error)
        assert (ending.code, ending.reason, ending.error) == (error.code, "x", error)
        assert ending.is_refusal


def test_http_error_becomes_a_websocket_exception() -> None:
    ending = ending_of(error := HTTPException(404, "no room"))
    assert (ending.code, ending.reason) == (1008, "no room")
    assert ending.is_refusal
    assert ending.error is not None
    assert ending.error.__cause__ is error


def test_group_ends_like_its_only_exception() -> None:
    refusal, left = WebSocketException(4401), WebSocketDisconnect()
    group = ExceptionGroup("", [left, ExceptionGroup("", [refusal])])
    assert ending_of(group).error is refusal
    assert ending_of(ExceptionGroup("", [left, ConnectionClosed(1006)])).left
    two = ExceptionGroup("", [ValueError(), KeyError()])
    assert (ending_of(two).code, ending_of(two).error) == (1011, two)


def test_only_handlers_of_the_application_count() -> None:
    def handler() -> None: ...

    scope = {"starlette.exception_handlers": ({LookupError: handler, HTTPException: handler}, {})}
    assert has_own_handler(KeyError(), scope)
    assert not has_own_handler(ValueError(), scope)
    assert not has_own_handler(HTTPException(400), scope)
    assert not has_own_handler(None, scope)
    assert not has_own_handler(KeyError(), {})
