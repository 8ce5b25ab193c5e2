"""Whether a client reconnects after a connection has ended."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus, InvalidURI
from websockets.http11 import Response

from dws_core import AuthenticationFailed, ConfigurationError, ConnectionClosed, WebSocketException
from dws_core.client._endpoint import Ending, Endpoint, codec_of, ending_of

URL = "ws://user:secret@host:8000/ws"
ENDPOINT = Endpoint(
    url=URL,
    codec=codec_of("json"),
    token=None,
    on_unauthenticated=None,
    headers={},
    allowed_redirects=frozenset(),
    ssl=None,
    proxy=False,
    timeout_s=1,
)
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


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 8000)"),
        OSError(
            "Multiple exceptions: [Errno 111] Connect call failed ('::1'), [Errno 111] Connect call failed ('127')"
        ),
    ],
    ids=["one address", "two addresses"],
)
def test_failed_connect_names_cause_not_addresses(error: OSError) -> None:
    """The texts of asyncio."""
    text = str(ending_of(error, URL, was_connected=False).error)
    assert text.startswith("cannot connect to host:8000: Connection refused. Fix: check the address")


async def test_invalid_url_is_refused_without_its_password() -> None:
    for url in ("http://user:secret@host", "ws://user:secret@host:99999", "ws://user:secret@"):
        endpoint = dataclasses.replace(ENDPOINT, url=url)
        with pytest.raises(InvalidURI) as caught:
            await endpoint.open()
        ending = ending_of(caught.value, url, was_connected=True)
        assert not ending.retry
        assert "the URL of the node is not valid" in str(ending.error)
        assert "secret" not in str(ending.error)


@pytest.mark.parametrize("url", [None, 5, b"ws://host"])
def test_url_that_is_no_text_is_refused(url: Any) -> None:
    """For example an environment variable that is not set."""
    with pytest.raises(ConfigurationError, match="expected a text"):
        dataclasses.replace(ENDPOINT, url=url)


@pytest.mark.parametrize("token", ["secret\n", "sec ret", "\0secret", lambda: "secret\r\n"])
async def test_token_that_no_header_can_carry_is_not_shown(token: Any) -> None:
    with pytest.raises(AuthenticationFailed, match="a line break") as caught:
        await dataclasses.replace(ENDPOINT, token=token).fresh_token()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("token", [b"secret", lambda: b"secret", lambda: None, lambda: lambda: "secret"])
async def test_token_that_is_no_text_is_refused(token: Any) -> None:
    with pytest.raises(AuthenticationFailed, match="expected a text") as caught:
        await dataclasses.replace(ENDPOINT, token=token).fresh_token()
    assert "secret" not in str(caught.value)


def test_failed_connect_names_host_and_cause_without_secrets() -> None:
    ending = ending_of(ConnectionRefusedError(111, "Connection refused"), URL, was_connected=False)
    assert ending.retry
    assert isinstance(ending.error, ConnectionClosed)
    assert ending.error.reason == "cannot connect to host:8000: Connection refused"
