"""Downloads against a real server that misbehaves."""

from __future__ import annotations

import gzip
import logging
import socket
import threading
import traceback
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import pytest
from encord.storage import StorageItem

from celery_agents.dependencies import http
from celery_agents.dependencies.download import (
    MAX_BYTES_VARIABLE,
    TOTAL_SECONDS_VARIABLE,
    Limits,
    _unfit,
    download,
)
from celery_agents.errors import DownloadError, SetupError
from tests.execution.conftest import Bench

from .conftest import SECRET, MakeItem, MediaServer, Reply

AT_ONCE = Limits(pauses=(0.0, 0.0))


def fetch(item: object, limits: Limits = AT_ONCE) -> bytes:
    file = BytesIO()
    download(item, file, limits)  # type: ignore[arg-type]
    return file.getvalue()


def refused(item: object, limits: Limits = AT_ONCE) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        fetch(item, limits)
    return caught.value


def test_a_body_of_many_chunks_arrives_whole(make_item: MakeItem) -> None:
    body = bytes(range(256)) * 8000

    assert fetch(make_item("image", body)) == body


def test_without_a_content_length_the_body_ends_with_the_connection(make_item: MakeItem) -> None:
    reply = Reply(b"whole", headers={"Content-Length": "unknown"})

    assert fetch(make_item("image", reply)) == b"whole"


def test_the_file_is_asked_for_as_it_is(server: MediaServer, make_item: MakeItem) -> None:
    fetch(make_item("image", b"x"))

    assert server.accepted == ["identity"]


def test_a_server_that_compresses_anyway_is_understood(make_item: MakeItem) -> None:
    reply = Reply(gzip.compress(b"text " * 1000), headers={"Content-Encoding": "gzip"})

    assert fetch(make_item("plainText", reply)) == b"text " * 1000


def test_the_limit_holds_for_what_is_unpacked(make_item: MakeItem) -> None:
    reply = Reply(gzip.compress(bytes(1_000_000)), headers={"Content-Encoding": "gzip"})

    assert "it is larger than 5000 bytes" in str(refused(make_item("image", reply), Limits(max_bytes=5000)))


# What may pass is tried again.


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_status_is_tried_again(server: MediaServer, make_item: MakeItem, status: int) -> None:
    item = make_item("image", Reply(status=status), Reply(status=status), Reply(b"at last"))

    assert fetch(item) == b"at last"
    assert len(server.seen) == 3


def test_a_body_cut_short_is_noticed_and_fetched_again_from_its_start(make_item: MakeItem) -> None:
    item = make_item("image", Reply(b"the first hal", length=100), b"whole")

    assert fetch(item) == b"whole"


def test_after_the_last_attempt_the_error_says_that_it_may_pass(
    server: MediaServer, make_item: MakeItem
) -> None:
    item = make_item("image", Reply(status=503))

    error = refused(item)
    assert (
        str(error) == f"The file of storage item {item.uuid} could not be fetched: the server answered 503."
    )
    assert (error.transient, error.status) == (True, 503)
    assert len(server.seen) == 3


def test_a_body_always_cut_short_may_pass(make_item: MakeItem) -> None:
    error = refused(make_item("image", Reply(b"short", length=100)))

    assert "the body ended early" in str(error)
    assert (error.transient, error.status) == (True, None)


def test_nobody_listening_may_pass(make_item: MakeItem) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        item = make_item("image", signed_url=f"http://127.0.0.1:{unused.getsockname()[1]}/x?{SECRET}")
        error = refused(item)

    assert "the connection failed (ConnectionError)" in str(error)
    assert error.transient


# What will not pass is not.


@pytest.mark.parametrize("status", [404, 410, 304])
def test_a_final_status_is_not_tried_again(server: MediaServer, make_item: MakeItem, status: int) -> None:
    error = refused(make_item("image", Reply(status=status)))

    assert (error.transient, error.status) == (False, status)
    assert len(server.seen) == 1


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "file:///etc/hostname", "/etc/hostname"])
def test_only_http_is_fetched(make_item: MakeItem, url: str) -> None:
    error = refused(make_item("image", signed_url=url))

    assert "its signed URL is neither http nor https" in str(error)
    assert not error.transient


def test_an_item_without_a_signed_url_is_a_value_error(make_item: MakeItem) -> None:
    item = make_item("scene")

    with (
        pytest.warns(DeprecationWarning, match="not supported for"),
        pytest.raises(ValueError, match=f"Storage item {item.uuid} has no signed URL"),
    ):
        fetch(item)


# Where a signed URL leads.


