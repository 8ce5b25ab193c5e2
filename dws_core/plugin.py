"""The public API for plugin authors. Plugins import only from this module."""

from __future__ import annotations

from dws_core._auth.interface import (
    Authenticator,
    AuthenticatorFactory,
    Handshake,
    Principal,
    TokenAuthenticator,
    TokenVerifier,
)
from dws_core._errors import (
    AuthenticationFailed,
    BrokerClosed,
    BrokerError,
    BrokerMisconfigured,
    BrokerOverloaded,
    BrokerUnavailable,
    CodecError,
    ConfigurationError,
    InvalidBrokerURL,
    InvalidFilter,
    InvalidTopic,
    LayoutMismatch,
    PayloadTooLarge,
    PublishOutcomeUnknown,
)
from dws_core._log.backoff import Backoff
from dws_core._log.coalescer import Coalescer
from dws_core._log.contract import LogBroker, LogCapabilities, TailSink
from dws_core._log.partition import partition_of
from dws_core._log.plain import BrokerCapabilities, BrokerInterface, Delivery
from dws_core._log.records import (
    BrokerState,
    GapReason,
    Head,
    History,
    Layout,
    Offset,
    ReadResult,
    ReadSpan,
    Receipt,
    Record,
    TopicMatch,
    WantedTopics,
)
from dws_core._log.seqfilter import SeqFilter
from dws_core._log.stream.io.broker import StreamLogBroker
from dws_core._log.stream.settings import StreamSettings
from dws_core._log.stream.wire import (
    Start,
    StreamBounds,
    StreamWire,
    WireBlocked,
    WireError,
    WireInfo,
    WireLost,
    WireOutOfRange,
    WireRefused,
    WireUnusable,
)
from dws_core._log.tail import Advance, Lost, TailEvent, TailState
from dws_core._log.watchdog import Watchdog
from dws_core._plugins.markers import API_VERSION, hookimpl
from dws_core._plugins.registry import PluginRegistry
from dws_core._plugins.specs import AuthenticatorSpec, BrokerSpec, CodecSpec, TopicMatcherSpec
from dws_core._topics.interface import TopicIndex, TopicMatcher
from dws_core._url import BrokerURL
from dws_core._wire.codecs import Codec
from dws_core._wire.message import JSON, Message

__all__ = [
    "API_VERSION",
    "Advance",
    "AuthenticationFailed",
    "Authenticator",
    "AuthenticatorFactory",
    "AuthenticatorSpec",
    "Backoff",
    "BrokerCapabilities",
    "BrokerClosed",
    "BrokerError",
    "BrokerInterface",
    "BrokerMisconfigured",
    "BrokerOverloaded",
    "BrokerSpec",
    "BrokerState",
    "BrokerURL",
    "BrokerUnavailable",
    "Coalescer",
    "Codec",
    "CodecError",
    "CodecSpec",
    "ConfigurationError",
    "Delivery",
    "GapReason",
    "Handshake",
    "Head",
    "History",
    "InvalidBrokerURL",
    "InvalidFilter",
    "InvalidTopic",
    "JSON",
    "Layout",
    "LayoutMismatch",
    "LogBroker",
    "LogCapabilities",
    "Lost",
    "Message",
    "Offset",
    "PayloadTooLarge",
    "PluginRegistry",
    "Principal",
    "PublishOutcomeUnknown",
    "ReadResult",
    "ReadSpan",
    "Receipt",
    "Record",
    "SeqFilter",
    "Start",
    "StreamBounds",
    "StreamLogBroker",
    "StreamSettings",
    "StreamWire",
    "TailEvent",
    "TailSink",
    "TailState",
    "TokenAuthenticator",
    "TokenVerifier",
    "TopicIndex",
    "TopicMatch",
    "TopicMatcher",
    "TopicMatcherSpec",
    "WantedTopics",
    "Watchdog",
    "WireBlocked",
    "WireError",
    "WireInfo",
    "WireLost",
    "WireOutOfRange",
    "WireRefused",
    "WireUnusable",
    "hookimpl",
    "partition_of",
]
