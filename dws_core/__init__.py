"""dws: distributed WebSocket for FastAPI.

This module is the public API for applications. Plugin authors import from `dws_core.plugin`, and tests from
`dws_core.testing`.
"""

from __future__ import annotations

from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from dws_core._auth.bearer import BearerAuthenticator, WebSocketOAuth2PasswordBearer
from dws_core._auth.interface import Handshake, Principal
from dws_core._auth.jwt import JWTAuthenticator
from dws_core._auth.permissions import Permissions
from dws_core._compat import DEPRECATED as _DEPRECATED
from dws_core._compat import LAZY as _LAZY
from dws_core._compat import create_broker
from dws_core._compat import load_deprecated as _load_deprecated
from dws_core._compat import load_lazy as _load_lazy
from dws_core._decorators import ahandle, handle
from dws_core._errors import (
    AuthenticationFailed,
    BrokerClosed,
    BrokerError,
    BrokerMisconfigured,
    BrokerOverloaded,
    BrokerUnavailable,
    CodecError,
    ConfigurationError,
    ConnectionClosed,
    DWSError,
    InvalidBrokerURL,
    InvalidFilter,
    InvalidMessage,
    InvalidSubscription,
    InvalidSubscriptionMessage,
    InvalidTopic,
    LayoutMismatch,
    NoReply,
    OriginNotAllowed,
    PayloadTooLarge,
    PluginConflict,
    PluginLoadError,
    PluginNotFound,
    PublishOutcomeUnknown,
    WebSocketException,
)
from dws_core._limits.backlog import SlowConsumer
from dws_core._limits.limits import Limits
from dws_core._log.plain import BrokerInterface
from dws_core._log.records import History, Receipt
from dws_core._node.connection.connection import Connection
from dws_core._node.manager import WebSocketManager
from dws_core._node.pending_publish import PendingPublish
from dws_core._node.recovery.history import StoredMessage, StoredMessages
from dws_core._node.stats import NodeHealth, NodeStats
from dws_core._proxy import WebSocketProxy
from dws_core._subscriptions import handle_subscription_message, subscribe, unsubscribe
from dws_core._topics.filters import filter_covers, matches
from dws_core._url import BrokerURL
from dws_core._wire.close_codes import CloseCode
from dws_core._wire.message import Message

# The broker classes of plugins can be imported by name. They are not in `__all__`, because a star import would then
# need every plugin.
if TYPE_CHECKING:
    from dws_core._compat import BrokerT as BrokerT
    from dws_core._compat import is_valid_broker as is_valid_broker
    from dws_core._plugin_brokers import InMemoryBroker as InMemoryBroker
    from dws_core._plugin_brokers import RedisBroker as RedisBroker

    __version__: str

__all__ = [
    "AuthenticationFailed",
    "BearerAuthenticator",
    "BrokerClosed",
    "BrokerError",
    "BrokerInterface",
    "BrokerMisconfigured",
    "BrokerOverloaded",
    "BrokerURL",
    "BrokerUnavailable",
    "CloseCode",
    "CodecError",
    "ConfigurationError",
    "Connection",
    "ConnectionClosed",
    "DWSError",
    "Handshake",
    "History",
    "InvalidBrokerURL",
    "InvalidFilter",
    "InvalidMessage",
    "InvalidSubscription",
    "InvalidSubscriptionMessage",
    "InvalidTopic",
    "JWTAuthenticator",
    "LayoutMismatch",
    "Limits",
    "Message",
    "NoReply",
    "NodeHealth",
    "NodeStats",
    "OriginNotAllowed",
    "PayloadTooLarge",
    "PendingPublish",
    "Permissions",
    "PluginConflict",
    "PluginLoadError",
    "PluginNotFound",
    "Principal",
    "PublishOutcomeUnknown",
    "Receipt",
    "SlowConsumer",
    "StoredMessage",
    "StoredMessages",
    "WebSocketException",
    "WebSocketManager",
    "WebSocketOAuth2PasswordBearer",
    "WebSocketProxy",
    "__version__",
    "ahandle",
    "create_broker",
    "filter_covers",
    "handle",
    "handle_subscription_message",
    "matches",
    "subscribe",
    "unsubscribe",
]


if not TYPE_CHECKING:  # otherwise type checkers would accept every misspelled name

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            return _version("dws-core")
        if name in _LAZY:
            return _load_lazy(name)
        if name in _DEPRECATED:
            return _load_deprecated(name)
        raise AttributeError(f"module 'dws_core' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_LAZY])
