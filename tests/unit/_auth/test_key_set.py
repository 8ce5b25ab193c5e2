"""Cached key sets of identity providers."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from dws_core import AuthenticationFailed, ConfigurationError
from dws_core._auth.key_set import KeySet


def _public(key_id: str | None) -> dict[str, Any]:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    members = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key))
    return {**members, "use": "sig", "alg": "ES256", **({} if key_id is None else {"kid": key_id})}


KEYS = {key_id: _public(key_id) for key_id in ("one", "two", None)}


class Provider:
    """An identity provider whose keys can change."""

    def __init__(self, *key_ids: str | None) -> None:
        self.key_ids = key_ids
        self.fetches = 0
        self.failure: Exception | None = None
        self.now = 1000.0

    def load(self, url: str) -> bytes:
        self.fetches += 1
        if self.failure is not None:
            raise self.failure
        return json.dumps({"keys": [KEYS[key_id] for key_id in self.key_ids]}).encode()

    def key_set(self) -> KeySet:
        return KeySet("https://id.example/keys", load=self.load, clock=lambda: self.now)


async def test_keys_are_fetched_once() -> None:
    provider = Provider("one", "two")
    keys = provider.key_set()
    found = await asyncio.gather(*(keys.key("one") for _ in range(20)))
    assert len(set(map(id, found))) == 1
    assert await keys.key("two") is not found[0]
    assert provider.fetches == 1


async def test_rotated_key_is_fetched() -> None:
    provider = Provider("one")
    keys = provider.key_set()
    await keys.key("one")
    provider.key_ids = ("two",)
    provider.now += 11
    assert await keys.key("two") is not None
    with pytest.raises(AuthenticationFailed, match="unknown key"):
        await keys.key("one")


async def test_invented_key_ids_cause_few_fetches() -> None:
    provider = Provider("one")
    keys = provider.key_set()
    for number in range(100):
        provider.now += 0.5
        with pytest.raises(AuthenticationFailed, match="unknown key"):
            await keys.key(f"invented-{number}")
    assert provider.fetches <= 6


async def test_old_keys_are_replaced() -> None:
    provider = Provider("one")
    keys = provider.key_set()
    await keys.key("one")
    provider.now += 299
    await keys.key("one")
    assert provider.fetches == 1
    provider.now += 2
    await keys.key("one")
    assert provider.fetches == 2


@pytest.mark.parametrize("failure", [OSError("down"), ValueError("no JSON")])
async def test_cached_keys_survive_an_outage(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    provider = Provider("one")
    keys = provider.key_set()
    first = await keys.key("one")
    provider.failure, provider.now = failure, provider.now + 301
    with caplog.at_level(logging.WARNING, "dws"):
        for _ in range(5):
            assert await keys.key("one") is first
    assert caplog.text.count("cannot be fetched") == 1
    provider.failure, provider.now = None, provider.now + 11
    await keys.key("one")
    assert provider.fetches == 3


async def test_unavailable_provider_is_no_refusal() -> None:
    """The client may try again, because nobody knows whether its token is valid."""
    provider = Provider("one")
    provider.failure = OSError("down")
    keys = provider.key_set()
    with pytest.raises(TimeoutError, match="unavailable"):
        await keys.key("one")
    provider.failure = None
    assert await keys.key("one") is not None


@pytest.mark.parametrize("key_ids", [("one",), (None,), ("one", "two")])
async def test_token_without_key_id_uses_the_only_key(key_ids: tuple[str | None, ...]) -> None:
    keys = Provider(*key_ids).key_set()
    if len(key_ids) == 1:
        assert await keys.key(None) is not None
    else:
        with pytest.raises(AuthenticationFailed):
            await keys.key(None)


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys": []}', b'{"keys": [{"kty": "EC"}]}', b"\xff"])
async def test_malformed_document_is_unavailable(document: bytes) -> None:
    load: Callable[[str], bytes] = lambda url: document  # noqa: E731
    with pytest.raises(TimeoutError):
        await KeySet("https://id.example", load=load).key("one")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x", "id.example/keys"])
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="not an HTTP URL"):
        KeySet(url)
