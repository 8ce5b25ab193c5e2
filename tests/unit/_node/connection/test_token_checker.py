"""Tokens in messages."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from dws_core import AuthenticationFailed, BearerAuthenticator, Handshake, InvalidMessage, Principal
from dws_core._node.connection.token_checker import TokenChecker, is_expired
from dws_core._wire.client_errors import Refused


def _verify(token: str) -> Principal | None:
    return Principal(id=token, expires_at=1.0 if token == "old" else None) if token != "wrong" else None


class WithoutTokens:
    async def authenticate(self, handshake: Handshake) -> Principal:
        raise AuthenticationFailed("no")


class Slow(WithoutTokens):
    async def authenticate_token(self, token: str) -> Principal:
        await asyncio.get_running_loop().create_future()
        raise AssertionError


@pytest.mark.parametrize("data", [None, {}, "ann", {"token": ""}, {"token": 7}, {"token": None}, ["token"]])
async def test_missing_token_is_invalid(data: Any) -> None:
    with pytest.raises(InvalidMessage, match="no member 'token'"):
        await TokenChecker(BearerAuthenticator(verify=_verify), 10).check(data)


@pytest.mark.parametrize(("token", "text"), [("wrong", "is not valid"), ("old", "has expired")])
async def test_bad_token_is_unauthenticated(token: str, text: str) -> None:
    with pytest.raises(Refused, match=text) as refused:
        await TokenChecker(BearerAuthenticator(verify=_verify), 10).check({"token": token})
    assert (refused.value.code, refused.value.temporary) == ("unauthenticated", False)


async def test_good_token_returns_principal() -> None:
    checker = TokenChecker(BearerAuthenticator(verify=_verify), 10)
    assert checker.is_possible
    assert await checker.check({"token": "ann", "more": 1}) == Principal(id="ann")


@pytest.mark.parametrize("authenticator", [None, WithoutTokens()])
async def test_node_that_cannot_verify_gives_the_reason(authenticator: Any) -> None:
    checker = TokenChecker(authenticator, 10)
    assert not checker.is_possible
    with pytest.raises(Refused, match="cannot verify tokens") as refused:
        await checker.check({"token": "ann"})
    assert refused.value.code == "forbidden"


async def test_slow_authenticator_is_temporary_error() -> None:
    with pytest.raises(Refused, match="not verified in time") as refused:
        await TokenChecker(Slow(), 0.01).check({"token": "ann"})
    assert refused.value.temporary


@pytest.mark.parametrize(
    ("expires_at", "expected"), [(None, False), (1.0, True), (float("inf"), False), (float("nan"), True)]
)
def test_expiry_of_principal(expires_at: float | None, expected: bool) -> None:
    assert is_expired(Principal(id="ann", expires_at=expires_at)) is expected
    assert not is_expired(Principal(id="ann", expires_at=time.time() + 60))
