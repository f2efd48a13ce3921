"""A hub on loopback that answers as the Hugging Face hub does, and every way to be broken.

A real threaded HTTP server. What it imitates, and where each belief comes from, stands in docs/log.md (2026-11-30).
Small files are redirected to an address on the same host, large files (LFS) to a signed address of a second server, as
the hub redirects them to its storage. huggingface_hub's own client downloads from it too: that is the test that it is
a hub. Faults are counted: each is played so many times and then the server behaves. `requests` holds what was asked,
`served` the bytes of file content that left.
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
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"

# What else the hub says about a model; dsr reads none of it.
_FACTS = {
    "_id": "0" * 24, "lastModified": "2026-08-14T14:44:41.000Z", "createdAt": "2026-08-01T00:00:00.000Z",
    "disabled": False, "downloads": 3, "likes": 1, "tags": ["gguf"], "pipeline_tag": "text-generation",
    "library_name": "gguf", "cardData": {"license": "mit"}, "spaces": [], "usedStorage": 9,
    "gguf": {"total": 7, "architecture": "llama", "context_length": 4096},
}  # fmt: skip


def git_blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repo:
    """`lfs` files are listed with a SHA-256, the others with their git blob id.

    A `gated` repository lists its files to everyone, and gives them to the tokens in `granted`. A `private` one exists
    only for those tokens. `branches` maps further revisions to commits.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    lfs: set[str] | None = None  # None: every .gguf and .safetensors
    commit: str = COMMIT
    gated: bool = False
    private: bool = False
    disabled: bool = False
    shortened_to: int | None = None  # files that the listing beside the commit has; the tree has all
    xet: bool = False
    granted: tuple[str, ...] = ("hf_x", "hf_secret")
    branches: dict[str, str] = field(default_factory=dict)
    moved_to: str | None = None
    listed_digests: dict[str, str] = field(default_factory=dict)
    listed_sizes: dict[str, int] = field(default_factory=dict)
    known_digests: dict[str, tuple[bytes, bool, str]] = field(default_factory=dict)

    def is_lfs(self, path: str) -> bool:
        return path.endswith((".gguf", ".safetensors")) if self.lfs is None else path in self.lfs

    def etag(self, path: str) -> str:
        data, large = self.files[path], self.is_lfs(path)
        known = self.known_digests.get(path)
        if known is None or known[0] is not data or known[1] != large:
            known = data, large, hashlib.sha256(data).hexdigest() if large else git_blob_id(data)
            self.known_digests[path] = known
        return known[2]

    def xet_hash(self, path: str) -> str:
        """A third hash, of neither the file nor its pointer; the storage host uses it as ETag."""
        return hashlib.blake2b(self.files[path], digest_size=32).hexdigest()

    def commit_of(self, revision: str) -> str | None:
        if revision == "main" or (len(revision) >= 7 and self.commit.startswith(revision)):
            return self.commit
        return self.branches.get(revision)


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
    rate_limit: int | None = None  # seconds until the window of requests ends
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
    expired: int = 0  # signed addresses that are refused
    api_garbage: int = 0


