"""The hooks, by which a plugin offers features to dws. These are only specifications, without code.

A plugin is a module named in the entry-point group `dws_core`. It implements any of these four functions, marked with
`dws_core.plugin.hookimpl`. All four follow the same rules:

- They are called once for each process, at the first lookup of any plugin, on the thread of that lookup. The order of
  plugins is not defined.
- They must not block, connect, or import a client library. `load` of the record does that, when it is needed.
- They return an iterable of records, as a list or by `yield`. An invalid record is not used. The others are.
- If a function raises an exception, the records that it has returned before are used. The exception is shown when a
  similar name is requested.
- If two plugins offer the same scheme or name, `PluginConflict` is raised at the look-up of this name. It names both.
- The plugin may state the version of the plugin API that it needs, as an integer `dws_api` next to its functions. See
  `dws_core.plugin.API_VERSION`.
"""

from __future__ import annotations

from collections.abc import Iterable

from dws_core._plugins.markers import hookspec
from dws_core._plugins.specs import AuthenticatorSpec, BrokerSpec, CodecSpec, TopicMatcherSpec


@hookspec
def dws_register_brokers() -> Iterable[BrokerSpec]:
    """Offer message brokers, which applications choose by URL scheme.

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
    """Offer message codecs, which clients choose by name. `dws.v1.<name>` becomes a WebSocket subprotocol.

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
    """Offer languages of topics and filters, which applications choose by name. Each node has one index of its matcher.

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
    """Offer authenticators, which applications choose by name. They return the `Principal` of a handshake.

    `load` returns a factory. It is called with the keyword argument `verify`: the application's `verify_token`, or
    None. `verify_token` of the record states whether the authenticator needs it.

    The example also shows options, which codecs and topic matchers may have in the same way. An application writes
    `authenticator="acme-sso?realm=staff"`.

    Example:
        ```python
        from dataclasses import dataclass

        from dws_core.plugin import AuthenticatorSpec, hookimpl


        @dataclass(frozen=True)
        class Options:
            realm: str = "all"


        def _load(options):
            from acme_dws._sso import AcmeSSO  # imports the client library

            return lambda: AcmeSSO(options.realm)


        @hookimpl
        def dws_register_authenticators():
            yield AuthenticatorSpec(
                name="acme-sso", load=_load, summary="Acme SSO.", verify_token="unused", options=Options
            )
        ```
    """
    return ()
