"""The path from a handshake to an accepted socket."""

from __future__ import annotations

import base64
import time

import pytest

from dws_core import AuthenticationFailed, ConfigurationError, Handshake, InvalidMessage, OriginNotAllowed, Principal
from dws_core._node.connection.handshake import HandshakeChecker
from dws_core._wire.codecs import JSONCodec, MsgpackCodec
from dws_core.testing import FakeWebSocket

JSON, MSGPACK = JSONCodec(), MsgpackCodec()
BEARER = "dws.bearer." + base64.urlsafe_b64encode(b"ann").decode().rstrip("=")


class ByToken:
    """Authenticates every client that has a token."""

    def __init__(self) -> None:
        self.asked = 0

    async def authenticate(self, handshake: Handshake) -> Principal | None:
        self.asked += 1
        if handshake.token is None:
            raise AuthenticationFailed("no token", fix="send one")
        return Principal(id=handshake.token)


def _handshakes(authenticator: ByToken | None = None, *, allowed: tuple[str, ...] = ()) -> HandshakeChecker:
    return HandshakeChecker({"json": JSON, "msgpack": MSGPACK}, JSON, authenticator, allowed)


async def test_missing_subprotocol_selects_default_codec() -> None:
    socket = FakeWebSocket()
    assert await _handshakes().accept(socket, None) == (JSON, None)
    assert socket.accepted
    assert socket.subprotocol is None


async def test_first_known_subprotocol_is_chosen() -> None:
    socket = FakeWebSocket(subprotocols=["other", "dws.v1.msgpack", "dws.v1.json"])
    assert (await _handshakes().accept(socket, None))[0] is MSGPACK
    assert socket.subprotocol == "dws.v1.msgpack"


@pytest.mark.parametrize(
    ("offered", "text"),
    [
        (["mqtt", "dws.v2.json"], "none of the offered subprotocols is known; supported: dws.v1.json, dws.v1.msgpack"),
        ([BEARER], "needs a codec subprotocol next to it; supported: dws.v1.json, dws.v1.msgpack"),
    ],
)
async def test_unknown_subprotocols_are_rejected(offered: list[str], text: str) -> None:
    """The error lists the supported ones."""
    socket = FakeWebSocket(subprotocols=offered)
    with pytest.raises(InvalidMessage, match=text):
        await _handshakes(ByToken()).accept(socket, None)
    assert not socket.accepted


async def test_foreign_origin_is_rejected_before_authentication() -> None:
    authenticator = ByToken()
    socket = FakeWebSocket(headers={"Origin": "https://evil.example"})
    with pytest.raises(OriginNotAllowed) as caught:
        await _handshakes(authenticator).accept(socket, None)
    assert caught.value.origin == "https://evil.example"
    assert authenticator.asked == 0
    assert not socket.accepted
    friendly = FakeWebSocket(headers={"Origin": "https://friend.example"})
    await _handshakes(allowed=("https://friend.example",)).accept(friendly, None)
    assert friendly.accepted


async def test_authenticator_runs_before_accept() -> None:
    socket = FakeWebSocket(subprotocols=["dws.v1.json", BEARER])
    assert await _handshakes(ByToken()).accept(socket, None) == (JSON, Principal(id="ann"))
    assert socket.subprotocol == "dws.v1.json", "the token is not sent back"
    stranger = FakeWebSocket()
    with pytest.raises(AuthenticationFailed, match="no token") as caught:
        await _handshakes(ByToken()).accept(stranger, None)
    assert caught.value.fix == "send one"
    assert not stranger.accepted


async def test_given_principal_skips_authenticator() -> None:
    authenticator, bo = ByToken(), Principal(id="bo")
    assert await _handshakes(authenticator).accept(FakeWebSocket(), bo) == (JSON, bo)
    assert authenticator.asked == 0


async def test_accepted_socket_is_only_checked() -> None:
    async def accepted(**kwargs: object) -> FakeWebSocket:
        socket = FakeWebSocket(subprotocols=["dws.v1.msgpack"], **kwargs)  # type: ignore[arg-type]  # its own arguments
        await socket.accept()
        return socket

    socket = await accepted(headers={"Authorization": "Bearer ann"})
    assert await _handshakes(ByToken()).accept(socket, None) == (JSON, Principal(id="ann"))
    assert [message["type"] for message in socket.sent] == ["websocket.accept"], "once, by the application"
    assert await _handshakes(ByToken()).accept(await accepted(), Principal(id="bo")) == (JSON, Principal(id="bo"))
    with pytest.raises(AuthenticationFailed):
        await _handshakes(ByToken()).accept(await accepted(), None)
    with pytest.raises(OriginNotAllowed):
        await _handshakes().accept(await accepted(headers={"Origin": "https://evil.example"}), None)


@pytest.mark.parametrize("accepted", [False, True], ids=["before accept", "after accept"])
@pytest.mark.parametrize("given", [False, True], ids=["by authenticator", "by application"])
async def test_expired_principal_is_refused(given: bool, accepted: bool) -> None:
    expired = Principal(id="ann", expires_at=time.time() - 1.0)

    class Expired:
        async def authenticate(self, handshake: Handshake) -> Principal:
            return expired

    socket = FakeWebSocket()
    if accepted:
        await socket.accept()
    checker = HandshakeChecker({"json": JSON}, JSON, None if given else Expired(), ())
    with pytest.raises(AuthenticationFailed, match="have expired"):
        await checker.accept(socket, expired if given else None)


async def test_principal_that_expires_later_is_accepted() -> None:
    principal = Principal(id="ann", expires_at=time.time() + 60.0)
    assert (await _handshakes().accept(FakeWebSocket(), principal))[1] is principal


def test_origins_as_one_string_are_rejected() -> None:
    with pytest.raises(ConfigurationError, match=r"write allowed_origins=\['https://a.example'\]"):
        HandshakeChecker({"json": JSON}, JSON, None, "https://a.example")
