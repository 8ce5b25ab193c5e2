"""Events of a node or a server that have no callback: the test learns of a call of a method."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dws_core._node.runtime import NodeRuntime


def event_of_call(monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> asyncio.Event:
    """Return an event that is set after a method of a class was called."""
    called, original = asyncio.Event(), getattr(owner, method)

    def noting(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        called.set()
        return result

    monkeypatch.setattr(owner, method, noting)
    return called


def event_of_a_close(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Return an event that is set when a connection is closed."""
    return event_of_call(monkeypatch, NodeRuntime, "on_closed")
