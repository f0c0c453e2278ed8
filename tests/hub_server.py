"""A local server with the parts of the Hugging Face Hub's protocol that the tests need."""

from __future__ import annotations

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SHA = "0123456789abcdef0123456789abcdef01234567"


def handler(root, address):  # noqa: C901 (a protocol)
    """Return a handler that serves root/OWNER/NAME and root/datasets/OWNER/NAME."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def answer(self, content, status=200, **headers):
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def missing(self, code):
            self.answer({"error": "x"}, 404, X_Error_Code=code, X_Repo_Commit=SHA)

        def split(self):
            """Return the folder of the repository, its name, and the rest of the path as words."""
            words = self.path.split("?")[0].strip("/").removeprefix("api/").split("/")
            words = words[1:] if words[0] == "models" else words
            count = 3 if words[0] == "datasets" else 2
            name = "/".join(words[:count])
            return root / name, name.removeprefix("datasets/"), words[count:]

        def do_GET(self):
            repository, name, words = self.split()
            files = [path for path in repository.rglob("*") if path.is_file()]
            paths = {path.relative_to(repository).as_posix(): path for path in files}
            if not repository.is_dir():
                self.missing("RepoNotFound")
            elif words[0] == "revision" and words[1] not in ("main", SHA):
                self.missing("RevisionNotFound")
            elif words[0] == "revision":
                siblings = [{"rfilename": path} for path in paths]
                self.answer({"id": name, "sha": SHA, "siblings": siblings})
            elif words[0] == "tree":
                rows = ({"path": p, "size": f.stat().st_size} for p, f in paths.items())
                self.answer([{"type": "file", "oid": "0", **row} for row in rows])
            elif (path := "/".join(words[2:])) not in paths:
                self.missing("EntryNotFound")
            else:
                etag = f'"{paths[path].stat().st_mtime_ns}-{path.replace("/", "-")}"'
                self.answer(paths[path].read_bytes(), ETag=etag, X_Repo_Commit=SHA)

        do_HEAD = do_GET

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            repository, name, words = self.split()
            if self.path.endswith("repos/create"):
                name = json.loads(body)["organization"] + "/" + json.loads(body)["name"]
                (root / name).mkdir(parents=True)
                self.answer({"url": f"{address}/{name}", "id": name})
            elif self.path.endswith("validate-yaml"):
                self.answer({"errors": [], "warnings": []})
            elif words[0] == "preupload":
                modes = {"uploadMode": "regular", "shouldIgnore": False}
                files = json.loads(body)["files"]
                self.answer({"files": [{"path": file["path"], **modes} for file in files]})
            else:
                for row in [json.loads(line)["value"] for line in body.splitlines()][1:]:
                    (repository / row["path"]).write_bytes(base64.b64decode(row["content"]))
                self.answer({"commitUrl": f"{address}/{name}/commit/{SHA}", "commitOid": SHA})

    return Handler


@contextmanager
def local_server(kind=BaseHTTPRequestHandler):
    """Serve requests in a thread; yield the server, with its address as `url`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as http:
        http.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield http
        http.shutdown()
        thread.join()


@contextmanager
def serving(root, cache, monkeypatch):
    """Serve the folders below `root` as the hub; yield `root`."""
    with local_server() as http:
        address = http.url
        http.RequestHandlerClass = handler(root, address)
        for name, value in {
            "ENDPOINT": address,
            "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(cache),
        }.items():
            monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
        yield root
