"""The contenders, and the messages that clients send to each."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from harness.build import compiled

SERVERS = Path(__file__).parents[1] / "servers"
SANSIO = "websockets-sansio"
OURS = "dws_core.server:WebSocketProtocol"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageTemplates:
    """The messages that clients send to a contender: templates of wsload, with the placeholders FILTER and TOPIC.

    Attributes:
        path: Path of the WebSocket endpoint.
        greeting: First messages of every connection.
        greeting_frames: Number of frames that the server sends after the greeting.
        subscribe: Subscribes to a filter. The server replies with one frame.
        publish: Publishes without a reply.
        publish_acked: Publishes with a reply.
        ack: Text before the number of the message in the reply.
        ping: Ping of the server's own protocol, and the reply to it.
    """

    path: str = "/ws"
    greeting: tuple[str, ...] = ()
    greeting_frames: int = 0
    subscribe: str = '{"type":"subscribe","topic":"FILTER","id":1}'
    publish: str = '{"type":"send","topic":"TOPIC","data":"%m%p"}'
    publish_acked: str = '{"type":"send","topic":"TOPIC","id":%s,"data":"%m%p"}'
    ack: str = '"ack"'
    ping: tuple[str, str] | None = None


SOCKETIO = MessageTemplates(
    path="/socket.io/?EIO=4&transport=websocket",
    greeting=("40",),
    greeting_frames=2,
    subscribe='421["subscribe","FILTER"]',
    publish='42["send",{"topic":"TOPIC","data":"%m%p"}]',
    publish_acked='42%s["send",{"topic":"TOPIC","data":"%m%p"}]',
    ack="43",
    ping=("2", "3"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A measured server.

    Attributes:
        name: Name on the command line and in results.
        title: Name in tables.
        app: Module in `servers/` that uvicorn serves, or a file there that is a server (`floor.c`, `uvloop_floor.py`).
        ws: WebSocket protocol of uvicorn.
        needs: Required modules.
        package: Distribution whose version is in the results.
        redis: Whether it uses a private Redis.
        wildcards: Whether it supports filters with wildcards.
        templates: Messages that clients send to it.
    """

    name: str
    title: str
    app: str
    ws: str = SANSIO
    needs: tuple[str, ...] = ()
    package: str | None = None
    redis: bool = False
    wildcards: bool = False
    templates: MessageTemplates = MessageTemplates()

    def command(self) -> list[str]:
        """Return the command that starts the server. The server prints its port."""
        if self.app.endswith(".c"):
            return [str(compiled(SERVERS / self.app))]
        if self.app.endswith(".py"):
            return [sys.executable, str(SERVERS / self.app)]
        return [sys.executable, str(SERVERS / "serve.py"), self.app, "--ws", self.ws]

    def missing(self) -> str | None:
        """Return why the server cannot run here, or None."""
        for module in self.needs:
            if not _importable(module):
                return f"{module} is not installed"
        if self.redis and shutil.which("redis-server") is None:
            return "redis-server is not installed"
        return None


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


CONTENDERS = {
    one.name: one
    for one in (
        Contender(name="floor", title="floor: C, one `send(2)` each", app="floor.c"),
        Contender(
            name="uvloop", title="floor: uvloop, `transport.write` each", app="uvloop_floor.py", needs=("uvloop",)
        ),
        Contender(
            name="dws-server",
            title="**dws**, `--ws dws_core.server:WebSocketProtocol`",
            app="dws_app",
            ws=OURS,
            needs=("dws_core.server",),
            package="dws-core",
            wildcards=True,
        ),
        Contender(name="dws", title="**dws**, plain uvicorn", app="dws_app", package="dws-core", wildcards=True),
        Contender(name="naive", title="naive: `await send_text` each", app="naive", package="uvicorn"),
        Contender(
            name="broadcaster",
            title="broadcaster",
            app="broadcaster_app",
            needs=("broadcaster",),
            package="broadcaster",
        ),
        Contender(
            name="fdws",
            title="fastapi-distributed-websocket",
            app="fdws_app",
            needs=("distributed_websocket",),
            package="fastapi-distributed-websocket",
        ),
        Contender(
            name="fastapi-websockets",
            title="fastapi-websockets",
            app="fastapi_websockets_app",
            needs=("fastapi_websockets",),
            package="fastapi-websockets",
        ),
        Contender(
            name="socketio",
            title="python-socketio",
            app="socketio_app",
            needs=("socketio",),
            package="python-socketio",
            templates=SOCKETIO,
        ),
        Contender(
            name="socketio-redis",
            title="python-socketio, Redis",
            app="socketio_app",
            needs=("socketio", "redis"),
            package="python-socketio",
            redis=True,
            templates=SOCKETIO,
        ),
        Contender(
            name="channels", title="Channels, memory", app="channels_app", needs=("channels",), package="channels"
        ),
        Contender(
            name="channels-redis",
            title="Channels, Redis pub/sub",
            app="channels_app",
            needs=("channels", "channels_redis"),
            package="channels-redis",
            redis=True,
        ),
    )
}
ALONE = {
    one.name: one
    for one in (
        Contender(name="plain", title="Starlette alone", app="plain", package="starlette"),
        Contender(name="plain-fastapi", title="FastAPI alone", app="plain_fastapi", package="fastapi"),
        Contender(name="dws-starlette", title="**dws** in a Starlette route", app="dws_starlette", package="dws-core"),
        Contender(
            name="dws-server-starlette",
            title="**dws** in a Starlette route, `--ws dws_core.server:WebSocketProtocol`",
            app="dws_starlette",
            ws=OURS,
            needs=("dws_core.server",),
            package="dws-core",
        ),
    )
}
"""Contenders of the connection benchmark only."""


def chosen(names: str | None, default: list[str] | None = None) -> list[Contender]:
    """Return the contenders of a comma-separated list. If None, return the default, or all."""
    wanted = names.split(",") if names else default or list(CONTENDERS)
    known = {**CONTENDERS, **ALONE}
    if unknown := [name for name in wanted if name not in known]:
        raise SystemExit(f"unknown contenders {', '.join(unknown)}. Fix: choose from {', '.join(known)}")
    return [known[name] for name in wanted]
