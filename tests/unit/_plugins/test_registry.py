"""The plugin registry, with plugins from real entry points."""

from __future__ import annotations

import logging
import sys
import types
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from dws_core import BrokerURL, PluginConflict, PluginLoadError, PluginNotFound
from dws_core._plugins.registry import PluginRegistry, default_registry
from dws_core.plugin import BrokerCapabilities, BrokerInterface, BrokerSpec, CodecSpec, hookimpl


def _spec(scheme: str, load: Any = lambda: BrokerInterface) -> BrokerSpec:
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

    def load() -> type[BrokerInterface]:
        loads.append(1)
        return BrokerInterface

    registry = _registry(install("nats", dws_register_brokers=lambda: [_spec("nats", load)]))
    assert registry.broker_spec("nats").summary == "The nats broker."
    assert loads == []
    url = BrokerURL.parse("nats://h")
    assert registry.broker_class(url) is registry.broker_class(url) is BrokerInterface
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
        " Fix: correct the scheme, or pip install the plugin that offers it [dws:plugin-not-found]"
    )


def test_missing_scheme_names_its_package() -> None:
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
        registry.rows()


def test_disabled_plugin_is_not_loaded(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    point = install("one", dws_register_brokers=lambda: [_spec("x")])
    monkeypatch.setenv("DWS_DISABLE_PLUGINS", "other, one")
    assert PluginRegistry(entry_points=[point]).rows() == []


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
    with pytest.raises(PluginLoadError, match="loaded a int"):
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
