"""A wire between a client and an engine that can be cut at a chosen moment."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Literal

from tests.engines.process import free_port

_PIECE_BYTES = 65536


class Proxy:
    """Passes bytes on to a port of this machine. `cut_at` arms one cut."""

    def __init__(self, port: int) -> None:
        """Listens at once, on a port of its own."""
        self._target = port
        self.port = free_port()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._words: bytes | None = None
        self._when: Literal["before", "after"] = "before"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_at(self, words: bytes, when: Literal["before", "after"]) -> None:
        """Cut the connection whose client sends `words` next: before they arrive, or after their answer."""
        self._words, self._when = words, when

    def close(self) -> None:
        """Cut everything."""
        self._listener.close()
        for pair in self._pairs:
            _cut(*pair)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._pairs.append((client, server))
                answered = threading.Event()
                for pump in (self._forward, self._back):
                    threading.Thread(target=pump, args=(client, server, answered), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, last: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(_PIECE_BYTES):
                if self._words is not None and self._words in data:
                    self._words = None
                    if self._when == "before":
                        break
                    last.set()
                server.sendall(data)
        _cut(client, server)

    def _back(self, client: socket.socket, server: socket.socket, last: threading.Event) -> None:
        with suppress(OSError):
            while (data := server.recv(_PIECE_BYTES)) and not last.is_set():
                client.sendall(data)
        _cut(client, server)


def _cut(*ends: socket.socket) -> None:
    for end in ends:
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
