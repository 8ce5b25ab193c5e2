"""A correct authenticator, and authenticators with one flaw each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from factory import found_by

from dws_core.plugin import AuthenticationFailed, Handshake, Principal
from dws_core.testing import AuthenticatorConformance


class AuthenticatorSuite(AuthenticatorConformance):
    kind: Callable[[], Any]

    @pytest.fixture
    def authenticator(self) -> Any:
        return type(self).kind()

    @pytest.fixture
    def valid_handshake(self) -> Handshake:
        return shown("alice-good")

    @pytest.fixture
    def expired_handshake(self) -> Handshake:
        return shown("alice-old")

    @pytest.fixture
    def malformed_handshake(self) -> Handshake:
        return shown("%%%")


def shown(token: str) -> Handshake:
    return Handshake(path="/ws", headers={"authorization": f"Bearer {token}"}, token=token)


def principal_of(token: str) -> Principal:
    name, _, state = token.partition("-")
    if state != "good":
        raise AuthenticationFailed("no valid token")
    return Principal(id=name)


class NameTokens:
    """A correct authenticator. The token `<name>-good` is valid."""

    async def authenticate(self, handshake: Handshake) -> Principal:
        return principal_of(handshake.token or "")

    async def authenticate_token(self, token: str) -> Principal:
        return principal_of(token)


class TestCorrectAuthenticator(AuthenticatorSuite):
    kind = NameTokens


def flawed_authenticator(test: str) -> Callable[[type[Any]], type[Any]]:
    return found_by(test, AuthenticatorSuite)


@flawed_authenticator("test_expired_handshake_is_rejected")
class LetsOldTokensIn(NameTokens):
    async def authenticate(self, handshake: Handshake) -> Principal:
        if handshake.token == "alice-old":
            return Principal(id="alice")
        return await super().authenticate(handshake)


@flawed_authenticator("test_handshake_without_credentials_is_rejected")
class LetsStrangersIn(NameTokens):
    async def authenticate(self, handshake: Handshake) -> Principal:
        return await super().authenticate(handshake) if handshake.token else Principal(id="anonymous")


@flawed_authenticator("test_malformed_handshake_is_rejected")
class RepeatsTheSecret(NameTokens):
    async def authenticate(self, handshake: Handshake) -> Principal:
        try:
            return await super().authenticate(handshake)
        except AuthenticationFailed as error:
            raise AuthenticationFailed("refused") from ValueError(f"{handshake.token} is wrong: {error}")


@flawed_authenticator("test_valid_handshake_logs_no_secret")
class LogsTheSecret(NameTokens):
    async def authenticate(self, handshake: Handshake) -> Principal:
        logging.getLogger("auth").debug("token %s", handshake.token)
        return await super().authenticate(handshake)


@flawed_authenticator("test_malformed_handshake_is_rejected")
class LetsOtherErrorsEscape(NameTokens):
    async def authenticate(self, handshake: Handshake) -> Principal:
        name, state = (handshake.token or "-").split("-")
        return await super().authenticate(shown(f"{name}-{state}"))


@flawed_authenticator("test_concurrent_handshakes_do_not_mix")
class SharesItsState(NameTokens):
    async def authenticate(self, handshake: Handshake) -> Principal:
        self.handshake = handshake
        await asyncio.sleep(0)
        return await super().authenticate(self.handshake)


@flawed_authenticator("test_bad_token_in_message_is_rejected")
class LetsOldTokensRefresh(NameTokens):
    async def authenticate_token(self, token: str) -> Principal:
        return Principal(id="alice") if token == "alice-old" else principal_of(token)


@flawed_authenticator("test_bad_token_in_message_is_rejected")
class RepeatsTheTokenOfAMessage(NameTokens):
    async def authenticate_token(self, token: str) -> Principal:
        try:
            return principal_of(token)
        except AuthenticationFailed as error:
            raise AuthenticationFailed(f"{token!r} is wrong") from error


@flawed_authenticator("test_token_in_message_returns_same_principal")
class RenamesUsers(NameTokens):
    async def authenticate_token(self, token: str) -> Principal:
        return Principal(id=f"{principal_of(token).id} again")
