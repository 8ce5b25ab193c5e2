"""Whether a client reconnects after a connection has ended."""

from __future__ import annotations

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response

from dws_core import AuthenticationFailed, ConnectionClosed, WebSocketException
from dws_core.client._endpoint import Ending, ending_of

URL = "ws://user:secret@host:8000/ws"
INTERMEDIARY = [200, 301, 400, 403, 404, 407, 410]
TEMPORARY = [408, 425, 429, 500, 502, 503, 504]


def _ending(status: int, *, was_connected: bool) -> Ending:
    return ending_of(InvalidStatus(Response(status, "", Headers())), URL, was_connected=was_connected)


@pytest.mark.parametrize("status", INTERMEDIARY)
def test_http_response_ends_a_client_that_was_never_connected(status: int) -> None:
    ending = _ending(status, was_connected=False)
    assert not ending.retry
    assert f"for /ws was refused with HTTP {status}" in str(ending.error)


@pytest.mark.parametrize("status", [*INTERMEDIARY, *TEMPORARY])
def test_connected_client_retries_after_http_response(status: int) -> None:
    assert _ending(status, was_connected=True).retry


@pytest.mark.parametrize("status", TEMPORARY)
def test_temporary_http_response_is_retried(status: int) -> None:
    ending = _ending(status, was_connected=False)
    assert ending.retry
    assert isinstance(ending.error, WebSocketException)


@pytest.mark.parametrize("was_connected", [False, True])
def test_refused_token_ends_the_client(was_connected: bool) -> None:
    ending = _ending(401, was_connected=was_connected)
    assert not ending.retry
    assert isinstance(ending.error, AuthenticationFailed)


def test_failed_connect_names_host_and_cause_without_secrets() -> None:
    ending = ending_of(ConnectionRefusedError(111, "Connection refused"), URL, was_connected=False)
    assert ending.retry
    assert isinstance(ending.error, ConnectionClosed)
    assert ending.error.reason == "cannot connect to host:8000: Connection refused"
