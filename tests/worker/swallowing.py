"""A TCP proxy that stops forwarding what consumers wait for: the connection stays open, and nothing comes any more."""

from __future__ import annotations

import contextlib
import socket
import threading

#: What a consumer waits with: kombu's command, and ours.
WAITING = (b"BRPOP", b"BLMOVE")


class SwallowingProxy:
    """Forwards connections to 127.0.0.1:*port*, as a load balancer does that one day forgets some of them."""

    def __init__(self, port: int) -> None:
        self.target = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._consuming: set[socket.socket] = set()  # the near ends of those that wait for a message
        self._swallowed: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def swallow(self) -> None:
        """Forward nothing more on the connections by which messages are fetched at present."""
        self._swallowed |= self._consuming

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self.target)
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=(source, target, near), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, near: socket.socket) -> None:
        with contextlib.suppress(OSError), source, target:
            while sent := source.recv(65536):
                if source is near:
                    waits = any(command in sent for command in WAITING)
                    (self._consuming.add if waits else self._consuming.discard)(near)
                if near not in self._swallowed:
                    target.sendall(sent)
