"""The exceptions of dws.

```
DWSError(Exception)
├── ConfigurationError(DWSError, ValueError)     who can act: the developer, at start-up
│   ├── InvalidBrokerURL
│   ├── PluginNotFound(…, LookupError)
│   ├── PluginConflict
│   └── PluginLoadError                          __cause__ is the plugin's own exception
├── InvalidTopic(DWSError, ValueError)           who: the caller; .text .position .reason
│   └── InvalidFilter
├── BrokerError                                  who: operations
│   ├── BrokerUnavailable                        certainly not stored; .retry_after_s
│   ├── BrokerOverloaded                         the publish queue is full, or the broker raised an alarm
│   ├── BrokerClosed                             used before start or after stop
│   ├── BrokerMisconfigured                      the server's settings break a promise
│   │   └── LayoutMismatch                       partitions differ from what the cluster stored
│   ├── PublishOutcomeUnknown                    perhaps stored; .topic
│   └── PayloadTooLarge                          .size_bytes .limit_bytes
├── CodecError                                   .codec; never echoes the payload
└── WebSocketException                           who: one client; .message .connection
    ├── InvalidSubscription · InvalidSubscriptionMessage
    ├── InvalidMessage
    ├── AuthenticationFailed                     .close_code = 1008
    │   └── OriginNotAllowed                     .origin
    └── ConnectionClosed                         .code .reason
```

Every message says what happened and where, ends with `Fix: …`, then the slug in brackets: a section of that name in
`docs/reference/errors.md` has cause, example and remedy.
"""

from __future__ import annotations

from typing import Any, ClassVar


class DWSError(Exception):
    """Base of every error that dws raises.

    Args:
        message: What happened, where, and why if known. One or two sentences.
        fix: What to do about it, in the imperative, without the word `Fix`. Empty: nobody can say.
    """

    slug: ClassVar[str] = "error"

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        fix = f" Fix: {self.fix}" if self.fix else ""
        return f"{self.message}{fix} [dws:{self.slug}]"


class ConfigurationError(DWSError, ValueError):
    """The application is set up in a way that cannot work; raised at start-up, never at the first message."""

    slug = "configuration"


class InvalidBrokerURL(ConfigurationError):
    """The broker URL, or an option in it, cannot be understood."""

    slug = "invalid-broker-url"


class PluginNotFound(ConfigurationError, LookupError):
    """No installed plugin offers the scheme or name that was asked for."""

    slug = "plugin-not-found"


class PluginConflict(ConfigurationError):
    """Two installed plugins offer the same scheme or name."""

    slug = "plugin-conflict"


class PluginLoadError(ConfigurationError):
    """A plugin is installed but could not be loaded; `__cause__` is its own exception."""

    slug = "plugin-load"


class InvalidTopic(DWSError, ValueError):
    """A topic breaks a rule of MQTT 5.0 §4.7 or a limit.

    Attributes:
        text: The topic as given.
        position: Index of the first offending character; the length limit where the text is too long.
        reason: The broken rule, in a few words.
    """

    slug = "invalid-topic"
    _noun: ClassVar[str] = "topic"

    def __init__(self, text: str, *, position: int, reason: str, fix: str = "") -> None:
        shown = text if len(text) <= 80 else text[:77] + "..."
        super().__init__(f"{self._noun} {shown!r} is invalid at position {position}: {reason}.", fix=fix)
        self.text = text
        self.position = position
        self.reason = reason


class InvalidFilter(InvalidTopic):
    """A topic filter breaks a rule of MQTT 5.0 §4.7.1 or a limit."""

    slug = "invalid-filter"
    _noun = "filter"


class BrokerError(DWSError):
    """Something is wrong with the broker or the way to it."""

    slug = "broker"


class BrokerUnavailable(BrokerError):
    """The broker cannot be reached. What was to be published is certainly not stored.

    Attributes:
        retry_after_s: When trying again makes sense, in seconds; None: not known.
    """

    slug = "broker-unavailable"

    def __init__(self, message: str, *, fix: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, fix=fix)
        self.retry_after_s = retry_after_s