def test_a_redirect_is_followed(server: MediaServer, make_item: MakeItem) -> None:
    server.replies["/elsewhere"] = [Reply(b"here")]
    item = make_item("image", Reply(status=302, headers={"Location": "/elsewhere"}))

    assert fetch(item) == b"here"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_five_redirects_are_followed_and_not_six(
    server: MediaServer, make_item: MakeItem, status: int
) -> None:
    for number in range(6):
        server.replies[f"/{number}"] = [Reply(status=status, headers={"Location": f"/{number + 1}"})]
    server.replies["/6"] = [Reply(b"here")]

    assert fetch(make_item("image", signed_url=f"{server.url}/1?{SECRET}")) == b"here"
    error = refused(make_item("image", signed_url=f"{server.url}/0?{SECRET}"))
    assert "it was redirected more than 5 times" in str(error)
    assert not error.transient


@pytest.mark.parametrize("address", ["file:///etc/hostname", "ftp://127.0.0.1/x", "gopher://127.0.0.1/"])
def test_a_redirect_to_another_scheme_is_refused(make_item: MakeItem, address: str) -> None:
    error = refused(make_item("image", Reply(status=302, headers={"Location": address})))

    assert "it was redirected to what is neither http nor https" in str(error)
    assert not error.transient


def test_a_redirect_from_https_to_http_is_refused() -> None:
    failure = _unfit("https://media/x", "http://media/x")
    assert failure is not None
    assert "from https to http" in failure.detail
    assert _unfit("http://media/x", "https://media/x") is None


def test_a_redirect_to_this_machine_asks_it_nothing(make_item: MakeItem) -> None:
    """From another host it must not lead inside; what was connected to before anybody knew is told nothing."""
    with socket.create_server(("127.0.0.2", 0)) as inside:
        address = f"http://127.0.0.2:{inside.getsockname()[1]}/latest/meta-data"
        error = refused(make_item("image", Reply(status=302, headers={"Location": address})))
        inside.settimeout(10)
        with inside.accept()[0] as connection:
            assert connection.recv(1000) == b""

    assert "it was redirected to the machine of this worker" in str(error)
    assert not error.transient


# Connections are kept.


def items_of(images: Bench) -> list[StorageItem]:
    rows = images.gateway.project.list_label_rows_v2()
    uuids = [row.backing_item_uuid for row in rows if row.backing_item_uuid]
    return list(images.gateway.storage_items(uuids).values())


def test_the_next_file_comes_over_the_same_connection(images: Bench) -> None:
    items = items_of(images)
    before = images.sandbox.connections
    assert len({fetch(item) for item in items}) == 10
    assert images.sandbox.connections == before + 1


def test_a_redirect_to_this_machine_finds_no_connection_that_was_kept(
    images: Bench, make_item: MakeItem
) -> None:
    """Which an address of Encord's own had led to before."""
    item = items_of(images)[0]
    fetch(item)
    error = refused(make_item("image", Reply(status=302, headers={"Location": item.get_signed_url() or ""})))
    assert "it was redirected to the machine of this worker" in str(error)
    assert images.sandbox.calls["media.get"] == 1


