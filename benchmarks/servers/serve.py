"""Serve one of the applications in this folder with uvicorn, in one process. Print the port first.

python benchmarks/servers/serve.py naive --ws websockets-sansio
"""

from __future__ import annotations

import argparse
import importlib
import resource
import socket

import uvicorn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("app", help="a module in this folder with an `app`")
    parser.add_argument("--ws", default="websockets-sansio", help="WebSocket protocol of uvicorn")
    parser.add_argument("--no-pings", action="store_true", help="send no pings to clients")
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    app = importlib.import_module(arguments.app).app
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(listener.getsockname()[1], flush=True)
    pings = {"ws_ping_interval": None} if arguments.no_pings else {}
    config = uvicorn.Config(app, ws=arguments.ws, loop="uvloop", log_level="warning", access_log=False, **pings)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
