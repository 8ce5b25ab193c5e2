"""The built-in codecs, topic matcher and authenticator pass the same suites as plugins."""

from __future__ import annotations

import time

import pytest

from dws_core import BearerAuthenticator
from dws_core._plugins.registry import default_registry
from dws_core.plugin import Authenticator, Codec, Handshake, Principal, TopicMatcher
from dws_core.testing import AuthenticatorConformance, CodecConformance, MQTTMatcherConformance


class TestJSON(CodecConformance):
    @pytest.fixture
    def codec(self) -> Codec:
        return default_registry().codec("json")


class TestMsgpack(CodecConformance):
    @pytest.fixture
    def codec(self) -> Codec:
        return default_registry().codec("msgpack")


class TestMQTT(MQTTMatcherConformance):
    @pytest.fixture
    def matcher(self) -> TopicMatcher:
        return default_registry().topic_matcher("mqtt")


ENDS = {"alice-token": 4_000_000_000.0, "expired-token": 1.0}


async def verify(token: str) -> Principal | None:
    ends = ENDS.get(token)
    return None if ends is None or ends < time.time() else Principal(id="alice", expires_at=ends)


def showing(token: str) -> Handshake:
    return Handshake(path="/ws", headers={"authorization": f"Bearer {token}"}, token=token)


class TestBearer(AuthenticatorConformance):
    @pytest.fixture
    def authenticator(self) -> Authenticator:
        return BearerAuthenticator(verify=verify)

    @pytest.fixture
    def valid_handshake(self) -> Handshake:
        return showing("alice-token")

    @pytest.fixture
    def expired_handshake(self) -> Handshake:
        return showing("expired-token")

    @pytest.fixture
    def malformed_handshake(self) -> Handshake:
        return showing("%%%nonsense%%%")
