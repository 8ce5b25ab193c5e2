"""A proxy in front of a Kafka, which cuts connections by the client id that they start with, and counts requests."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from services.kafka import PrivateKafka
from services.redis import free_port

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER value that closes a socket with a reset."""
_CHUNK: Final = 262_144
_SIZE: Final = struct.Struct(">i")

FOLLOWING: Final = ("dws-follow",)
"""Client ids of connections on which a node receives."""


class KafkaProxy:
    """A proxy that runs in threads, so that it also works while the event loop of a test is busy.

    Args:
        port: Port to listen on.
        target: Port of the server.

    Attributes:
        requests: Number of requests that clients have sent.
    """

    def __init__(self, port: int, target: int) -> None:
        self.requests = 0
        self._target = target
        self._lock = threading.Lock()
        self._open: dict[socket.socket, str] = {}
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, *, following: bool = True, others: bool = True) -> None:
        """Reset the connections on which nodes receive, all others, or both."""
        with self._lock:
            chosen = [client for client, name in self._open.items() if (following if name in FOLLOWING else others)]
        _reset(chosen)

    def close(self) -> None:
        """Stop listening, and reset all connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket() as server, suppress(OSError):
            server.connect(("127.0.0.1", self._target))
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            with self._lock:
                self._open[client] = ""
            back = threading.Thread(target=_pump, args=(server, client), daemon=True)
            back.start()
            self._forward(client, server)
            _reset([client, server])
            back.join()
        with self._lock:
            self._open.pop(client, None)

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        rest = b""
        with suppress(OSError):
            while data := client.recv(_CHUNK):
                server.sendall(data)
                rest += data
                while len(rest) >= _SIZE.size and len(rest) >= (end := _SIZE.size + _SIZE.unpack_from(rest)[0]):
                    self._count(client, rest[:end])
                    rest = rest[end:]

    def _count(self, client: socket.socket, request: bytes) -> None:
        with self._lock:
            self.requests += 1
            if client in self._open and not self._open[client]:
                (length,) = struct.unpack_from(">h", request, 12)
                self._open[client] = request[14 : 14 + length].decode()


class ProxiedKafka(PrivateKafka):
    """A Kafka behind a proxy.

    Attributes:
        proxy: The proxy.
    """

    def __init__(self) -> None:
        port = free_port()
        super().__init__(advertised=port)
        self.proxy = KafkaProxy(port, self.port)

    def remove(self) -> None:
        """Kill the process, close the proxy, and remove the folder."""
        self.proxy.close()
        super().remove()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(_CHUNK):
            sink.sendall(data)
    _reset([source, sink])


def _reset(sockets: Collection[socket.socket]) -> None:
    for end in sockets:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
