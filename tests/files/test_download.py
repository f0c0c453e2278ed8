"""Downloads against a local server: whole, resumed, broken, damaged and offline."""

from __future__ import annotations

import hashlib
import http.server
import re
import threading

import pytest

from causalclip.files.download import Known, fetch, file_digest

PAYLOAD = bytes(range(256)) * 400
SHA256 = hashlib.sha256(PAYLOAD).hexdigest()
KNOWN = Known(sha256=SHA256)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves PAYLOAD with byte ranges; drops the connection as often as the server is told to."""

    def do_GET(self):
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and self.server.ranges else 0
        self.server.starts.append(start)
        if start >= len(PAYLOAD):
            self.send_error(416)
            return
        body = PAYLOAD[start:]
        self.send_response(206 if asked and self.server.ranges else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.breaks:
            self.server.breaks -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.starts, server.ranges, server.breaks = [], True, 0
        server.url = f"http://127.0.0.1:{server.server_port}/{SHA256}/weights.pt"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_download_arrives_whole_under_its_final_name(server, tmp_path):
    path = fetch(server.url, tmp_path / "new" / "folder", known=KNOWN)
    assert path == tmp_path / "new" / "folder" / "weights.pt"
    assert path.read_bytes() == PAYLOAD
    assert [file.name for file in path.parent.iterdir()] == ["weights.pt"]


def test_a_file_that_is_there_is_not_fetched_again(server, tmp_path):
    (tmp_path / "weights.pt").write_bytes(PAYLOAD)
    fetch(server.url, tmp_path, known=KNOWN)
    assert server.starts == []


def test_an_interrupted_download_continues_where_it_ended(server, tmp_path):
    (tmp_path / "weights.pt.part").write_bytes(PAYLOAD[:1000])
    assert fetch(server.url, tmp_path, known=KNOWN).read_bytes() == PAYLOAD
    assert server.starts == [1000]


def test_a_connection_that_breaks_twice_is_taken_up_again(server, tmp_path):
    server.breaks = 2
    assert fetch(server.url, tmp_path, known=KNOWN).read_bytes() == PAYLOAD
    half = len(PAYLOAD) // 2
    assert server.starts == [0, half, half + half // 2]


def test_a_connection_that_keeps_breaking_is_an_error_and_keeps_what_arrived(server, tmp_path):
    server.breaks = 100
    with pytest.raises(ConnectionError, match="broke 5 times"):
        fetch(server.url, tmp_path, known=KNOWN)
    assert not (tmp_path / "weights.pt").exists()
    assert PAYLOAD.startswith((tmp_path / "weights.pt.part").read_bytes())
    server.breaks = 0
    assert fetch(server.url, tmp_path, known=KNOWN).read_bytes() == PAYLOAD


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.ranges = False
    (tmp_path / "weights.pt.part").write_bytes(b"other bytes")
    assert fetch(server.url, tmp_path, known=KNOWN).read_bytes() == PAYLOAD


def test_a_part_that_is_already_whole_only_gets_its_name(server, tmp_path):
    (tmp_path / "weights.pt.part").write_bytes(PAYLOAD)
    assert fetch(server.url, tmp_path, known=KNOWN).read_bytes() == PAYLOAD
    assert server.starts == [len(PAYLOAD)]


def test_wrong_bytes_are_refused_and_deleted(server, tmp_path):
    with pytest.raises(ValueError, match=f"has sha256 {SHA256}, expected 0000"):
        fetch(server.url, tmp_path, known=Known(sha256="0000"))
    assert list(tmp_path.iterdir()) == []


def test_where_no_digest_is_known_the_exact_size_decides(server, tmp_path):
    assert fetch(server.url, tmp_path, known=Known(size=len(PAYLOAD))).read_bytes() == PAYLOAD
    (tmp_path / "weights.pt").unlink()
    with pytest.raises(ValueError, match="has 102,400 bytes, expected 102,401; the copy was del"):
        fetch(server.url, tmp_path, known=Known(size=len(PAYLOAD) + 1))
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
    assert "cannot download weights.pt" in message
    assert url in message and str(tmp_path) in message and "put the file into" in message
