"""A TCP proxy whose connections can be cut, or fall silent."""

from __future__ import annotations

import contextlib
import socket
import threading


class Proxy:
    """Forwards connections to 127.0.0.1:*port* until it is cut."""

    def __init__(self, port: int) -> None:
        self.target = ("127.0.0.1", port)
        self._sockets: list[socket.socket] = []
        self._is_cut = False
        self._flows = threading.Event()
        self._flows.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break all connections, and from now on each new one."""
        self._is_cut = True
        self.drop()

    def mend(self) -> None:
        self._is_cut = False

    def hold(self) -> None:
        """Keep back what is sent, in both directions, as a network does that has fallen silent."""
        self._flows.clear()

    def let_go(self) -> None:
        self._flows.set()

    def drop(self) -> None:
        """Break all connections; new ones are let through."""
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.drop()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it is closed
            while True:
                near, _ = self._listener.accept()
                if self._is_cut:
                    near.close()
                    continue
                far = socket.create_connection(self.target)
                self._sockets += near, far
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError), source, target:
            while sent := source.recv(65536):
                self._flows.wait()
                target.sendall(sent)
