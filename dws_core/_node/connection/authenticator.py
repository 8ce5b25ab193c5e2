"""Chooses the authenticator from the arguments of a manager, and checks the prefixes that it claims."""

from __future__ import annotations

import inspect
import re
from typing import Final

from dws_core._auth.interface import Authenticator, TokenVerifier
from dws_core._errors import ConfigurationError
from dws_core._plugins.registry import PluginRegistry

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_OWN: Final = "dws."


def choose_authenticator(
    plugins: PluginRegistry, authenticator: str | Authenticator | None, verify: TokenVerifier | None
) -> Authenticator | None:
    """Return the authenticator object. A token verifier alone means bearer tokens.

    Raises:
        ConfigurationError: The plugin is not installed, refuses an option, or contradicts `verify`.
    """
    if authenticator is None and verify is not None:
        authenticator = "oauth2-bearer"
    if isinstance(authenticator, str):
        return plugins.authenticator(authenticator, verify=verify)
    if authenticator is not None and verify is not None:
        raise ConfigurationError(
            f"verify_token is given, but authenticator {type(authenticator).__qualname__} is an object, "
            "which does not receive it.",
            fix="remove verify_token, or pass it to the authenticator yourself",
        )
    given: object = authenticator  # an application may not be type-checked
    if inspect.isclass(given) or not isinstance(given, Authenticator | None):
        name = given.__qualname__ if inspect.isclass(given) else type(given).__qualname__
        raise ConfigurationError(
            f"authenticator {name} is not an object with a method authenticate.",
            fix="pass an object with `async def authenticate(self, handshake)`, or the name of a plugin",
        )
    return authenticator


def secret_prefixes(authenticator: Authenticator | None) -> tuple[str, ...]:
    """Return the prefixes of subprotocol entries that an authenticator claims as its secrets.

    Raises:
        ConfigurationError: A prefix is not valid in `Sec-WebSocket-Protocol`, or belongs to dws.
    """
    claimed: object = getattr(authenticator, "secret_subprotocols", ())
    prefixes = tuple(claimed) if isinstance(claimed, tuple | list | frozenset | set) else (claimed,)
    for prefix in prefixes:
        if not isinstance(prefix, str) or not _TOKEN.fullmatch(prefix) or _OWN.startswith(prefix[: len(_OWN)]):
            raise ConfigurationError(
                f"authenticator {type(authenticator).__qualname__} claims the subprotocol prefix {prefix!r}, "
                "expected a prefix of letters, digits and dots that does not begin with 'dws.'.",
                fix="choose a prefix such as 'acme.key.'",
            )
    return prefixes