@pytest.mark.parametrize(
    ("address", "is_inside"),
    [
        ("127.0.0.1", True),
        ("169.254.169.254", True),  # where clouds tell a machine its credentials
        ("0.0.0.0", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("fe80::1%eth0", True),
        ("10.0.0.5", False),  # an object store of one's own
        ("8.8.8.8", False),
        ("2001:4860:4860::8888", False),
    ],
)
def test_what_is_inside(address: str, is_inside: bool) -> None:
    assert http.is_inside(address) is is_inside


def test_no_password_of_this_user_is_sent_along(
    server: MediaServer, make_item: MakeItem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password s3cret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    fetch(make_item("image", b"x"))

    assert server.authorized == [None]


# Signed URLs expire.


@pytest.mark.parametrize("status", [400, 401, 403])
def test_an_expired_url_is_renewed_once(server: MediaServer, make_item: MakeItem, status: int) -> None:
    item = make_item("image", Reply(status=status), b"fresh")

    assert fetch(item) == b"fresh"
    first, renewal, second = server.seen
    assert first.endswith(SECRET)
    assert renewal == f"/v2/public/storage/items/{item.uuid}?signUrl=True"
    assert second == f"{first}&renewed=1"


def test_a_renewed_url_that_is_refused_too_is_final(server: MediaServer, make_item: MakeItem) -> None:
    error = refused(make_item("image", Reply(status=403)))

    assert (error.transient, error.status) == (False, 403)
    assert len(server.seen) == 3


def test_a_renewed_url_has_the_attempts_that_are_left(server: MediaServer, make_item: MakeItem) -> None:
    item = make_item("image", Reply(status=503), Reply(status=403), Reply(status=503), b"fresh")

    assert fetch(item) == b"fresh"


# Bounds.


def test_a_file_that_announces_to_be_too_large_is_not_read(server: MediaServer, make_item: MakeItem) -> None:
    file = BytesIO()
    with pytest.raises(DownloadError, match=f"larger than 5 bytes .set {MAX_BYTES_VARIABLE} to allow more"):
        download(make_item("image", Reply(b"1", length=6)), file, Limits(max_bytes=5))
    assert file.getvalue() == b""
    assert len(server.seen) == 1


def test_a_file_of_just_the_allowed_size_is_fetched(make_item: MakeItem) -> None:
    assert fetch(make_item("image", b"12345"), Limits(max_bytes=5)) == b"12345"


def test_a_body_without_end_is_cut_off(make_item: MakeItem) -> None:
    endless = Reply(headers={"Content-Length": "unknown"}, drip=bytes(10_000))
    error = refused(make_item("image", endless), Limits(max_bytes=50_000))

    assert "it is larger than 50000 bytes" in str(error)
    assert not error.transient


def test_a_body_that_only_drips_is_cut_off(make_item: MakeItem) -> None:
    slow = Reply(headers={"Content-Length": "100000000"}, drip=b".")
    error = refused(make_item("image", slow), Limits(total_seconds=0.2))

    assert f"it took longer than 0.2 seconds (set {TOTAL_SECONDS_VARIABLE} to allow more)" in str(error)
    assert error.transient


def test_headers_that_only_drip_are_cut_off(make_item: MakeItem) -> None:
    """Each byte is in time; only all of them together are not."""
    done = threading.Event()

    def drip(listener: socket.socket) -> None:
        with listener.accept()[0] as connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
            while not done.wait(0.01):
                connection.sendall(b".")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        item = make_item("image", signed_url=f"http://127.0.0.1:{listener.getsockname()[1]}/x?{SECRET}")
        try:
            error = refused(item, Limits(total_seconds=0.3))
        finally:
            done.set()
            thread.join()

    assert "it took longer than 0.3 seconds" in str(error)


def test_a_bomb_in_a_bomb_is_not_unpacked(make_item: MakeItem) -> None:
    bomb = gzip.compress(gzip.compress(bytes(10_000_000)))
    error = refused(make_item("image", Reply(bomb, headers={"Content-Encoding": "gzip, gzip"})))

    assert "it is compressed several times over" in str(error)


def test_a_server_that_falls_silent_is_given_up(make_item: MakeItem) -> None:
    # Accepts connections, as the kernel does for it, and never answers.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        item = make_item("image", signed_url=f"http://127.0.0.1:{silent.getsockname()[1]}/x?{SECRET}")
        error = refused(item, Limits(read_seconds=0.05, pauses=()))

    assert "ReadTimeout" in str(error)
    assert error.transient


def test_no_attempt_starts_after_the_time_is_up(server: MediaServer, make_item: MakeItem) -> None:
    error = refused(make_item("image", b"x"), Limits(total_seconds=-1.0))

    assert "it took longer than" in str(error)
    assert server.seen == []


def test_the_environment_sets_the_bounds(make_item: MakeItem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_BYTES_VARIABLE, "1e3")
    monkeypatch.setenv(TOTAL_SECONDS_VARIABLE, "2.5")

    limits = Limits.from_environment()
    assert (limits.max_bytes, limits.total_seconds) == (1000, 2.5)
    with pytest.raises(DownloadError, match="larger than 1000 bytes"):
        download(make_item("image", bytes(1001)), BytesIO())


@pytest.mark.parametrize("text", ["", "many", "0", "-1", "inf", "nan"])
def test_nonsense_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(MAX_BYTES_VARIABLE, text)

    with pytest.raises(SetupError, match=f"{MAX_BYTES_VARIABLE} must be a positive number, and is '{text}'"):
        Limits.from_environment()


# The query of a signed URL is a secret.


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=404),
        Reply(status=503),
        Reply(b"short", length=100),
        Reply(status=302, headers={"Location": f"ftp://127.0.0.1/x?{SECRET}"}),
        Reply(status=302, headers={"Location": f"http://127.0.0.1:1/x?{SECRET}"}),
    ],
)
def test_the_secret_is_in_no_error_and_no_log(
    make_item: MakeItem, caplog: pytest.LogCaptureFixture, reply: Reply
) -> None:
    caplog.set_level(logging.DEBUG)
    error = refused(make_item("image", reply))

    assert SECRET not in "".join(traceback.format_exception(error))
    assert (error.__cause__, error.__context__) == (None, None)
    assert "urllib3.connectionpool" in {record.name for record in caplog.records}
    assert SECRET not in caplog.text


def test_other_requests_are_logged_as_ever(
    server: MediaServer, make_item: MakeItem, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fetch(make_item("image", Reply(status=403), b"fresh"))

    assert "?signUrl=True" in caplog.text
