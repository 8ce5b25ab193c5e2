"""`__all__` of each public module is sorted, complete and documented."""

from __future__ import annotations

import importlib
import inspect

import pytest

DOORS = ["dws_core", "dws_core.client", "dws_core.plugin", "dws_core.server", "dws_core.testing"]

BUILT_ON = {"dws_core.server": {"ConfigurationError", "FrameListener"}}
"""Names that a public module with code imports only for its own use."""


@pytest.mark.parametrize("door", DOORS)
def test_public_names_are_sorted_and_exist(door: str) -> None:
    module = importlib.import_module(door)
    assert list(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("door", DOORS)
def test_public_names_are_complete(door: str) -> None:
    module = importlib.import_module(door)
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and str(getattr(value, "__module__", "")).startswith("dws_")
        and name not in BUILT_ON.get(door, set())
    }
    assert public <= set(module.__all__), public - set(module.__all__)


@pytest.mark.parametrize("door", DOORS)
def test_every_public_name_is_documented(door: str) -> None:
    module = importlib.import_module(door)
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert (value.__doc__ or "").strip(), f"{door}.{name} has no docstring"
