"""A hub on loopback: enough of the Hugging Face hub's HTTP interface to be pulled from, and every way to be
broken.

A real threaded HTTP server. Large files are redirected to a second one, as the hub redirects them to its
storage host, so that a redirect to another origin is the ordinary case. Faults are counted: each is played so
many times and then the server behaves. `requests` holds what was asked, `served` the bytes of file content
that left.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def git_blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repo:
    """`lfs` files are listed with a SHA-256, the others with their git blob id."""

    files: dict[str, bytes] = field(default_factory=dict)
    lfs: set[str] | None = None  # None: every .gguf and .safetensors
    commit: str = COMMIT
    gated: bool = False
    private: bool = False
    moved_to: str | None = None
    listed_digests: dict[str, str] = field(default_factory=dict)
    listed_sizes: dict[str, int] = field(default_factory=dict)

    def is_lfs(self, path: str) -> bool:
        return path.endswith((".gguf", ".safetensors")) if self.lfs is None else path in self.lfs

    def etag(self, path: str) -> str:
        data = self.files[path]
        return hashlib.sha256(data).hexdigest() if self.is_lfs(path) else git_blob_id(data)


@dataclass(frozen=True)
class Request:
    method: str
    host: str
    path: str
    authorization: str | None
    range: str | None
    user_agent: str | None


@dataclass
class Faults:
    """How many times each fault is still played; `forever` is a large number."""

    status: dict[int, int] = field(default_factory=dict)  # instead of a file's content
    api_status: dict[int, int] = field(default_factory=dict)
    retry_after: str | None = None
    ignore_range: int = 0
    wrong_range: int = 0
    refuse_range: int = 0  # 416
    cut_after: list[int] = field(default_factory=list)  # close after so many bytes, one per answer
    stall_after: list[int] = field(default_factory=list)  # go silent after so many bytes, one per answer
    longer_by: int = 0
    corrupt: int = 0
    pointer: int = 0
    short_length: int = 0
    new_etag: int = 0
    no_length: bool = False
    loop: bool = False
    api_garbage: int = 0


class HubServer:
    """Use as a context manager; `url` is the HF_ENDPOINT."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults = Faults()
        self.requests: list[Request] = []
        self.served = 0
        self.bytes_per_second: int | None = None
        self.gate: threading.Event | None = None  # content waits for it
        self.released = threading.Event()
        self._lock = threading.Lock()
        self._hub = _Server(self)
        self._storage = _Server(self)

    @property
    def url(self) -> str:
        return self._hub.url

    @property
    def storage_url(self) -> str:
        return self._storage.url

    def add(self, name: str, files: dict[str, bytes], **options: Any) -> Repo:
        self.repos[name] = Repo(files, **options)
        return self.repos[name]

    def ranges(self) -> list[str]:
        """The Range headers that reached content, in order."""
        return [r.range for r in self.requests if r.range and r.host == urlsplit(self.storage_url).netloc]

    def asked(self, word: str) -> list[Request]:
        return [r for r in self.requests if word in r.path]

    def __enter__(self) -> HubServer:
        for server in (self._hub, self._storage):
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        for server in (self._hub, self._storage):
            server.shutdown()
            server.server_close()

    def take(self, fault: str) -> bool:
        with self._lock:
            left = getattr(self.faults, fault)
            setattr(self.faults, fault, max(0, left - 1))
            return bool(left > 0)

    def take_status(self, table: dict[int, int]) -> int | None:
        with self._lock:
            for status, left in table.items():
                if left > 0:
                    table[status] = left - 1
                    return status
            return None

    def take_first(self, values: list[int]) -> int | None:
        with self._lock:
            return values.pop(0) if values else None

    def count(self, length: int) -> None:
        with self._lock:
            self.served += length

    def note(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, owner: HubServer) -> None:
        self.owner = owner
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    CHUNK: ClassVar[int] = 16384

    def log_message(self, format: str, *args: Any) -> None:
        pass

    @property
    def hub(self) -> HubServer:
        return self.server.owner

    def do_GET(self) -> None:
        self.hub.note(
            Request(
                self.command,
                self.headers.get("Host", ""),
                self.path,
                self.headers.get("Authorization"),
                self.headers.get("Range"),
                self.headers.get("User-Agent"),
            )
        )
        path = urlsplit(self.path).path  # a proxy is asked with the whole address
        path = path.replace("/api/datasets", "/api/models").removeprefix("/datasets")  # both have names of their own
        if path.startswith("/api/models"):
            self._api(path)
        elif path.startswith("/storage/"):
            repo, _, name = unquote(path.removeprefix("/storage/")).partition("//")
            self._content(self.hub.repos[repo], name)
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1], unquote(found[3]))
        else:
            self._answer(404, b"not here")

    def _api(self, path: str) -> None:
        if status := self.hub.take_status(self.hub.faults.api_status):
            self._fail(status)
        elif self.hub.take("api_garbage"):
            self._answer(200, b"<html>Welcome to the hotel</html>", {"Content-Type": "text/html"})
        elif path in ("/api/models", "/api/models/"):
            word = parse_qs(urlsplit(self.path).query).get("search", [""])[0].lower()
            names = [{"id": name, "modelId": name, "_id": name} for name in self.hub.repos if word[:4] in name.lower()]
            self._json(names)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._listing(found[1], unquote(found[2] or "main"))
        else:
            self._answer(404, b"{}")

    def _listing(self, name: str, revision: str) -> None:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self.headers.get("Authorization")):
            self._answer(401, b'{"error":"Invalid username or password."}', {"X-Error-Code": "RepoNotFound"})
        elif repo.moved_to:
            self._answer(307, b"", {"Location": f"/api/models/{repo.moved_to}/revision/{revision}?blobs=True"})
        elif revision not in ("main", repo.commit):
            self._answer(404, b'{"error":"Invalid rev id"}', {"X-Error-Code": "RevisionNotFound"})
        else:
            siblings = [self._sibling(repo, path) for path in repo.files]
            self._json({"id": name, "modelId": name, "sha": repo.commit, "siblings": siblings})

    def _sibling(self, repo: Repo, path: str) -> dict[str, Any]:
        size = repo.listed_sizes.get(path, len(repo.files[path]))
        digest = repo.listed_digests.get(path, repo.etag(path))
        if not repo.is_lfs(path):
            return {"rfilename": path, "size": size, "blobId": digest}
        lfs = {"sha256": digest, "size": size, "pointerSize": 134}
        return {"rfilename": path, "size": size, "blobId": "1" * 40, "lfs": lfs}

    def _resolve(self, name: str, path: str) -> None:
        repo = self.hub.repos.get(name)
        if repo is None or path not in repo.files:
            self._answer(404, b"Entry not found", {"X-Error-Code": "EntryNotFound"})
        elif repo.moved_to:
            self._answer(307, b"", {"Location": self.path.replace(name, repo.moved_to, 1)})
        elif repo.gated and not self.headers.get("Authorization"):
            self._answer(401, b"Access to model is restricted.", {"X-Error-Code": "GatedRepo"})
        elif self.hub.faults.loop:
            self._answer(302, b"", {"Location": self.path})
        elif repo.is_lfs(path):
            etag = "f" * 64 if self.hub.take("new_etag") else repo.etag(path)
            target = f"{self.hub.storage_url}/storage/{name}//{path}"
            self._answer(302, b"", {"Location": target, "X-Linked-Etag": f'"{etag}"', "X-Repo-Commit": repo.commit})
        else:
            self._content(repo, path)

    def _content(self, repo: Repo, path: str) -> None:
        hub, faults = self.hub, self.hub.faults
        if status := hub.take_status(faults.status):
            return self._fail(status)
        data = repo.files[path]
        if hub.take("pointer"):
            return self._answer(200, POINTER)
        if hub.take("short_length"):
            return self._answer(200, data[:-7])
        if hub.take("corrupt"):
            data = bytes([data[0] ^ 1]) + data[1:]
        start, status, total = 0, 200, len(data)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        stop = total
        if wanted and hub.take("refuse_range"):
            return self._answer(416, b"", {"Content-Range": f"bytes */{total}"})
        if wanted and not hub.take("ignore_range"):
            start, status = int(wanted[1]), 206
            stop = min(int(wanted[2]) + 1, total) if wanted[2] else total
            if start >= total:
                return self._answer(416, b"", {"Content-Range": f"bytes */{total}"})
            if hub.take("wrong_range"):
                start = max(0, start - 5)
        extra = b"x" * 100 if faults.longer_by else b""
        body = data[start:stop] + extra
        self.send_response(status)
        self.send_header("ETag", f'"{repo.etag(path)}"')
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{total}")
        if faults.no_length or extra:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return self._send(body)

    def _send(self, body: bytes) -> None:
        hub = self.hub
        cut, stall = hub.take_first(hub.faults.cut_after), hub.take_first(hub.faults.stall_after)
        if hub.gate is not None:
            hub.gate.wait(30)
        for at in range(0, len(body), self.CHUNK):
            piece = body[at : at + self.CHUNK]
            for limit in (cut, stall):
                if limit is not None:
                    piece = piece[: max(0, limit - at)]
            self.wfile.write(piece)
            hub.count(len(piece))
            if hub.bytes_per_second:
                time.sleep(len(piece) / hub.bytes_per_second)
            if cut is not None and at + self.CHUNK >= cut:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if stall is not None and at + self.CHUNK >= stall:
                hub.released.wait(30)
                self.close_connection = True
                return

    def _fail(self, status: int) -> None:
        after = self.hub.faults.retry_after
        self._answer(status, b"busy", {"Retry-After": after} if after else {})

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(**repos: dict[str, bytes]) -> Iterator[HubServer]:
    """A running hub with repositories "org/<name>"."""
    with HubServer() as hub:
        for name, files in repos.items():
            hub.add(f"org/{name}", files)
        yield hub