class HubServer:
    """Use as a context manager; `url` is the HF_ENDPOINT."""

    def __init__(self, prefix: str = "") -> None:
        """`prefix` is a path before all others, as mirrors have it."""
        self.prefix = prefix
        self.page = 1000  # entries of a page of a tree
        self.same_page = False  # each page of a tree leads to the first, with another cursor
        self.direct = False  # large files come from the hub itself
        self.tokens = {"hf_x", "hf_secret", "hf_other"}  # the valid ones
        self.signatures: set[str] = set()
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
        return self._hub.url + self.prefix

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

    def do_HEAD(self) -> None:
        self.do_GET()

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
        path = path.removeprefix(self.hub.prefix)
        path = path.replace("/api/datasets", "/api/models").removeprefix("/datasets")  # both have names of their own
        path = path.replace("/resolve-cache/datasets/", "/resolve-cache/models/")
        if path.startswith("/storage/"):
            self._signed(path)
        elif found := re.fullmatch(r"/api/resolve-cache/models/([^/]+/[^/]+)/([^/]+)/(.+)", path):
            self._content(self.hub.repos[found[1]], unquote(found[3]), {"X-Repo-Commit": found[2]})
        elif path.startswith("/api/models"):
            self._api(path)
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1], unquote(found[2]), unquote(found[3]))
        else:
            self._answer(404, b"not here")

    def _token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def _api(self, path: str) -> None:
        if status := self.hub.take_status(self.hub.faults.api_status):
            self._fail(status)
        elif self.hub.take("api_garbage"):
            self._answer(200, b"<html>Welcome to the hotel</html>", {"Content-Type": "text/html"})
        elif path in ("/api/models", "/api/models/"):
            word = parse_qs(urlsplit(self.path).query).get("search", [""])[0].lower()
            names = [{"id": name, "modelId": name, "_id": name} for name in self.hub.repos if word[:4] in name.lower()]
            self._json(names)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?(.*)", path):
            self._tree(found[1], unquote(found[2]), unquote(found[3]))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._listing(found[1], unquote(found[2] or "main"))
        else:
            self._answer(404, b"{}")

    def _open(self, name: str, revision: str) -> Repo | None:
        """The repository for this request, or None after a refusal."""
        repo, token = self.hub.repos.get(name), self._token()
        if token and token not in self.hub.tokens:
            self._refuse(401, None, "Invalid credentials in Authorization header")
        elif repo is None or (repo.private and token not in repo.granted):
            if token:
                self._refuse(404, "RepoNotFound", "Repository not found")
            else:
                self._refuse(401, None, "Invalid username or password.")
        elif repo.disabled:
            self._refuse(403, None, "Access to this resource is disabled.")
        elif repo.moved_to:
            self._answer(307, b"", {"Location": self.path.replace(name, repo.moved_to, 1)})
        elif repo.commit_of(revision) is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return repo
        return None

    def _listing(self, name: str, revision: str) -> None:
        if repo := self._open(name, revision):
            blobs = parse_qs(urlsplit(self.path).query).get("blobs", ["false"])[0].lower() == "true"
            siblings = [
                self._sibling(repo, path) if blobs else {"rfilename": path}
                for path in [*repo.files][: repo.shortened_to]
            ]
            self._json({**_FACTS, "id": name, "modelId": name, "author": name.split("/")[0],
                        "sha": repo.commit_of(revision), "private": repo.private,
                        "gated": "manual" if repo.gated else False, "siblings": siblings})  # fmt: skip

    def _sibling(self, repo: Repo, path: str) -> dict[str, Any]:
        size = repo.listed_sizes.get(path, len(repo.files[path]))
        digest = repo.listed_digests.get(path, repo.etag(path))
        if not repo.is_lfs(path):
            return {"rfilename": path, "size": size, "blobId": digest}
        lfs = {"sha256": digest, "size": size, "pointerSize": 134}
        return {"rfilename": path, "size": size, "blobId": "1" * 40, "lfs": lfs}

    def _tree(self, name: str, revision: str, folder: str) -> None:
        repo = self._open(name, revision)
        if repo is None:
            return
        query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
        recursive, expand = (query.get(key, "false").lower() == "true" for key in ("recursive", "expand"))
        inside = [path for path in repo.files if not folder or path.startswith(folder + "/")]
        folders = {path[:at] for path in inside for at, c in enumerate(path) if c == "/" and at > len(folder)}
        entries = [self._entry(repo, path, expand) for path in inside]
        entries += [{"type": "directory", "oid": "2" * 40, "size": 0, "path": path} for path in sorted(folders)]
        if not recursive:
            entries = [entry for entry in entries if "/" not in str(entry["path"])[len(folder) :].lstrip("/")]
        start, page = int(query.get("cursor", 0)), int(query.get("limit", self.hub.page))
        more = {}
        if self.hub.same_page:
            start, page = 0, min(page, len(entries) - 1)
        if start + page < len(entries):
            address = f"{self.hub.url}/api/models/{name}/tree/{revision}?{urlencode({**query, 'cursor': start + page})}"
            more = {"Link": f'<{address}>; rel="next"'}
        self._json(entries[start : start + page], more)

    def _entry(self, repo: Repo, path: str, expand: bool) -> dict[str, Any]:
        sibling = self._sibling(repo, path)
        entry = {"type": "file", "oid": sibling["blobId"], "size": sibling["size"], "path": path}
        if lfs := sibling.get("lfs"):
            entry["lfs"] = {"oid": lfs["sha256"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
            if repo.xet:
                entry["xetHash"] = repo.xet_hash(path)
        if expand:
            entry["lastCommit"] = {"id": repo.commit, "title": "Upload", "date": "2026-08-14T14:44:41.000Z"}
        return entry

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repo = self._open(name, revision)
        if repo is None:
            return
        commit = {"X-Repo-Commit": str(repo.commit_of(revision))}
        if path not in repo.files:
            self._refuse(404, "EntryNotFound", "Entry not found", commit)
        elif repo.gated and self._token() not in repo.granted:
            why = f"Access to model {name} is restricted."
            self._refuse(403 if self._token() else 401, "GatedRepo", why)
        elif self.hub.faults.loop:
            self._answer(302, b"", {"Location": self.path})
        else:
            etag = "f" * 64 if repo.is_lfs(path) and self.hub.take("new_etag") else repo.etag(path)
            linked = {**commit, "X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(repo.files[path]))}
            if self.hub.direct:
                self._content(repo, path, {**commit, **self._xet(repo, name, path)})
            elif not repo.is_lfs(path):
                kind = "datasets" if "/datasets/" in self.path else "models"
                query = urlencode({"etag": f'"{etag}"'})
                target = f"{self.hub.prefix}/api/resolve-cache/{kind}/{name}/{commit['X-Repo-Commit']}/{quote(path)}"
                self._answer(307, b"", {"Location": f"{target}?{query}", **linked})
            else:
                signature = f"{len(self.hub.asked('/resolve/')):08x}"
                self.hub.signatures.add(signature)
                target = (
                    f"{self.hub.storage_url}/storage/{name}//{quote(path)}?Expires=1785399052&Signature={signature}"
                )
                self._answer(302, b"Found. Redirecting", {"Location": target, **linked, **self._xet(repo, name, path)})

    def _xet(self, repo: Repo, name: str, path: str) -> dict[str, str]:
        if not repo.xet:
            return {}
        token = f"{self.hub.url}/api/models/{name}/xet-read-token/{repo.commit}"
        return {"X-Xet-Hash": repo.xet_hash(path), "Link": f'<{token}>; rel="xet-auth"'}

    def _signed(self, path: str) -> None:
        """The storage host: it knows no tokens, only signatures, and each for a while."""
        signature = parse_qs(urlsplit(self.path).query).get("Signature", [""])[0]
        repo, _, name = unquote(path.removeprefix("/storage/")).partition("//")
        if signature not in self.hub.signatures or self.hub.take("expired"):
            self.hub.signatures.discard(signature)
            said = (
                b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>'
            )
            self._answer(403, said, {"Content-Type": "application/xml"})
        elif self._token():
            self._answer(400, b"<Error><Code>InvalidArgument</Code><Message>Two authorizations</Message></Error>")
        else:
            self._content(self.hub.repos[repo], name)

    def _content(self, repo: Repo, path: str, headers: dict[str, str] | None = None) -> None:
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
        body = data[start:stop] + extra if extra else memoryview(data)[start:stop]
        self.send_response(status)
        tag = repo.xet_hash(path) if repo.xet and repo.is_lfs(path) else repo.etag(path)
        self.send_header("ETag", f'"{tag}"')
        for name, value in {"Accept-Ranges": "bytes", **(headers or {})}.items():
            self.send_header(name, value)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{total}")
        if faults.no_length or extra:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return None if self.command == "HEAD" else self._send(body)

    def _send(self, body: bytes | memoryview) -> None:
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
        headers = {}
        if after := self.hub.faults.retry_after:
            headers["Retry-After"] = after
        if reset := self.hub.faults.rate_limit:
            headers["RateLimit"] = f'"api";r=0;t={reset}'
            headers["RateLimit-Policy"] = '"fixed window";"api";q=500;w=300'
        self._answer(status, b"busy", headers)

    def _refuse(self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None) -> None:
        told = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}
        self._answer(status, json.dumps({"error": message}).encode(), {"Content-Type": "application/json", **told})

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        limits = {"RateLimit": '"api";r=497;t=168', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json", **limits, **(headers or {})})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def serving(**repos: dict[str, bytes]) -> Iterator[HubServer]:
    """A running hub with repositories "org/<name>"."""
    with HubServer() as hub:
        for name, files in repos.items():
            hub.add(f"org/{name}", files)
        yield hub
