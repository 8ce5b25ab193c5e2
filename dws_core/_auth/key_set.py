"""The public keys of an identity provider: a JSON Web Key Set (RFC 7517), fetched and cached."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.request
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from dws_core._errors import AuthenticationFailed, ConfigurationError

logger = logging.getLogger("dws")

_LIFETIME_S: Final = 300.0
"""Time in seconds after which the keys are fetched again, although they work."""

_PAUSE_S: Final = 10.0
"""Minimum time between two fetches, in seconds. Tokens with invented key ids must not cause more."""

_TIMEOUT_S: Final = 5.0
_MAX_BYTES: Final = 1_048_576


def fetch(url: str) -> bytes:
    """Return the document at a URL. Blocks, so it is called in a thread.

    Raises:
        OSError: It cannot be fetched.
    """
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:  # noqa: S310 -- KeySet checks the scheme
        found: bytes = response.read(_MAX_BYTES)
    return found


class KeySet:
    """Finds keys by their id. Unknown ids cause a new fetch, because providers rotate their keys.

    Keys that are cached stay in use while the provider is unavailable.

    Args:
        url: URL of the key set, `https://…`, or `http://…` for tests.
        load: Returns the document at the URL. Called in a thread.
        clock: Returns the time, in seconds of a monotonic clock.

    Raises:
        ConfigurationError: The URL has another scheme.
    """

    def __init__(
        self, url: str, *, load: Callable[[str], bytes] = fetch, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not url.startswith(("https://", "http://")):
            raise ConfigurationError(f"jwks_url={url!r} is not an HTTP URL.", fix="write https://…")
        self._url = url
        self._load = load
        self._clock = clock
        self._keys: Mapping[str | None, Any] = {}
        self._loaded = self._tried = -_LIFETIME_S
        self._loading = asyncio.Lock()

    async def key(self, key_id: str | None) -> Any:
        """Return the key with an id. A token without an id uses the only key.

        Raises:
            AuthenticationFailed: There is no such key.
            TimeoutError: The keys cannot be fetched.
        """
        if self._should_load(key_id):
            async with self._loading:
                if self._should_load(key_id):
                    await self._reload()
        if not self._keys:
            raise TimeoutError("the keys of the identity provider are unavailable")
        if (key := self._find(key_id)) is None:
            raise AuthenticationFailed("the token has an unknown key")
        return key

    def _find(self, key_id: str | None) -> Any:
        return next(iter(self._keys.values())) if key_id is None and len(self._keys) == 1 else self._keys.get(key_id)

    def _should_load(self, key_id: str | None) -> bool:
        now = self._clock()
        is_due = self._find(key_id) is None or now - self._loaded >= _LIFETIME_S
        return is_due and (not self._keys or now - self._tried >= _PAUSE_S)

    async def _reload(self) -> None:
        self._tried = self._clock()
        try:
            document = json.loads(await asyncio.to_thread(self._load, self._url))
            keys = import_module("jwt").PyJWKSet.from_dict(document).keys
        except Exception as error:  # noqa: BLE001 -- the document of another party may break any rule
            logger.warning("the keys at %s cannot be fetched: %s", self._url, error)
            return
        self._keys = {key.key_id: key.key for key in keys}
        self._loaded = self._tried
