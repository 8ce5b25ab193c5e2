"""The conformance suite for authenticators."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from dws_core.plugin import AuthenticationFailed, Authenticator, Handshake, Principal, TokenAuthenticator
from dws_core.testing.suites.conformance import Conformance


@pytest.mark.anyio
class AuthenticatorConformance(Conformance):
    """Tests that every authenticator must pass.

    Requires the fixtures `authenticator`, `valid_handshake`, `expired_handshake` and `malformed_handshake`. Override
    `secrets_of` if the secret is neither a bearer token nor a cookie, and `token_of` if a message carries another text.
    The tests of tokens in messages are skipped for an authenticator without `authenticate_token`.
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

    def token_of(self, handshake: Handshake) -> str:
        """Return the text that a client sends in a message in place of a handshake: its bearer token, or its secret."""
        return handshake.token or next(iter(handshake.secrets.values()), "")

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

    async def test_token_in_message_returns_same_principal(
        self, authenticator: Authenticator, valid_handshake: Handshake
    ) -> None:
        principal = await authenticator.authenticate(valid_handshake)
        found = await _with_tokens(authenticator).authenticate_token(self.token_of(valid_handshake))
        assert found.id == principal.id
        assert found.expires_at is None or found.expires_at > time.time()

    async def test_bad_token_in_message_is_rejected(
        self,
        authenticator: Authenticator,
        expired_handshake: Handshake,
        malformed_handshake: Handshake,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Expired, malformed, huge, empty and with characters that no token has."""
        caplog.set_level(logging.DEBUG)
        bad = [
            self.token_of(expired_handshake),
            self.token_of(malformed_handshake),
            "x" * 60_000,
            "",
            " ",
            "\0",
            "\ud800",
        ]
        for token in bad:
            with pytest.raises(AuthenticationFailed) as caught:
                await _with_tokens(authenticator).authenticate_token(token)
            if token.strip("\0 "):
                assert token not in caplog.text
                assert not [error for error in _chain(caught.value) if token in f"{error} {error!r}"]

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


def _with_tokens(authenticator: Authenticator) -> TokenAuthenticator:
    """Return the authenticator, or skip the test if it cannot verify tokens without a handshake."""
    if not isinstance(authenticator, TokenAuthenticator):
        pytest.skip("the authenticator has no method authenticate_token")
    return authenticator


def _chain(error: BaseException | None) -> list[BaseException]:
    """Return an error and its causes, which all appear in a traceback."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found
