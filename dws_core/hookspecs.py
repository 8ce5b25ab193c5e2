"""The hooks: what a plugin may offer to dws. Written to be read; nothing here does anything.

A plugin is a module named in the entry-point group `dws_core`. It implements any of these four functions, marked with
`dws_core.plugin.hookimpl`. All four have the same manners:

- Called once for each process, at the first look-up of any plugin, in no particular order among plugins, on whatever
  thread that is. They must not block, connect, or import a client library: `load` does that, when it is needed.
- They return zero or more records. A record that is not valid disables the plugin.
- An exception disables the plugin; it is kept and shown when something of this plugin is asked for.
- Two plugins that offer the same scheme or name are a `PluginConflict`, which names both.
"""

from __future__ import annotations

from collections.abc import Iterable

from dws_core._plugins.markers import hookspec
from dws_core._plugins.specs import AuthenticatorSpec, BrokerSpec, CodecSpec, TopicMatcherSpec


@hookspec
def dws_register_brokers() -> Iterable[BrokerSpec]:
    """Offer message brokers, chosen by URL scheme.

    Example:
        ```python
        from dws_core.plugin import BrokerCapabilities, BrokerSpec, hookimpl


        def _load():
            from acme_dws._broker import AcmeBroker  # imports the client library

            return AcmeBroker


        @hookimpl
        def dws_register_brokers():
            capabilities = BrokerCapabilities(cross_process=True)
            yield BrokerSpec(schemes=("acme",), load=_load, capabilities=capabilities, summary="Acme messaging.")
        ```
    """
    return ()


@hookspec
def dws_register_codecs() -> Iterable[CodecSpec]:
    """Offer message codecs, chosen by name; `dws.v1.<name>` becomes a WebSocket subprotocol.

    The codec's `encode` and `decode` must be pure and thread-safe.

    Example:
        ```python
        from dws_core.plugin import CodecSpec, hookimpl


        @hookimpl
        def dws_register_codecs():
            yield CodecSpec(name="cbor", load=_load, content_type="application/cbor", summary="CBOR, RFC 8949.")
        ```
    """
    return ()


@hookspec
def dws_register_topic_matchers() -> Iterable[TopicMatcherSpec]:
    """Offer languages of topics and filters, chosen by name. The matcher makes one index for each node.

    Example:
        ```python
        from dws_core.plugin import TopicMatcherSpec, hookimpl


        @hookimpl
        def dws_register_topic_matchers():
            yield TopicMatcherSpec(name="glob", load=_load, summary="Shell globs.", spec_url="POSIX.1-2017 2.13")
        ```
    """
    return ()


@hookspec
def dws_register_authenticators() -> Iterable[AuthenticatorSpec]:
    """Offer ways to turn a handshake into a `Principal`, chosen by name.

    What `load` returns is called with the keyword `verify`: the application's `verify_token`, or None.

    Example:
        ```python
        from dws_core.plugin import AuthenticatorSpec, hookimpl


        @hookimpl
        def dws_register_authenticators():
            yield AuthenticatorSpec(name="acme-sso", load=_load, summary="Session tokens of Acme SSO.")
        ```
    """
    return ()
