"""The exceptions of dws.

```
DWSError(Exception)
├── ConfigurationError(DWSError, ValueError)     for the developer, at start-up
│   ├── InvalidBrokerURL
│   ├── PluginNotFound(…, LookupError)
│   ├── PluginConflict
│   └── PluginLoadError                          __cause__ is the plugin's own exception
├── InvalidTopic(DWSError, ValueError)           for the caller: .text .position .reason
│   └── InvalidFilter
├── BrokerError                                  for operations
│   ├── BrokerUnavailable                        certainly not stored: .retry_after_s
│   ├── BrokerOverloaded                         the publish queue is full, or the broker raised an alarm
│   ├── BrokerClosed                             used before start or after stop
│   ├── BrokerMisconfigured                      the server's settings break a guarantee
│   │   └── LayoutMismatch                       partitions differ from those that the channel has stored
│   ├── PublishOutcomeUnknown                    may be stored: .topic
│   └── PayloadTooLarge                          .size_bytes .limit_bytes
├── NoReply(…, TimeoutError)                     to a request to a client: .target .timeout_s
├── CodecError                                   never contains the payload: .codec .path
└── WebSocketException                           concerns one client: .message .connection
    ├── InvalidSubscription · InvalidSubscriptionMessage
    ├── InvalidMessage
    ├── AuthenticationFailed                     .close_code = 1008
    │   └── OriginNotAllowed                     .origin
    └── ConnectionClosed                         .code .reason
```

Starlette and FastAPI handle `InvalidSubscription`, `InvalidSubscriptionMessage`, `InvalidMessage` and
`AuthenticationFailed` like their own `WebSocketException`, with `close_code` and the message as the reason.

Every message names what happened and where, and ends with `Fix: …` and the slug in brackets. The section with the name
of the slug in `docs/reference/errors.md` has cause, example and remedy.
"""

from __future__ import annotations

from typing import Any, ClassVar

from starlette.exceptions import WebSocketException as _StarletteException

from dws_core._reason import shorten_reason


class DWSError(Exception):
    """Base of every error that dws raises.

    Args:
        message: One or two sentences that name the failure, the place, and the reason if known.
        fix: Remedy in the imperative, without the word `Fix`. May be empty.

    Attributes:
        slug: Short name of the error, and of its section in `docs/reference/errors.md`.
        message: The text without the fix and the slug.
        fix: The remedy, or an empty text.
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
    """The application is configured in a way that cannot work. Raised at start-up, not only at the first message."""

    slug = "configuration"


class InvalidBrokerURL(ConfigurationError):
    """The broker URL, or an option in it, is malformed or unknown."""

    slug = "invalid-broker-url"


class PluginNotFound(ConfigurationError, LookupError):
    """No installed plugin offers the requested scheme or name."""

    slug = "plugin-not-found"


class PluginConflict(ConfigurationError):
    """Two installed plugins offer the same scheme or name."""

    slug = "plugin-conflict"


class PluginLoadError(ConfigurationError):
    """A plugin is installed but could not be loaded. `__cause__` is the plugin's own exception."""

    slug = "plugin-load"


class InvalidTopic(DWSError, ValueError):
    """A topic breaks a rule of MQTT 5.0 §4.7 or a limit.

    Attributes:
        text: The invalid topic.
        position: Index of the first character that breaks the rule.
        reason: Short description of the broken rule.
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
    """The broker, or the connection to it, has failed."""

    slug = "broker"


class BrokerUnavailable(BrokerError):
    """The broker cannot be reached. A message that was being published is certainly not stored.

    Attributes:
        retry_after_s: Time to wait before a retry, in seconds. None if unknown.
    """

    slug = "broker-unavailable"

    def __init__(self, message: str, *, fix: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, fix=fix)
        self.retry_after_s = retry_after_s


class BrokerOverloaded(BrokerError):
    """The publish queue is full, or the broker refuses publishes. The message is not stored. Try again later."""

    slug = "broker-overloaded"


class BrokerClosed(BrokerError):
    """The broker object was used before it was started or after it was stopped."""

    slug = "broker-closed"


class BrokerMisconfigured(BrokerError):
    """The broker's own settings break a guarantee of the plugin."""

    slug = "broker-misconfigured"


class LayoutMismatch(BrokerMisconfigured):
    """The number of partitions differs from that of the channel's other nodes."""

    slug = "layout-mismatch"


