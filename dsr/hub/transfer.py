"""Downloads one file over HTTP into a partial file: resumes it after an interruption, and verifies it at the end.

Why not huggingface_hub's own download: as of 2.4.0 it writes to a new temporary name each time and removes it
on failure, so nothing is left to resume after a kill; it does not compute a digest of what came over HTTP; it
does not look at the range of a 206 answer (file_download.py: `_download_to_tmp_and_move`, `http_get`); and it
refuses files above 50 GB without Xet.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsr.hub.cache import RemoteFile
from dsr.hub.http import Retries, RetryPolicy, Transient, connecting, number, read, refused
from dsr.hub.partial import Partial, write_error
from runtime.base.errors import DsrError, VerificationFailed
from runtime.base.events import Listener, Notice, Progress, ignore

if TYPE_CHECKING:
    from dsr.hub.http import Client, Response

REFETCHES = 2
_SECONDS_BETWEEN_EVENTS = 0.1
# A try that brought less is a failure like one that brought nothing: a server that cuts after each byte never ends.
_PROGRESS = 16 << 10
_POINTER = b"version https://git-lfs.github.com/spec/"


def most_sent(length: int) -> int:
    """How many bytes a server may send for `length` bytes of a file, with the marks between them (chunks)."""
    return 8 * length + (1 << 20)


class _WrongContent(Exception):
    """The server sends, or offers, other content than the hub lists."""


def fetch(
    client: Client,
    url: str,
    headers: Mapping[str, str],
    file: RemoteFile,
    partial: Path,
    *,
    error_of: Callable[[Response], DsrError],
    policy: RetryPolicy,
    listen: Listener = ignore,
) -> None:
    """Complete `partial` with the missing bytes of `file`, verify it and flush it.

    `error_of` returns the error for an answer that no retry helps (401, 403, 404). Raises NetworkError,
    VerificationFailed after REFETCHES wrong contents, DoesNotFit on a full disk (received bytes are kept), and DsrError
    for a folder that is not writable.
    """
    try:
        out = Partial(partial, file, listen)
    except OSError as error:
        raise write_error(partial, error) from error
    try:
        for refetches_left in range(REFETCHES, -1, -1):
            try:
                _Download(client, url, headers, file, out, error_of, policy, listen).run()
                _check(out, file)
            except _WrongContent as wrong:
                if out.size == file.size:  # a refused answer added nothing, so the partial file stays
                    out.restart()
                if not refetches_left:
                    raise VerificationFailed(
                        f"{file.path}: {wrong} (tried {REFETCHES + 1} times)",
                        hint="try again later, or choose another repository of this model",
                    ) from None
                listen(Notice(f"{file.path}: {wrong}; downloading the file again"))
            else:
                out.flush()
                return
    finally:
        out.close()


def _check(out: Partial, file: RemoteFile) -> None:
    if out.digest() != file.digest:
        kind = "SHA-256" if len(file.digest) == 64 else "git blob id"
        raise _WrongContent(f"its {kind} is {out.digest()}, but the hub lists {file.digest}")
    if file.path.lower().endswith((".gguf", ".safetensors")) and out.starts_with(_POINTER):
        raise VerificationFailed(
            f"{file.path}: the repository holds a Git LFS pointer instead of the model",
            hint="its owner must upload the file itself; choose another repository",
        )


@dataclass(slots=True)
class _Download:
    """Sends requests until the partial file has all bytes."""

    client: Client
    url: str
    headers: Mapping[str, str]
    file: RemoteFile
    out: Partial
    error_of: Callable[[Response], DsrError]
    policy: RetryPolicy
    listen: Listener
    wrong_ranges: int = 0
    reported_at: float = 0.0

    def run(self) -> None:
        retries = Retries(self.file.name, self.policy, self.listen)
        furthest = self.out.size
        self._report(always=True)
        while self.out.size < self.file.size:
            try:
                with connecting(self.policy):
                    self._request()
            except Transient as failure:
                if self.out.size >= furthest + min(_PROGRESS, max(1, self.file.size // 2)):
                    furthest = self.out.size
                    retries.reset()
                retries.wait_after(failure)
        self._report(always=True)

    def _request(self) -> None:
        """Append the bytes of one answer. Raises Transient if it ends early."""
        offset = self.out.size
        headers = {**self.headers, "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with self.client.get(self.url, headers, most_sent(self.file.size)) as response:
            self._inspect(response, offset)
            for data in response.iter_bytes():
                room = self.file.size - self.out.size
                self.out.append(data[:room])  # never more than was listed; the digest judges the rest
                self._report()
                if len(data) >= room:
                    return
        if self.out.size < self.file.size:
            raise Transient("the connection ended early")

    def _inspect(self, response: Response, offset: int) -> None:
        """Check, before the first byte is stored, that this answer continues our file."""
        status = response.status_code
        if status == 416:
            self._check_refused_range(response)
        if failure := refused(response):
            raise failure
        if status not in (200, 206):
            raise self.error_of(response)
        self._compare_etag(response)
        if status == 206:
            self._check_range(response, offset)
        else:
            if offset:
                self.listen(
                    Notice(f"{self.file.name}: the server cannot resume a download; starting again from the beginning")
                )
                self.out.restart()
            self._check_length(response)

    def _check_refused_range(self, response: Response) -> None:
        """Status 416: our partial file is longer than the server's file, so one of the two is outdated."""
        total = re.fullmatch(r"bytes \*/(\d{1,18})", response.headers.get("content-range", "").strip())
        if total and number(total[1]) != self.file.size:
            raise _WrongContent(f"the server has {total[1]} bytes, but the hub lists {self.file.size}")
        self.out.restart()
        raise Transient("the server refuses the range (HTTP 416), starting over")

    def _compare_etag(self, response: Response) -> None:
        """The hub names the content in X-Linked-Etag (of its redirect); a small file's ETag is its git blob id too.
        The ETag of a large file is something else: at Xet storage it is a hash of the same length.
        """
        answers = [*response.history, response]
        tags = [a.headers["x-linked-etag"] for a in answers if "x-linked-etag" in a.headers]
        if not tags and "etag" in response.headers and len(self.file.digest) == 40:
            tags = [response.headers["etag"]]
        for tag in tags:
            plain = tag.removeprefix("W/").strip('"')
            same_kind = len(plain) == len(self.file.digest) and re.fullmatch(r"[0-9a-f]+", plain)
            if same_kind and plain != self.file.digest:
                raise _WrongContent(
                    f"the file changed on the server: it is now {plain}, but the hub lists {self.file.digest}"
                )

    def _check_range(self, response: Response, offset: int) -> None:
        found = re.fullmatch(
            r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", response.headers.get("content-range", "").strip()
        )
        encoded = response.headers.get("content-encoding", "identity") != "identity"
        if found and found[3] not in ("*", str(self.file.size)):
            raise _WrongContent(f"the server has {found[3]} bytes, but the hub lists {self.file.size}")
        if found and number(found[1]) == offset and not encoded:
            self.wrong_ranges = 0
            return
        self.wrong_ranges += 1
        if self.wrong_ranges > 1:
            self.out.restart()
        raise Transient("the server sends other bytes than dsr asked for")

    def _check_length(self, response: Response) -> None:
        length = number(response.headers.get("content-length", ""))
        if "content-encoding" in response.headers or length is None or length == self.file.size:
            return
        if length < 1024 and read(response, 1024).startswith(_POINTER):
            raise _WrongContent("the server sends a Git LFS pointer instead of the file")
        raise _WrongContent(f"the server offers {length} bytes, but the hub lists {self.file.size}")

    def _report(self, *, always: bool = False) -> None:
        now = time.monotonic()
        if always or now - self.reported_at >= _SECONDS_BETWEEN_EVENTS:
            self.reported_at = now
            self.listen(Progress("downloading", self.file.name, self.out.size, self.file.size, "bytes"))
