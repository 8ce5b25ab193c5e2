"""What `LogBroker` refuses: methods of a plain broker, which the node would never call."""

from __future__ import annotations

from typing import Any

import pytest
from dws_memory import InMemoryBroker

from dws_core.plugin import LogBroker


@pytest.mark.parametrize("name", ["connect", "disconnect", "subscribe", "unsubscribe", "get_message"])
def test_method_of_original_broker_is_explained(name: str) -> None:
    with pytest.raises(
        AttributeError, match=rf"'{name}', because it is a LogBroker.* Fix: pass it to WebSocketManager"
    ):
        getattr(InMemoryBroker(), name)
    assert not hasattr(InMemoryBroker(), name)
    with pytest.raises(AttributeError, match=r"has no attribute 'nonsense'$"):
        InMemoryBroker().nonsense  # type: ignore[attr-defined]  # noqa: B018 -- the lookup is under test


def test_publish_of_original_broker_cannot_be_overridden() -> None:
    with pytest.raises(TypeError, match=r"Loud overrides publish\(\) with other arguments.* Fix: override publish\("):

        class Loud(InMemoryBroker):
            async def publish(self, channel: str, message: Any) -> None:  # type: ignore[override]
                """Publish."""


def test_publish_that_is_a_coroutine_is_refused() -> None:
    with pytest.raises(TypeError, match="overrides publish"):

        class Waiting(InMemoryBroker):
            async def publish(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
                """Publish."""


def test_publish_with_all_arguments_is_accepted() -> None:
    class Counting(InMemoryBroker):
        def publish(self, *args: Any, **kwargs: Any) -> Any:
            return super().publish(*args, **kwargs)

    assert Counting("name").name == "name"


@pytest.mark.parametrize("name", ["connect", "get_message", "deliveries"])
def test_method_that_is_never_called_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=rf"Mine defines {name}\(\), which the node never calls.* Fix: "):
        type("Mine", (InMemoryBroker,), {name: lambda self: None})


def test_author_of_a_log_broker_may_use_these_names() -> None:
    assert type("Acme", (LogBroker,), {"connect": lambda self: None}).connect  # type: ignore[attr-defined]
