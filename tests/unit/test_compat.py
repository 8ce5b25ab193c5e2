"""Names of the original library and their behaviour."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from dws_memory import InMemoryBroker

from dws_core import BrokerURL, InvalidBrokerURL, PluginNotFound, create_broker
from dws_core._compat import LAZY, load_lazy
from dws_core._plugins import installing


def _options(monkeypatch: pytest.MonkeyPatch, url: str, **kwargs: object) -> BrokerURL:
    seen: list[BrokerURL] = []
    monkeypatch.setattr(InMemoryBroker, "from_url", seen.append)
    create_broker(url, **kwargs)
    return seen[0]


def test_create_broker_arguments_become_url_options(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _options(monkeypatch, "memory://n", a=1).options == {"a": "1"}
    assert _options(monkeypatch, "memory://n?a=1", b=True, c=None).options == {"a": "1", "b": "True", "c": "None"}
    assert _options(monkeypatch, "memory://n").options == {}


@pytest.mark.parametrize("value", ["a&b=c", "50%", "a+b", "a b", "#?", "ü"])
def test_argument_value_arrives_unchanged(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert _options(monkeypatch, "memory://", password=value).options == {"password": value}


def test_create_broker_returns_broker_of_scheme() -> None:
    """An unknown option is rejected."""
    assert isinstance(create_broker("memory://", max_payload_bytes="64KiB"), InMemoryBroker)
    with pytest.raises(InvalidBrokerURL, match="unknown option 'nope'"):
        create_broker("memory://", nope=1)


def test_missing_plugin_error_names_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installing, "origin_of", lambda distribution: {})
    monkeypatch.setitem(LAZY, "NoBroker", ("dws_no_such_plugin", "dws-no-such-plugin"))
    with pytest.raises(PluginNotFound, match="Fix: pip install dws-no-such-plugin"):
        load_lazy("NoBroker")


def test_missing_dependency_of_plugin_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dws_half_installed.py").write_text("import no_such_client_library\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(LAZY, "HalfBroker", ("dws_half_installed", "dws-half-installed"))
    with pytest.raises(ModuleNotFoundError, match="no_such_client_library"):
        load_lazy("HalfBroker")
    assert "dws_half_installed" not in sys.modules
