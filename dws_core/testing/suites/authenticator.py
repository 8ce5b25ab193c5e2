"""The conformance suite for authenticators."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from dws_core.plugin import AuthenticationFailed, Authenticator, Handshake, Principal
from dws_core.testing.suites.conformance import Conformance


@pytest.mark.anyio
class AuthenticatorConformance(Conformance):
    """Tests that every authenticator must pass.

    Requires the fixtures `authenticator`, `valid_handshake`, `expired_handshake` and `malformed_handshake`. Override
    `secrets_of` if the secret is neither a bearer token nor a cookie.
    """

    @pytest.fixture
    def authenticator(self) -> Authenticator:
        """The authenticator under test."""
        raise NotImplementedError("the suite needs a fixture 'authenticator'. Fix: define it in your subclass")

    @pytest.fixture
    def valid_handshake(self) -> Handshake:
        """A handshake with valid credentials."""
        raise NotImplementedError("the suite needs a fixture 'valid_handshake'. Fix: define it in your subclass")

    @pytest.fixture
    def expired_handshake(self) -> Handshake:
        """A handshake with expired credentials."""
        raise NotImplementedError("the suite needs a fixture 'expired_handshake'. Fix: define it in your subclass")

    @pytest.fixture
    def malformed_handshake(self) -> Handshake:
        """A handshake with malformed text in place of the secret."""
        raise NotImplementedError("the suite needs a fixture 'malformed_handshake'. Fix: define it in your subclass")

    @pytest.fixture
    def missing_handshake(self) -> Handshake:
        """A handshake without credentials."""
        return Handshake(path="/ws", headers={"host": "localhost"})

    def secrets_of(self, handshake: Handshake) -> set[str]:
        """Return the secrets of a handshake, which must not appear in logs and errors."""
        authorization = handshake.headers.get("authorization", "").rpartition(" ")[2]
        cookies = handshake.cookies.values()
        return {text for text in (handshake.token, authorization, *cookies, *handshake.secrets.values()) if text}

    def test_authenticator_implements_protocol(self, authenticator: Authenticator) -> None:
        assert isinstance(authenticator, Authenticator)

    async def test_valid_handshake_returns_principal(
        self, authenticator: Authenticator, valid_handshake: Handshake
    ) -> None:
        principal = await authenticator.authenticate(valid_handshake)
        assert isinstance(principal, Principal)
        assert principal.id
        assert principal.expires_at is None or principal.expires_at > time.time()

    async def test_same_handshake_returns_same_principal(
        self, authenticator: Authenticator, valid_handshake: Handshake
    ) -> None:
        first = await authenticator.authenticate(valid_handshake)
        assert (await authenticator.authenticate(valid_handshake)).id == first.id

    async def test_handshake_without_credentials_is_rejected(
        self, authenticator: Authenticator, missing_handshake: Handshake, caplog: pytest.LogCaptureFixture
    ) -> None:
        await self._expect_refusal(authenticator, missing_handshake, caplog)

    async def test_expired_handshake_is_rejected(
        self, authenticator: Authenticator, expired_handshake: Handshake, caplog: pytest.LogCaptureFixture
    ) -> None:
        await self._expect_refusal(authenticator, expired_handshake, caplog)

    async def test_malformed_handshake_is_rejected(
        self, authenticator: Authenticator, malformed_handshake: Handshake, caplog: pytest.LogCaptureFixture
    ) -> None:
        await self._expect_refusal(authenticator, malformed_handshake, caplog)

    async def test_valid_handshake_logs_no_secret(
        self, authenticator: Authenticator, valid_handshake: Handshake, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        principal = await authenticator.authenticate(valid_handshake)
        for secret in self.secrets_of(valid_handshake):
            assert secret not in caplog.text
            assert secret not in repr(principal)

    async def test_concurrent_handshakes_do_not_mix(
        self, authenticator: Authenticator, valid_handshake: Handshake, malformed_handshake: Handshake
    ) -> None:
        handshakes = [valid_handshake, malformed_handshake] * 10
        results = await asyncio.gather(*map(authenticator.authenticate, handshakes), return_exceptions=True)
        assert all(isinstance(result, Principal) for result in results[::2])
        assert all(isinstance(result, AuthenticationFailed) for result in results[1::2])

    async def _expect_refusal(
        self, authenticator: Authenticator, handshake: Handshake, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        with pytest.raises(AuthenticationFailed) as caught:
            await authenticator.authenticate(handshake)
        for secret in self.secrets_of(handshake):
            assert secret not in caplog.text
            for error in _chain(caught.value):
                assert secret not in f"{error} {error!r}"


def _chain(error: BaseException | None) -> list[BaseException]:
    """Return an error and its causes, which all appear in a traceback."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found
