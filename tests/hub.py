"""A server that speaks the API of the Hugging Face hub, over HTTP: revisions, large files behind a redirect, ranges."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".pt", ".bin", ".model")


@dataclass
class Hub:
    """One repository at one commit, under the branch `main`.

    Attributes:
        stops_after: the bytes after which the server closes the connection of a file, by name.
        goes_down: whether a file is answered with 503 once its connection was closed.
        down: names of files that are answered with 503.
        damaged: names of files whose content is not the described one.
        ranges: the `Range` of every request for a large file, by name; None for a request without one.
    """

    repository: str
    files: dict[str, bytes]
    stops_after: dict[str, int] = field(default_factory=dict)
    goes_down: bool = False
    down: set[str] = field(default_factory=set)
    damaged: set[str] = field(default_factory=set)
    ranges: list[tuple[str, str | None]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def describe(self) -> dict[str, Any]:
        siblings = [self._sibling(name, content) for name, content in self.files.items()]
        return {"id": self.repository, "modelId": self.repository, "sha": COMMIT, "siblings": siblings, "tags": []}

    def _sibling(self, name: str, content: bytes) -> dict[str, Any]:
        sibling: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git_sha1(content)}
        if name.endswith(LARGE):
            sibling["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
        return sibling


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def read_folder(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def serving_hub(repository: str, files: dict[str, bytes]) -> Iterator[Hub]:
    hub = Hub(repository, files)

    class Handler(_Handler):
        served = hub

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        hub.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.served, unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            self._describe(found[1], found[2])
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repository, revision, name = found.groups()
            if repository != hub.repository or revision not in (COMMIT, "main") or name not in hub.files:
                self._refuse(404, "EntryNotFound")
            elif name in hub.down:
                self._refuse(503)
            elif name.endswith(LARGE):
                content = hub.files[name]
                links = {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
                self._answer(302, b"", {"Location": f"/storage/{name}", "X-Repo-Commit": COMMIT, **links})
            else:
                self._send(name, git_sha1(hub.files[name]))
        elif path.startswith("/storage/"):
            name = path.removeprefix("/storage/")
            hub.ranges.append((name, self.headers.get("Range")))
            self._send(name, sha256(hub.files[name]))
        else:
            self._refuse(404)

    def _describe(self, repository: str, revision: str) -> None:
        if repository != self.served.repository:
            self._refuse(404, "RepoNotFound")
        elif revision not in (COMMIT, "main"):
            self._refuse(404, "RevisionNotFound")
        else:
            self._answer(200, json.dumps(self.served.describe()).encode(), {"Content-Type": "application/json"})

    def _send(self, name: str, etag: str) -> None:
        content = self.served.files[name]
        if name in self.served.damaged:
            content = bytes(len(content))
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        stops_after = self.served.stops_after.get(name)
        if stops_after is not None and self.served.goes_down:
            self.served.down.add(name)
        self._answer(206 if start else 200, content[start:], headers, stops_after)

    def _refuse(self, status: int, code: str | None = None) -> None:
        self._answer(status, b"", {"X-Error-Code": code} if code else {})

    def _answer(self, status: int, body: bytes, headers: dict[str, str], stops_after: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:stops_after])
        if stops_after is not None and stops_after < len(body):
            self.close_connection = True
