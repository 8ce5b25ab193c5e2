"""The records that the core itself offers, through the same hooks as any plugin."""

from __future__ import annotations

from collections.abc import Iterable

from dws_core._auth.interface import AuthenticatorFactory
from dws_core._plugins.markers import hookimpl
from dws_core._plugins.specs import AuthenticatorSpec, CodecSpec, TopicMatcherSpec
from dws_core._topics.interface import TopicMatcher
from dws_core._topics.trie import MqttMatcher
from dws_core._wire.codecs import JSONCodec, MsgpackCodec


@hookimpl
def dws_register_codecs() -> Iterable[CodecSpec]:
    """Offer `json` and `msgpack`."""
    yield CodecSpec(name="json", load=JSONCodec, content_type="application/json", summary="JSON in text frames.")
    yield CodecSpec(
        name="msgpack", load=MsgpackCodec, content_type="application/msgpack", summary="MessagePack in binary frames."
    )


@hookimpl
def dws_register_topic_matchers() -> Iterable[TopicMatcherSpec]:
    """Offer `mqtt`."""
    yield TopicMatcherSpec(
        name="mqtt", load=_load_mqtt, summary="Levels with + and #.", spec_url="MQTT 5.0 section 4.7"
    )


@hookimpl
def dws_register_authenticators() -> Iterable[AuthenticatorSpec]:
    """Offer `oauth2-bearer`."""
    yield AuthenticatorSpec(
        name="oauth2-bearer",
        load=_load_bearer,
        summary="Bearer tokens (RFC 6750), verified by the application.",
        verify_token="required",  # noqa: S106 -- not a secret
    )


def _load_mqtt() -> TopicMatcher:
    return MqttMatcher()


def _load_bearer() -> AuthenticatorFactory:
    from dws_core._auth.bearer import BearerAuthenticator  # noqa: PLC0415 -- imports FastAPI, which plugins do not need

    return BearerAuthenticator
