"""The authenticator that a manager chooses, and the secrets that an authenticator claims."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from dws_core import AuthenticationFailed, ConfigurationError, Handshake, PluginLoadError, Principal, WebSocketManager
from dws_core._node.connection.handshake import HandshakeChecker
from dws_core._wire.codecs import JSONCodec
from dws_core.plugin import AuthenticatorSpec, PluginRegistry, hookimpl
from dws_core.testing import FakeWebSocket


@dataclass(frozen=True)
class KeyOptions:
    """Options of the authenticator `api-key`."""

    header: str = "x-api-key"


class ApiKey:
    """Reads a key from a header, or from the subprotocol `acme.key.<key>`."""

    secret_subprotocols: Any = ("acme.key.",)

    def __init__(self, header: str = "x-api-key") -> None:
        self.header = header
        self.seen: list[Handshake] = []

    async def authenticate(self, handshake: Handshake) -> Principal:
        self.seen.append(handshake)
        key = handshake.headers.get(self.header) or handshake.secrets.get("acme.key.")
        if key is None:
            raise AuthenticationFailed("no API key in the handshake")
        return Principal(id=f"owner-{len(key)}")


class Named:
    """An authenticator that uses the token verifier."""

    def __init__(self, *, verify: Callable[[str], Principal] | None) -> None:
        self.verify = verify

    async def authenticate(self, handshake: Handshake) -> Principal:
        return Principal(id="ann")


def _fails(*, verify: object) -> Named:
    raise OSError("no key file")


class Plugin:
    """Offers authenticators of each kind."""

    @hookimpl
    def dws_register_authenticators(self) -> Any:
        yield AuthenticatorSpec(
            name="api-key",
            load=lambda options: lambda: ApiKey(options.header),
            summary="API keys.",
            verify_token="unused",
            options=KeyOptions,
        )
        yield AuthenticatorSpec(name="signed", load=lambda: Named, summary="Signed.", verify_token="required")
        yield AuthenticatorSpec(name="any", load=lambda: Named, summary="Any.")
        yield AuthenticatorSpec(name="fails", load=lambda: _fails, summary="Fails.")


def _verify(token: str) -> Principal:
    return Principal(id=token)


def _manager(authenticator: Any, **arguments: Any) -> WebSocketManager:
    registry = PluginRegistry()
    registry.add(Plugin(), name="acme", distribution="dws-acme", version="1.0")
    return WebSocketManager("c", broker_url="memory://", authenticator=authenticator, registry=registry, **arguments)


@pytest.mark.parametrize(
    ("authenticator", "verify"),
    [
        ("api-key", None),
        ("api-key?header=x-key", None),
        ("signed", _verify),
        ("any", _verify),
        ("any", None),
        (ApiKey(), None),
        (None, _verify),
        (None, None),
    ],
)
def test_authenticator_is_accepted(authenticator: Any, verify: Any) -> None:
    assert _manager(authenticator, verify_token=verify)


@pytest.mark.parametrize(
    ("authenticator", "verify", "text"),
    [
        (
            "api-key",
            _verify,
            "authenticator 'api-key' of dws-acme 1.0 does not use verify_token. Fix: remove verify_token",
        ),
        (
            "signed",
            None,
            "authenticator 'signed' of dws-acme 1.0 needs a function to verify tokens. "
            "Fix: pass WebSocketManager(..., verify_token=your_function)",
        ),
        (
            "api-key?heder=x",
            None,
            "authenticator 'api-key?heder=x' of dws-acme 1.0 has an unknown option 'heder'. "
            "Fix: use one of the valid options: header (a text)",
        ),
        ("any?x=1", None, "authenticator 'any' of dws-acme 1.0 has no options, but 'x' is given. Fix: write 'any'"),
        (
            ApiKey(),
            _verify,
            "verify_token is given, but authenticator ApiKey is an object, which does not receive it. "
            "Fix: remove verify_token, or pass it to the authenticator yourself",
        ),
        (ApiKey, None, "authenticator ApiKey is not an object with a method authenticate."),
        (5, None, "authenticator int is not an object with a method authenticate."),
    ],
)
def test_wrong_authenticator_fails_at_construction(authenticator: Any, verify: Any, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _manager(authenticator, verify_token=verify)
    assert str(caught.value).startswith(text)


def test_failing_factory_is_plugin_error() -> None:
    with pytest.raises(PluginLoadError, match="could not be built: OSError: no key file") as caught:
        _manager("fails")
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("argument", ["codec", "topic_matcher"])
def test_option_of_plugin_without_options_fails_at_construction(argument: str) -> None:
    name = {"codec": "json", "topic_matcher": "mqtt"}[argument]
    with pytest.raises(ConfigurationError, match=rf"{name}' of dws-core .* has no options, but 'x' is given"):
        WebSocketManager("c", broker_url="memory://", **{argument: f"{name}?x=1"})  # type: ignore[arg-type]


# -- secrets in subprotocols


def _checker(authenticator: Any) -> HandshakeChecker:
    return HandshakeChecker({"json": JSONCodec()}, JSONCodec(), authenticator, ())


async def test_claimed_subprotocol_is_secret(caplog: pytest.LogCaptureFixture) -> None:
    """It reaches the authenticator. It is not selected, logged, or shown by `repr`."""
    caplog.set_level(logging.DEBUG)
    authenticator = ApiKey()
    socket = FakeWebSocket(subprotocols=["acme.key.hush", "dws.v1.json", "acme.key.second"])
    assert (await _checker(authenticator).accept(socket, None))[1] == Principal(id="owner-4")
    assert socket.subprotocol == "dws.v1.json"
    (handshake,) = authenticator.seen
    assert handshake.secrets == {"acme.key.": "hush"}
    assert handshake.subprotocols == ("dws.v1.json",)
    assert "hush" not in repr(handshake)
    assert "hush" not in caplog.text


async def test_claimed_subprotocol_alone_is_refused_without_showing_it() -> None:
    with pytest.raises(Exception, match="a subprotocol with a secret needs a codec subprotocol next to it") as caught:
        await _checker(ApiKey()).accept(FakeWebSocket(subprotocols=["acme.key.hush"]), None)
    assert "hush" not in f"{caught.value} {caught.value!r}"


async def test_longest_claimed_prefix_counts() -> None:
    authenticator = ApiKey()
    authenticator.secret_subprotocols = ["acme.", "acme.key."]
    socket = FakeWebSocket(subprotocols=["dws.v1.json", "acme.key.one", "acme.two"])
    await _checker(authenticator).accept(socket, None)
    assert authenticator.seen[0].secrets == {"acme.key.": "one", "acme.": "two"}


@pytest.mark.parametrize("claimed", [("",), ("dws.v1.",), ("d",), ("dws.bearer.",), ("a b",), (5,), "acme.key.", 5])
def test_wrong_prefix_fails_at_construction(claimed: Any) -> None:
    authenticator = ApiKey()
    authenticator.secret_subprotocols = claimed
    if claimed == "acme.key.":  # one text instead of a tuple is understood
        _checker(authenticator)
        return
    with pytest.raises(
        ConfigurationError, match=r"ApiKey claims the subprotocol prefix .* Fix: choose a prefix such as"
    ):
        _checker(authenticator)
