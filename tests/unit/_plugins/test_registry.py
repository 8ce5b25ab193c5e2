"""The plugin registry, with plugins from real entry points."""

from __future__ import annotations

import logging
import sys
import types
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint
from typing import Any, Literal

import pytest
from support.brokers import PlainBroker

from dws_core import BrokerURL, PluginConflict, PluginLoadError, PluginNotFound
from dws_core._plugins import hooks, installing, slow
from dws_core._plugins.registry import PluginRegistry, default_registry
from dws_core._wire.codecs import JSONCodec
from dws_core.plugin import (
    API_VERSION,
    AuthenticatorSpec,
    BrokerCapabilities,
    BrokerSpec,
    CodecSpec,
    ConfigurationError,
    Principal,
    TopicMatcherSpec,
    hookimpl,
)


def _spec(scheme: str, load: Any = lambda: PlainBroker) -> BrokerSpec:
    return BrokerSpec(
        schemes=(scheme,),
        load=load,
        capabilities=BrokerCapabilities(cross_process=True),
        summary=f"The {scheme} broker.",
    )


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a module importable and return its entry point."""

    def make(name: str, **functions: Any) -> EntryPoint:
        module = types.ModuleType(f"acme_{name}")
        for function_name, function in functions.items():
            function.__name__ = function_name
            setattr(module, function_name, hookimpl(function))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return EntryPoint(name=name, value=module.__name__, group="dws_core")

    return make


def _registry(*entry_points: EntryPoint, **kwargs: Any) -> PluginRegistry:
    return PluginRegistry(entry_points=entry_points, **{"disabled": (), "trace": False, **kwargs})


def test_broker_is_found_by_scheme_and_loaded_on_demand(install: Any) -> None:
    loads: list[int] = []

    def load() -> type[PlainBroker]:
        loads.append(1)
        return PlainBroker

    registry = _registry(install("nats", dws_register_brokers=lambda: [_spec("nats", load)]))
    assert registry.broker_spec("nats").summary == "The nats broker."
    assert loads == []
    url = BrokerURL.parse("nats://h")
    assert registry.broker_class(url) is registry.broker_class(url) is PlainBroker
    assert loads == [1]


def test_builtins_are_found_through_entry_point() -> None:
    registry = default_registry()
    assert registry.codec("json").name == "json"
    assert set(registry.codecs()) >= {"json", "msgpack"}
    assert {row.plugin.name for row in registry.rows()} >= {"builtin", "memory"}
    assert default_registry() is registry


def test_misspelled_scheme_suggests_closest_name(install: Any) -> None:
    """The error also lists the installed schemes."""
    registry = _registry(install("redis", dws_register_brokers=lambda: [_spec("redis")]))
    with pytest.raises(PluginNotFound) as caught:
        registry.broker_spec("redsi", where=BrokerURL.parse("redsi://:secret@h"))
    assert str(caught.value) == (
        "'redsi://:***@h': no installed plugin offers scheme 'redsi'. Did you mean 'redis'? Installed: redis (acme_redis)."
        " Fix: correct the scheme, or install the plugin that offers it [dws:plugin-not-found]"
    )


def test_missing_scheme_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing, "origin_of", lambda distribution: {})
    with pytest.raises(PluginNotFound) as caught:
        _registry().broker_spec("amqps")
    assert str(caught.value) == (
        "no installed plugin offers scheme 'amqps'. Installed: none. Fix: pip install dws-amqp [dws:plugin-not-found]"
    )


def test_failed_import_is_reported_and_others_work(install: Any) -> None:
    good = install("good", dws_register_brokers=lambda: [_spec("good")])
    registry = _registry(EntryPoint("bad", "acme_no_such_module", "dws_core"), good)
    assert registry.broker_spec("good")
    with pytest.raises(PluginNotFound, match=r"Failed to load: bad \(ModuleNotFoundError: .*acme_no_such_module"):
        registry.broker_spec("other")
    assert [row.kind for row in registry.rows()] == ["scheme", "failed"]


def test_failing_hook_disables_only_its_plugin(install: Any) -> None:
    def raising() -> list[BrokerSpec]:
        raise RuntimeError("oops")

    registry = _registry(
        install("bad", dws_register_brokers=raising), install("good", dws_register_brokers=lambda: [_spec("good")])
    )
    assert registry.broker_spec("good")
    with pytest.raises(PluginNotFound, match="RuntimeError: oops"):
        registry.broker_spec("bad")


def test_duplicate_scheme_is_conflict_naming_both(install: Any) -> None:
    registry = _registry(
        install("one", dws_register_brokers=lambda: [_spec("x")]),
        install("two", dws_register_brokers=lambda: [_spec("x")]),
    )
    with pytest.raises(PluginConflict, match=r"acme_one and by acme_two.*DWS_DISABLE_PLUGINS=two"):
        registry.broker_spec("x")
    assert [row.kind for row in registry.rows()] == ["scheme", "scheme", "conflict"]


def test_disabled_plugin_is_not_loaded(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    point = install("one", dws_register_brokers=lambda: [_spec("x")])
    monkeypatch.setenv("DWS_DISABLE_PLUGINS", "other, one")
    rows = PluginRegistry(entry_points=[point]).rows()
    assert [(row.plugin.name, row.kind) for row in rows] == [("one", "disabled")]


def test_unknown_hook_suggests_closest_name(install: Any) -> None:
    def no_brokers() -> list[BrokerSpec]:
        return []

    registry = _registry(install("typo", dws_register_broker=no_brokers))
    with pytest.raises(
        PluginNotFound, match=r"unknown hook 'dws_register_broker'\. Did you mean 'dws_register_brokers'"
    ):
        registry.broker_spec("x")


def test_wrong_hook_arguments_are_reported(install: Any) -> None:
    registry = _registry(install("args", dws_register_brokers=lambda config: []))
    with pytest.raises(PluginNotFound, match="does not match the hook specifications"):
        registry.broker_spec("x")


def test_wrong_record_type_is_reported(install: Any) -> None:
    registry = _registry(install("kind", dws_register_codecs=lambda: [_spec("x")]))
    assert "expected CodecSpec" in registry.rows()[0].summary


def test_failing_or_invalid_load_is_load_error(install: Any) -> None:
    def broken() -> Any:
        raise ImportError("no client library")

    registry = _registry(
        install("b", dws_register_brokers=lambda: [_spec("broken", broken), _spec("nonsense", lambda: 5)]),
        install(
            "c",
            dws_register_codecs=lambda: [CodecSpec(name="bad", load=broken, content_type="a/b", summary="Bad.")],
        ),
    )
    with pytest.raises(PluginLoadError, match="no client library") as caught:
        registry.broker_class(BrokerURL.parse("broken://"))
    assert isinstance(caught.value.__cause__, ImportError)
    with pytest.raises(PluginLoadError, match="loaded a value of type int"):
        registry.broker_class(BrokerURL.parse("nonsense://"))
    assert registry.codecs() == {}


def test_hook_calls_are_traced_on_request(install: Any, caplog: pytest.LogCaptureFixture) -> None:
    registry = _registry(install("t", dws_register_brokers=lambda: [_spec("x")]), trace=True)
    with caplog.at_level(logging.INFO, logger="dws"):
        registry.rows()
    assert "dws_register_brokers" in caplog.text


def test_plugin_can_be_added_directly() -> None:
    class Local:
        @hookimpl
        def dws_register_brokers(self) -> list[BrokerSpec]:
            return [_spec("local")]

    registry = _registry()
    assert registry.rows() == []
    registry.add(Local(), name="local")
    assert registry.broker_spec("local")


def test_local_plugin_conflict_names_its_registration(install: Any) -> None:
    class Local:
        @hookimpl
        def dws_register_brokers(self) -> list[BrokerSpec]:
            return [_spec("x")]

    registry = _registry(install("one", dws_register_brokers=lambda: [_spec("x")]))
    registry.add(Local(), name="mine")
    with pytest.raises(PluginConflict, match=r"acme_one.*Fix: remove the plugin that registry.add\(name='mine'\) adds"):
        registry.broker_spec("x")


def test_invalid_local_plugin_is_rejected() -> None:
    with pytest.raises(PluginLoadError, match="offers nothing: its object has no function such as"):
        _registry().add(object(), name="empty")


def test_local_plugin_of_newer_api_is_rejected() -> None:
    class Newer:
        dws_api = API_VERSION + 1

    with pytest.raises(PluginLoadError, match=f"needs version {API_VERSION + 1} of the plugin API"):
        _registry().add(Newer(), name="newer")


def test_endless_hook_is_cut_off(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "MAX_RECORDS", 3)

    def endless() -> Any:
        while True:
            yield _spec("x")

    registry = _registry(install("endless", dws_register_brokers=endless))
    assert "returned more than 3 records" in registry.rows()[-1].summary


def test_slow_hook_is_logged(install: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    clock = [0.0]
    monkeypatch.setattr(slow, "perf_counter", lambda: clock[0])

    def brokers() -> list[BrokerSpec]:
        clock[0] += 2.0
        return [_spec("x")]

    assert _registry(install("late", dws_register_brokers=brokers)).broker_spec("x")
    assert "plugin 'late' of acme_late needed 2.0 s in dws_register_brokers" in caplog.text
    assert "Fix: import the client library in `load`" in caplog.text


def test_exception_that_cannot_be_shown_is_named_by_type(install: Any) -> None:
    class Unspeakable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    def raising() -> list[BrokerSpec]:
        raise Unspeakable

    rows = _registry(install("bad", dws_register_brokers=raising)).rows()
    assert rows[0].summary.startswith("Unspeakable. Fix:")


def test_conflicting_codec_is_left_out_of_all_codecs(install: Any, caplog: pytest.LogCaptureFixture) -> None:
    one = CodecSpec(name="json", load=JSONCodec, content_type="a/b", summary="One.")
    registry = _registry(
        install("one", dws_register_codecs=lambda: [one]), install("two", dws_register_codecs=lambda: [one])
    )
    assert registry.codecs() == {}
    assert "codec 'json' is offered by" in caplog.text


# -- options


@dataclass(frozen=True)
class Options:
    """Options of a codec, a topic matcher or an authenticator."""

    canonical: bool = False
    timeout_s: float = 1.0
    secret: str = ""
    level: Literal["low", "high"] = "low"

    def __post_init__(self) -> None:
        if self.timeout_s == 0:
            raise ValueError("timeout_s must not be 0")


class Acme(JSONCodec):
    """A codec with options."""

    name = "acme"

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options = options


@pytest.fixture
def with_options(install: Any) -> PluginRegistry:
    spec = CodecSpec(name="acme", load=Acme, content_type="a/b", summary="Acme.", options=Options)
    plain = CodecSpec(name="json", load=JSONCodec, content_type="a/b", summary="JSON.")
    return _registry(install("acme", dws_register_codecs=lambda: [spec, plain]))


def test_options_in_name_are_converted(with_options: PluginRegistry) -> None:
    codec: Any = with_options.codec("acme?canonical=yes&timeout_s=250ms&level=high")
    assert codec.options == Options(canonical=True, timeout_s=0.25, level="high")
    plain: Any = with_options.codec("acme")
    assert plain.options == Options()
    assert with_options.codec("acme?canonical=yes&timeout_s=250ms&level=high") is codec
    assert with_options.codecs()["acme"] is plain


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "acme?canonicl=yes",
            "codec 'acme?canonicl=yes' of acme_acme has an unknown option 'canonicl'. Fix: use one of the valid options: "
            "canonical (true or false), timeout_s (a duration such as 500ms, 10s or 2m), secret (a text), "
            "level (one of low, high)",
        ),
        (
            "acme?canonical=perhaps",
            "option 'canonical' of codec 'acme?canonical=perhaps' of acme_acme cannot be 'perhaps'",
        ),
        ("acme?secret=hush&level=1", "option 'level' of codec 'acme?secret=***&level=1' of acme_acme cannot be '1'"),
        (
            "acme?timeout_s=0",
            "the options of codec 'acme?timeout_s=0' of acme_acme are refused: timeout_s must not be 0",
        ),
        ("acme?canonical", "the options of codec 'acme' are malformed. Fix: write them as ?name=value&name=value"),
        ("acme?level=low&level=high", "an option of codec 'acme' is given twice. Fix: give each option once"),
        ("json?indent=2", "codec 'json' of acme_acme has no options, but 'indent' is given. Fix: write 'json'"),
    ],
)
def test_wrong_option_is_refused(with_options: PluginRegistry, name: str, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        with_options.codec(name)
    assert str(caught.value).startswith(text)
    assert "hush" not in str(caught.value)


def test_topic_matcher_and_authenticator_receive_options(install: Any) -> None:
    class Matcher:
        def __init__(self, options: Options) -> None:
            self.options = options
            self.check_topic = self.check_filter = self.is_exact = self.matches = self.index = lambda *_: None

    class Key:
        def __init__(self, options: Options, verify: object) -> None:
            self.options, self.verify = options, verify

        async def authenticate(self, handshake: object) -> Principal:
            return Principal(id="ann")

    registry = _registry(
        install(
            "acme",
            dws_register_topic_matchers=lambda: [
                TopicMatcherSpec(name="acme", load=Matcher, summary="Acme.", options=Options)
            ],
            dws_register_authenticators=lambda: [
                AuthenticatorSpec(name="acme", load=lambda o: partial(Key, o), summary="Acme.", options=Options)
            ],
        )
    )
    matcher: Any = registry.topic_matcher("acme?level=high")
    assert matcher.options.level == "high"
    key: Any = registry.authenticator("acme?level=high", verify=str)
    assert (key.options.level, key.verify) == ("high", str)
    assert registry.authenticator("acme") is not registry.authenticator("acme")


def test_unreadable_options_class_is_error_of_plugin(install: Any) -> None:
    @dataclass
    class Broken:
        level: "NoSuchType" = 0  # type: ignore[name-defined]  # noqa: F821, UP037 -- the mistake of the plugin

    spec = CodecSpec(name="acme", load=Acme, content_type="a/b", summary="Acme.", options=Broken)
    registry = _registry(install("acme", dws_register_codecs=lambda: [spec]))
    with pytest.raises(PluginLoadError, match="the options of codec 'acme' of acme_acme could not be read: NameError"):
        registry.codec("acme")
