"""Give a uvicorn that runs with `--ws auto` and `--http auto` the protocol classes of `dws_core.server`.

`fastapi run`, `fastapi dev` and gunicorn cannot pass these options. But uvicorn reads the classes of new connections from
its `Config`, and runs the lifespan of the application in a task of `LifespanOn`, which holds this `Config`. So a manager
that starts in the lifespan can replace them before the first connection is accepted. An explicit option stays as it is.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any
from weakref import WeakKeyDictionary

from uvicorn import Config
from uvicorn.importer import import_from_string
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

from dws_core._errors import ConfigurationError
from dws_core._node.stats import Counters

logger = logging.getLogger("dws")

_counters: WeakKeyDictionary[Config, list[Counters]] = WeakKeyDictionary()


def join_server(counters: Counters, *, adapts: bool) -> None:
    """Count refusals that only the server sees for a node that starts in its lifespan, and adapt the server if wanted."""
    if (config := serving_config()) is not None:
        nodes = _counters.setdefault(config, [])
        if not any(known is counters for known in nodes):
            nodes.append(counters)
    if adapts:
        adapt_server()


def count_refusal(config: Config) -> None:
    """Count a client that the application has refused outside of `connect`, for each node of a server."""
    for counters in _counters.get(config, ()):
        counters.count_refusal("application")


def adapt_server() -> bool:
    """Let the uvicorn server that runs this lifespan use the protocol classes of dws for new connections.

    Returns:
        Whether its WebSocket connections accept ready frames from now on. False if the server is not uvicorn, was given
        an explicit `--ws`, or is too old.
    """
    config = serving_config()
    if config is None or not config.loaded:
        return False
    try:
        if _is_automatic(config.http, config.http_protocol_class, AutoHTTPProtocol):
            config.http_protocol_class = import_from_string("dws_core.server:HTTPProtocol")
        if _is_automatic(config.ws, config.ws_protocol_class, AutoWebSocketsProtocol):
            config.ws_protocol_class = import_from_string("dws_core.server:WebSocketProtocol")
            return True
    except ConfigurationError as error:
        logger.info("uvicorn keeps its own protocol classes: %s", error)
    return False


def serving_config() -> Config | None:
    """Return the `Config` of the uvicorn server that runs the calling task.

    Returns:
        None if the server is not uvicorn. None also in a task of another lifespan if several servers share the event loop,
        because it is unknown which of them is meant.
    """
    current = _config_of(asyncio.current_task())
    if current is not None:
        return current
    found = [config for task in asyncio.all_tasks() if (config := _config_of(task)) is not None]
    return found[0] if len(found) == 1 else None


def _config_of(task: asyncio.Task[Any] | None) -> Config | None:
    """Return the `Config` of a task that runs a lifespan, or None for any other task."""
    coroutine = None if task is None else task.get_coro()
    if not inspect.iscoroutine(coroutine) or coroutine.cr_code is not LifespanOn.main.__code__:
        return None
    lifespan = None if coroutine.cr_frame is None else coroutine.cr_frame.f_locals.get("self")
    return lifespan.config if isinstance(lifespan, LifespanOn) else None


def _is_automatic(option: object, used: object, automatic: object) -> bool:
    """Return whether uvicorn itself chose a protocol class, and nobody has replaced it since."""
    return option == "auto" and used is automatic and used is not None
