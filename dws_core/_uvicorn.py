"""Give a uvicorn that runs with `--ws auto` the protocol class of `dws_core.server`.

`fastapi run`, `fastapi dev` and gunicorn cannot pass `--ws`. But uvicorn reads the class of new connections from its
`Config`, and runs the lifespan of the application in a task of `LifespanOn`, which holds this `Config`. So a manager that
starts in the lifespan can replace the class before the first connection is accepted. An explicit `--ws` stays as it is.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any

from uvicorn import Config
from uvicorn.importer import import_from_string
from uvicorn.lifespan.on import LifespanOn
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

from dws_core._errors import ConfigurationError

logger = logging.getLogger("dws")


def use_ready_frames() -> bool:
    """Let the uvicorn server that runs this lifespan send ready frames on new connections.

    Returns:
        Whether the protocol class was replaced. False if the server is not uvicorn, was given a `--ws` of its own, or is
        too old.
    """
    config = serving_config()
    if config is None or not _chooses_itself(config):
        return False
    try:
        config.ws_protocol_class = import_from_string("dws_core.server:WebSocketProtocol")
    except ConfigurationError as error:
        logger.info("uvicorn keeps its own WebSocket protocol class: %s", error)
        return False
    return True


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


def _chooses_itself(config: Config) -> bool:
    """Return whether uvicorn itself chose the protocol class."""
    return config.ws == "auto" and config.loaded and config.ws_protocol_class is AutoWebSocketsProtocol is not None
