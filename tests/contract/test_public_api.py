"""The public lists are sorted, exact and documented."""

from __future__ import annotations

import importlib
import inspect

import pytest

DOORS = ["dws_core", "dws_core.plugin", "dws_core.testing", "dws_core.client"]
LATER = {"RedisBroker"}
"""Lazy names whose plugin is not there yet."""


@pytest.mark.parametrize("door", DOORS)
def test_the_list_is_sorted_and_every_name_is_there(door: str) -> None:
    module = importlib.import_module(door)
    assert list(module.__all__) == sorted(set(module.__all__))
    for name in set(module.__all__) - LATER:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("door", DOORS)
def test_nothing_public_is_missing_from_the_list(door: str) -> None:
    module = importlib.import_module(door)
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and str(getattr(value, "__module__", "")).startswith("dws_")
    }
    assert public <= set(module.__all__), public - set(module.__all__)


@pytest.mark.parametrize("door", DOORS)
def test_every_public_name_is_documented(door: str) -> None:
    module = importlib.import_module(door)
    for name in set(module.__all__) - LATER:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert (value.__doc__ or "").strip(), f"{door}.{name} has no docstring"