class BrokerOverloaded(BrokerError):
    """The publish queue is full, or the broker refuses publishes. Not stored; try again later."""

    slug = "broker-overloaded"


class BrokerClosed(BrokerError):
    """The broker object was used before it was started or after it was stopped."""

    slug = "broker-closed"


class BrokerMisconfigured(BrokerError):
    """The broker's own settings break a promise of the plugin."""

    slug = "broker-misconfigured"


class LayoutMismatch(BrokerMisconfigured):
    """The number of partitions differs from what the other nodes of the channel use."""

    slug = "layout-mismatch"


class PublishOutcomeUnknown(BrokerError):
    """The broker did not answer in time: the message may be stored or not. Repeat only with the same key.

    Attributes:
        topic: The topic that was published to.
    """

    slug = "publish-outcome-unknown"

    def __init__(self, topic: str, *, fix: str = "repeat it with the same key, or read the topic's history") -> None:
        super().__init__(f"publish to {topic!r} got no answer in time; it may be stored or not.", fix=fix)
        self.topic = topic


class PayloadTooLarge(BrokerError):
    """A payload is larger than the broker takes.

    Attributes:
        size_bytes: Size of the payload.
        limit_bytes: Largest size that the broker takes.
    """

    slug = "payload-too-large"

    def __init__(self, size_bytes: int, limit_bytes: int, *, where: str = "broker") -> None:
        super().__init__(
            f"payload of {size_bytes} bytes is over the {where}'s limit of {limit_bytes} bytes.",
            fix="send less at once, or raise the limit where the broker allows it",
        )
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class CodecError(DWSError):
    """Bytes cannot be decoded, or a value cannot be encoded. The text never repeats the payload.

    Attributes:
        codec: Name of the codec.
    """

    slug = "codec"

    def __init__(self, codec: str, message: str, *, fix: str = "") -> None:
        super().__init__(f"codec {codec!r}: {message}", fix=fix)
        self.codec = codec


class WebSocketException(DWSError):
    """Something went wrong with one client. Derive your own errors from it to reach the connection in a handler.

    Attributes:
        message: What happened.
        connection: The `Connection` it happened on, or None where there is none yet.
    """

    slug = "websocket"

    def __init__(self, message: str, *, connection: Any = None, fix: str = "") -> None:
        super().__init__(message, fix=fix)
        self.connection = connection


class InvalidSubscription(WebSocketException):
    """A subscription's filter breaks a rule."""

    slug = "invalid-subscription"


class InvalidSubscriptionMessage(WebSocketException):
    """A message is not a subscription message: wrong type, or no usable filter in it."""

    slug = "invalid-subscription-message"


class InvalidMessage(WebSocketException):
    """A client's message is malformed, or a key or connection id cannot be used."""

    slug = "invalid-message"


class AuthenticationFailed(WebSocketException):
    """The client did not prove who it is. The handshake is refused, or the socket closed with 1008."""

    slug = "authentication-failed"
    close_code: ClassVar[int] = 1008


class OriginNotAllowed(AuthenticationFailed):
    """A browser page of another origin tried to connect.

    Attributes:
        origin: The `Origin` header (RFC 6454 §7).
    """

    slug = "origin-not-allowed"

    def __init__(self, origin: str, *, host: str, connection: Any = None) -> None:
        super().__init__(
            f"origin {origin!r} is not allowed to open a WebSocket at host {host!r}.",
            connection=connection,
            fix="add the origin to WebSocketManager(allowed_origins=[...])",
        )
        self.origin = origin


class ConnectionClosed(WebSocketException):
    """The client is gone, or the connection was closed.

    Attributes:
        code: Close code (RFC 6455 §7.4); 1006 where no close frame came.
        reason: Reason text of the close frame; may be empty.
    """

    slug = "connection-closed"

    def __init__(self, code: int, reason: str = "", *, connection: Any = None) -> None:
        why = f": {reason}" if reason else ""
        super().__init__(f"connection is closed with code {code}{why}.", connection=connection)
        self.code = code
        self.reason = reason
