"""Downloads against a local server: whole, resumed, broken, damaged, endless and offline."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import re

import pytest
from hub_server import local_server

from causalclip.files import download
from causalclip.files.digests import Known, file_digest
from causalclip.files.download import fetch

PAYLOAD = bytes(range(256)) * 400
SHA256 = hashlib.sha256(PAYLOAD).hexdigest()
KNOWN = Known(sha256=SHA256)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves PAYLOAD with byte ranges; drops the connection as often as the server is told to."""

    def do_GET(self):
        byte_range = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        resumes = bool(byte_range) and self.server.ranges
        start = int(byte_range[1]) if resumes else 0
        self.server.starts.append(start)
        if start and self.server.shrunk:
            self.send_error(416)
            return
        body = PAYLOAD[start:]
        self.send_response(206 if resumes else 200)
        if not self.server.endless:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.breaks:
            self.server.breaks -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)
        while self.server.endless:
            self.wfile.write(body)

    def handle(self):
        with contextlib.suppress(ConnectionError):  # the reader of an endless body goes
            super().handle()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with local_server(Handler) as server:
        server.starts, server.ranges, server.breaks, server.endless = [], True, 0, False
        server.shrunk = False
        server.url += f"/{SHA256}/weights.pt"
        yield server


@pytest.mark.parametrize("known", [KNOWN, Known(size=len(PAYLOAD)), None])
def test_a_download_arrives_whole_under_its_final_name_and_only_once(server, tmp_path, known):
    for _ in range(2):
        path = fetch(server.url, tmp_path / "new" / "folder", known=known)
    assert path == tmp_path / "new" / "folder" / "weights.pt"
    assert path.read_bytes() == PAYLOAD
    assert [file.name for file in path.parent.iterdir()] == ["weights.pt"]
    assert server.starts == [0]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_breaks_twice_is_resumed(server, tmp_path, ranges):
    server.breaks, server.ranges = 2, ranges
    assert fetch(server.url, tmp_path, known=KNOWN).read_bytes() == PAYLOAD
    half = len(PAYLOAD) // 2
    assert server.starts == ([0, half, half + half // 2] if ranges else [0, 0, 0])


def test_a_file_that_has_become_shorter_is_fetched_from_the_start(server, tmp_path):
    server.breaks, server.shrunk = 1, True
    assert fetch(server.url, tmp_path, known=KNOWN).read_bytes() == PAYLOAD
    assert server.starts == [0, len(PAYLOAD) // 2, 0]


def test_a_connection_that_keeps_breaking_is_an_error_and_leaves_nothing(server, tmp_path):
    server.breaks = 100
    with pytest.raises(ConnectionError, match="weights.pt in 5 attempts: the connection broke"):
        fetch(server.url, tmp_path, known=KNOWN)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (Known(sha256="0000"), f"has sha256 {SHA256}, expected 0000; the copy was deleted"),
        (Known(size=len(PAYLOAD) + 1), "has 102,400 bytes, expected 102,401; the copy was del"),
        (Known(size=len(PAYLOAD) - 1), "has more bytes than the 102,399 expected"),
    ],
)
def test_wrong_bytes_are_refused_and_deleted(server, tmp_path, known, message):
    with pytest.raises(ValueError, match=message):
        fetch(server.url, tmp_path, known=known)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("known", "limit"), [(KNOWN, "300,000 allowed"), (Known(size=300_000), "300,000 expected")]
)
def test_a_server_that_never_ends_does_not_fill_the_disk(
    server, tmp_path, monkeypatch, known, limit
):
    server.endless = True
    monkeypatch.setattr(download, "MOST_BYTES", 300_000)
    with pytest.raises(ValueError, match=f"has more bytes than the {limit}"):
        fetch(server.url, tmp_path, known=known)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_replaced_with_a_warning(server, tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="is damaged"):
        path = fetch(server.url, tmp_path, known=KNOWN)
    assert file_digest(path) == SHA256


def test_offline_the_error_names_file_folder_and_the_way_by_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    url = f"http://127.0.0.1:9/{SHA256}/weights.pt"  # the discard port, where nobody listens
    with pytest.raises(ConnectionError) as error:
        fetch(url, tmp_path, known=KNOWN)
    message = str(error.value)
    assert "cannot download weights.pt" in message and "refused" in message
    assert url in message and f"put the file into the folder {tmp_path}" in message
