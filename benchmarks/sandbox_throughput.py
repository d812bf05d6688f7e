"""How many small signed calls a second the sandbox answers on one core.

    python benchmarks/sandbox_throughput.py

The server runs as a process of its own on one core, the load comes from another. Requests are signed before the
clock starts, so that only the server's work counts. Two figures: a new connection for each request, as the Encord
SDK opens them, and connections that are kept. Needs two cores and a system with CPU affinity (Linux).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from encord.http.v2.request_signer import sign_request

REQUESTS = 6000
CLIENTS = 4


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        key_file = Path(folder) / "key"
        server, ready = start_server(key_file)
        try:
            request = signed_request(ready, key_file)
            for name, load in (
                ("a new connection for each call", reconnecting),
                ("kept connections", keeping),
            ):
                measure(ready["port"], request, load, REQUESTS // 10)  # warm up
                seconds = measure(ready["port"], request, load, REQUESTS)
                print(f"{name}: {REQUESTS / seconds:,.0f} calls a second")
        finally:
            server.terminate()
            server.wait()


def start_server(key_file: Path) -> tuple[subprocess.Popen[str], dict[str, object]]:
    command = ["celery-agents", "sandbox", "--tasks", "20", "--json", "--key-file", str(key_file)]
    servers_core, clients_core, *_ = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(
        0, {servers_core}
    )  # the server's threads inherit it; to set it later would move one only
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    os.sched_setaffinity(0, {clients_core})
    assert server.stdout is not None
    return server, json.loads(server.stdout.readline())


def signed_request(ready: dict[str, object], key_file: Path) -> bytes:
    """A listing of the project's datasets: the smallest call that touches the state."""
    url = f"{ready['url']}/v2/public/projects/{ready['project_hash']}/datasets"
    key = load_ssh_private_key(key_file.read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    prepared = requests.Request("GET", url, headers={"Host": "127.0.0.1"}).prepare()
    signed = sign_request(prepared, key.public_key().public_bytes_raw().hex(), key)
    # requests types header values as text or bytes; the SDK sets text.
    headers = [f"{name}: {value!s}" for name, value in signed.headers.items()]
    return "\r\n".join([f"GET {signed.path_url} HTTP/1.1", *headers, "", ""]).encode()


def measure(port: object, request: bytes, load: Callable[[int, bytes, int], None], count: int) -> float:
    clients = [threading.Thread(target=load, args=(port, request, count // CLIENTS)) for _ in range(CLIENTS)]
    started = time.perf_counter()
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return time.perf_counter() - started


def reconnecting(port: int, request: bytes, count: int) -> None:
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            exchange(connection, request)


def keeping(port: int, request: bytes, count: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            exchange(connection, request)


def exchange(connection: socket.socket, request: bytes) -> None:
    connection.sendall(request)
    answer = connection.recv(65536)
    # The server sends a small answer in one or two packets; the last ends in the closing brace of the page.
    while not answer.endswith(b"}"):
        answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200"), answer


if __name__ == "__main__":
    main()
