"""Downloads parts of one file over HTTP: asks for them, and checks before the first byte that the answer continues our
file.

Why not huggingface_hub's own download: as of 2.4.0 it writes to a new temporary name each time and removes it
on failure, so nothing is left to resume after a kill; it does not compute a digest of what came over HTTP; it
does not look at the range of a 206 answer (file_download.py: `_download_to_tmp_and_move`, `http_get`); it uses one
connection for a file; and it refuses files above 50 GB without Xet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dsr.hub.cache import RemoteFile
from dsr.hub.http import Retries, Transient, number, read, refused
from dsr.hub.partial import Partial
from dsr.hub.ranges import LEAST, Part
from runtime.base.errors import DsrError, VerificationFailed
from runtime.base.events import Listener, Notice

if TYPE_CHECKING:
    from dsr.hub.http import Client, Response

REFETCHES = 2
_POINTER = b"version https://git-lfs.github.com/spec/"
_EXPIRED = (400, 401, 403, 404, 410)  # what storage hosts answer to a signed link that is too old
# A try that brought less is a failure like one that brought nothing: a server that cuts after each byte never ends.
_PROGRESS = 16 << 10
# The bytes that one connection takes at once. They bound how far the connections are apart, and so how much of the
# file has to stay in the system's cache until it is verified.
_LEAST_PART, _MOST_PART, _PARTS = 16 << 20, 64 << 20, 16


def most_sent(length: int) -> int:
    """How many bytes a server may send for `length` bytes of a file, with the marks between them (chunks)."""
    return 8 * length + (1 << 20)


class WrongContent(Exception):
    """The server sends, or offers, other content than the hub lists."""


@dataclass(slots=True, eq=False)
class Download:
    """One file on its way, used by several connections at once.

    `error_of` returns the error for an answer that no retry helps (401, 403, 404). `headers` go to the hub only:
    a signed `link` to the storage host is used again for the next part, without them.
    """

    url: str
    headers: Mapping[str, str]
    file: RemoteFile
    out: Partial
    error_of: Callable[[Response], DsrError]
    retries: Retries
    listen: Listener
    ranged: bool | None = None  # whether the server sends parts; None: not known yet
    refetches_left: int = REFETCHES
    link: str | None = None
    etag: tuple[str, str] | None = None  # of the storage host, with its name
    wrong_ranges: int = 0
    furthest: int = field(init=False)

    def __post_init__(self) -> None:
        self.furthest = self.out.received

    @property
    def part_size(self) -> int:
        return min(max(self.file.size // _PARTS, _LEAST_PART), _MOST_PART)

    @property
    def can_begin(self) -> bool:
        """Whether there is a part for one more connection. The first answer tells whether the server sends parts."""
        return self.out.available and (self.ranged is True or not self.out.in_flight)

    def take(self, *, steal: bool) -> Part | None:
        """The next part for a connection; None where there is nothing to do for one more."""
        if self.ranged is not True and self.out.in_flight:
            return None
        return self.out.take(self.file.size if self.ranged is False else self.part_size, steal=steal)

    def fetch(self, client: Client, part: Part, alone: Callable[[], bool], leave: Callable[[], bool]) -> None:
        """Receive a part. While the connection is `alone` it goes on after its end; it ends early on `leave`.

        Raises Transient if the answer ends early, WrongContent, and DsrError for a refusal or a full disk.
        """
        start = part.at
        end = self.file.size if alone() else part.stop
        small = end == self.file.size <= 2 * LEAST
        whole = start == 0 and (small or self.ranged is False)
        headers = {"Accept-Encoding": "identity"}
        if not whole:
            headers["Range"] = f"bytes={start}-" if end == self.file.size else f"bytes={start}-{end - 1}"
        link = self.link
        with client.get(
            link or self.url, headers if link else {**self.headers, **headers}, most_sent(self.file.size)
        ) as response:
            if link and response.status_code in _EXPIRED:
                self.link = None
                return  # the hub is asked for a new link
            self._inspect(response, part, whole)
            if response.status_code == 200:
                end = self.file.size
            for data in response.iter_bytes():
                while data:
                    data = data[self.out.append(part, data) :]
                    if not part.left and part.stop < end:
                        self.out.extend(part, self.part_size)
                    if not part.left:
                        return
                if leave():
                    return
        if part.left:
            raise Transient("the connection ended early")

    def wait_after(self, failure: Transient) -> None:
        """Wait before the next try. Raises NetworkError after too many without progress."""
        received = self.out.received
        if received >= self.furthest + min(_PROGRESS, max(1, self.file.size // 2)):
            self.furthest = received
            self.retries.reset()
        self.retries.wait_after(failure)

    def wrong(self, wrong: WrongContent) -> None:
        """Begin again after wrong content. Raises VerificationFailed after REFETCHES wrong contents."""
        if self.out.received == self.file.size:  # a refused answer added nothing, so the partial file stays
            self.out.restart()
        self.refetches_left -= 1
        if self.refetches_left < 0:
            raise VerificationFailed(
                f"{self.file.path}: {wrong} (tried {REFETCHES + 1} times)",
                hint="try again later, or choose another repository of this model",
            )
        self.listen(Notice(f"{self.file.path}: {wrong}; downloading the file again"))

    def check(self, digest: str) -> None:
        """Raise WrongContent if the complete file has another digest than the hub lists."""
        if digest != self.file.digest:
            kind = "SHA-256" if len(self.file.digest) == 64 else "git blob id"
            raise WrongContent(f"its {kind} is {digest}, but the hub lists {self.file.digest}")
        if self.file.path.lower().endswith((".gguf", ".safetensors")) and self.out.starts_with(_POINTER):
            raise VerificationFailed(
                f"{self.file.path}: the repository holds a Git LFS pointer instead of the model",
                hint="its owner must upload the file itself; choose another repository",
            )

    def _inspect(self, response: Response, part: Part, whole: bool) -> None:
        """Check, before the first byte is stored, that this answer continues our file."""
        status = response.status_code
        if status == 416:
            self._refused_range(response)
        if failure := refused(response):
            raise failure
        if status not in (200, 206):
            raise self.error_of(response)
        self._compare_etag(response)
        if status == 206:
            self._check_range(response, part.at)
            self.ranged = True
        else:
            self._check_length(response)
            if not whole:
                self._take_whole(part)
        if response.history and response.url.netloc != response.history[0].url.netloc:
            self.link = str(response.url)

    def _take_whole(self, part: Part) -> None:
        """The server sends the whole file instead of a part: this connection takes it from the beginning."""
        if self.ranged:
            self._wrong_range("the server sends the whole file instead of a part")
        if part.at or self.out.received:
            self.listen(
                Notice(f"{self.file.name}: the server cannot resume a download; starting again from the beginning")
            )
        self.ranged = False
        self.out.restart(part)

    def _refused_range(self, response: Response) -> None:
        """Status 416: one of our listing and the server's file is outdated, or the server is confused."""
        total = re.fullmatch(r"bytes \*/(\d{1,18})", response.headers.get("content-range", "").strip())
        if total and number(total[1]) != self.file.size:
            raise WrongContent(f"the server has {total[1]} bytes, but the hub lists {self.file.size}")
        self._wrong_range("the server refuses the range (HTTP 416)")

    def _wrong_range(self, reason: str) -> None:
        """Try again; after a second wrong answer in a row ask for the whole file. Raises Transient."""
        self.wrong_ranges += 1
        if self.wrong_ranges > 1:
            self.ranged = False
            self.out.restart()
        raise Transient(reason)

    def _compare_etag(self, response: Response) -> None:
        """The hub names the content in X-Linked-Etag (of its redirect); a small file's ETag is its git blob id too.
        The ETag of a large file is something else: at Xet storage it is a hash of the same length. It must not change.
        """
        answers = [*response.history, response]
        tags = [a.headers["x-linked-etag"] for a in answers if "x-linked-etag" in a.headers]
        own = response.headers.get("etag")
        if not tags and own and len(self.file.digest) == 40:
            tags = [own]
        for tag in tags:
            plain = tag.removeprefix("W/").strip('"')
            same_kind = len(plain) == len(self.file.digest) and re.fullmatch(r"[0-9a-f]+", plain)
            if same_kind and plain != self.file.digest:
                raise WrongContent(
                    f"the file changed on the server: it is now {plain}, but the hub lists {self.file.digest}"
                )
        if own and not own.startswith("W/"):
            host = response.url.host
            if self.etag and self.etag[0] == host and self.etag[1] != own:
                self.etag = None
                raise WrongContent("the file changed on the server during the download")
            self.etag = (host, own)

    def _check_range(self, response: Response, offset: int) -> None:
        found = re.fullmatch(
            r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", response.headers.get("content-range", "").strip()
        )
        encoded = response.headers.get("content-encoding", "identity") != "identity"
        if found and found[3] not in ("*", str(self.file.size)):
            raise WrongContent(f"the server has {found[3]} bytes, but the hub lists {self.file.size}")
        if found and number(found[1]) == offset and not encoded:
            self.wrong_ranges = 0
            return
        self._wrong_range("the server sends other bytes than dsr asked for")

    def _check_length(self, response: Response) -> None:
        length = number(response.headers.get("content-length", ""))
        if "content-encoding" in response.headers or length is None or length == self.file.size:
            return
        if length < 1024 and read(response, 1024).startswith(_POINTER):
            raise WrongContent("the server sends a Git LFS pointer instead of the file")
        raise WrongContent(f"the server offers {length} bytes, but the hub lists {self.file.size}")