class PublishOutcomeUnknown(BrokerError):
    """The broker did not reply in time, so the message may be stored. Repeat it only with the same key.

    Attributes:
        topic: Topic of the message.
    """

    slug = "publish-outcome-unknown"

    def __init__(self, topic: str, *, fix: str = "repeat it with the same key, or read the topic's history") -> None:
        super().__init__(f"publish to {topic!r} had no reply in time. The message may be stored.", fix=fix)
        self.topic = topic


class PayloadTooLarge(BrokerError):
    """A payload is larger than the broker's limit.

    Attributes:
        size_bytes: Size of the payload, in bytes.
        limit_bytes: Maximum payload size, in bytes.
    """

    slug = "payload-too-large"

    def __init__(self, size_bytes: int, limit_bytes: int, *, where: str = "broker") -> None:
        super().__init__(
            f"payload of {size_bytes} bytes is over the {where}'s limit of {limit_bytes} bytes.",
            fix="send smaller messages, or increase the limit if the broker allows it",
        )
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class NoReply(DWSError, TimeoutError):
    """No client has replied to a request in time.

    Attributes:
        target: Receivers of the request, in words.
        timeout_s: Time for which the node has waited, in seconds.
    """

    slug = "no-reply"

    def __init__(self, target: str, timeout_s: float) -> None:
        super().__init__(
            f"no reply from {target} within {timeout_s:g} s: it is not connected, or its client does not answer requests.",
            fix="check that the client is connected and answers messages of the type request, or increase timeout_s",
        )
        self.target = target
        self.timeout_s = timeout_s


class CodecError(DWSError):
    """Bytes cannot be decoded, or a value cannot be encoded. The message never contains the payload.

    Attributes:
        codec: Name of the codec.
        path: Path of the value that cannot be encoded, such as `data.items[3].price`. It contains keys of objects. None if
            unknown.
    """

    slug = "codec"

    def __init__(self, codec: str, message: str, *, fix: str = "", path: str | None = None) -> None:
        super().__init__(f"codec {codec!r}: {message}", fix=fix)
        self.codec = codec
        self.path = path


class WebSocketException(DWSError):
    """An error that concerns one client. Derive your own errors from it if a handler needs the connection.

    Attributes:
        message: The text without the fix and the slug.
        connection: The client's `Connection`, or None if there is none yet.
    """

    slug = "websocket"

    def __init__(self, message: str, *, connection: Any = None, fix: str = "") -> None:
        super().__init__(message, fix=fix)
        self.connection = connection


class StarletteRefusal(_StarletteException):
    """Lets Starlette refuse the client if nobody catches the error: HTTP 403 before accept, `close_code` after it."""

    close_code: ClassVar[int] = 1008  # CloseCode.POLICY_VIOLATION, which this layer must not import

    def __init__(self, message: str) -> None:
        super().__init__(self.close_code, shorten_reason(message))


class InvalidSubscription(WebSocketException, StarletteRefusal):
    """A subscription's filter breaks a rule."""

    slug = "invalid-subscription"


class InvalidSubscriptionMessage(WebSocketException, StarletteRefusal):
    """A message is not a subscription message: it has the wrong type, or no filter."""

    slug = "invalid-subscription-message"


class InvalidMessage(WebSocketException, StarletteRefusal):
    """A client's message is malformed, or a key or connection id is invalid."""

    slug = "invalid-message"


class AuthenticationFailed(WebSocketException, StarletteRefusal):
    """The client is not authenticated.

    An application may raise it in a dependency, in an endpoint and in the block of `connect`. Before accept, the client
    is refused with HTTP 403, or with 401 if an authenticator raises it. After accept, the connection is closed with 1008.
    The client may see the message as the reason, so never put a secret into it.
    """

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
    """The connection is closed or lost.

    Attributes:
        code: Close code (RFC 6455 §7.4). 1006 if there was no close frame.
        reason: Reason of the close frame. May be empty.
    """

    slug = "connection-closed"

    def __init__(self, code: int, reason: str = "", *, connection: Any = None, fix: str = "") -> None:
        why = f": {reason}" if reason else ""
        no_frame = code == 1006 and reason  # no close frame has this code, so the reason is the whole message
        text = f"{reason}." if no_frame else f"connection is closed with code {code}{why}."
        super().__init__(text, connection=connection, fix=fix)
        self.code = code
        self.reason = reason
