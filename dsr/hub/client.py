"""The Hugging Face hub: lists a repository, downloads its files into the cache, and turns HTTP errors into ours.

The requests are our own. huggingface_hub reads each answer whole into memory and believes its types; answers.py and
limits.py do not. What dsr takes from huggingface_hub stands in environment.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from dsr.hub import answers, environment, http
from dsr.hub.answers import RepoAnswer
from dsr.hub.cache import Kind, RemoteFile, RepoCache, check_names
from dsr.hub.connections import HERE, LOCKED, Begun, Connections, Waiting
from dsr.hub.http import Client, Retries, RetryPolicy, Transient
from dsr.hub.limits import NotUnderstood
from dsr.hub.partial import Partial, write_error
from dsr.hub.transfer import Download, most_sent
from dsr.models.library import hub_cache_folder
from dsr.models.references import check_repo
from runtime.base.errors import DsrError, Gated, NetworkError, NotFound, UsageError
from runtime.base.events import Listener, Notice, ignore
from runtime.base.quoted import spelled

if TYPE_CHECKING:
    from dsr.hub.http import Response

# Few tries, so that a person who is offline waits only 1 + 2 seconds.
_TRIES_FOR_THE_LISTING = 3
_SECONDS_BEFORE_LOCK_NOTICE = 0.5
_SECONDS_FOR_A_LOCK = 0.05  # a try; the other files go on between two of them
_SECONDS_FOR_A_LISTING = 600  # 32 MiB at 55 kB/s
# In some repositories with about 8,000 files the answer that names the commit lists only a part of them (docs/log.md,
# 2026-11-30). The tree lists them all, page by page; a page has 1000 entries.
_FILES_OF_A_SHORT_LISTING = 1000
_MOST_PAGES = 300


@dataclass(frozen=True, slots=True)
class Listing:
    """One revision of a repository. `repo` is the name that the user gave, `served_as` its present name on the hub.

    `sizes` maps each path to its bytes; `digests` to the SHA-256 or git blob id, None where the hub gives none.
    `starts` keeps the first bytes of files that were read to decide: a download begins with them.
    """

    repo: str
    served_as: str
    revision: str
    commit: str
    sizes: dict[str, int]
    digests: dict[str, str | None]
    starts: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)

    def file(self, path: str) -> RemoteFile:
        """Raises VerificationFailed when the name is unsafe, or size or digest are missing."""
        check_names([path])
        return RemoteFile(path, self.sizes[path], self.digests[path] or "")


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub, the cache for its files, and how often to retry. `repr` does not show the token."""

    endpoint: str
    cache_folder: Path
    token: str | None = field(default=None, repr=False)
    offline: bool = False
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    kind: Kind = "model"
    symlinks: bool = True

    def for_datasets(self) -> Hub:
        """The same hub for datasets instead of models."""
        return replace(self, kind="dataset")

    def cache(self, repo: str) -> RepoCache:
        return RepoCache(self.cache_folder, repo, self.kind, self.symlinks)

    def listing(self, repo: str, revision: str = "main", listen: Listener = ignore) -> Listing:
        """Return the files of the repository at a revision.

        Raises NotFound (with similar names), Gated, NetworkError, and NotUnderstood for an answer of another form.
        """
        self._require_network(repo)
        check_names([revision])
        self.cache(repo)  # raises if this is not the name of a repository
        address = f"{self._api()}/{repo}/revision/{quote(revision, safe='')}?blobs=true"
        try:
            answer = answers.read_repo(self._ask(repo, address, listen, revision)[0])
            served_as = answer.name or repo
            if not _is_repo(served_as):
                raise NotUnderstood(f"the repository's name is {spelled(served_as)}")
            if len(answer.sizes) >= _FILES_OF_A_SHORT_LISTING:
                answer = self._with_tree(served_as, answer, listen)
        except NotUnderstood as error:
            raise NotUnderstood(error.why, self._host()) from error
        if served_as != repo:
            listen(Notice(f"{repo} is now called {served_as}"))
        return Listing(repo, served_as, revision, answer.commit, answer.sizes, answer.digests)

    def _with_tree(self, repo: str, answer: RepoAnswer, listen: Listener) -> RepoAnswer:
        """The answer with all files of its commit, read page by page."""
        sizes: dict[str, int] = {}
        digests: dict[str, str | None] = {}
        cursor, asked = "", set[str]()
        while len(asked) < _MOST_PAGES:
            asked.add(cursor)
            query = urlencode({"recursive": "true", **({"cursor": cursor} if cursor else {})})
            body, cursor = self._ask(repo, f"{self._api()}/{repo}/tree/{answer.commit}?{query}", listen, answer.commit)
            answers.add_tree(body, sizes, digests)
            if not cursor:
                return replace(answer, sizes=sizes, digests=digests)
            if cursor in asked:
                raise NotUnderstood("a page of the list of files leads to itself")
        raise NotUnderstood(f"the list of files has more than {_MOST_PAGES} pages")

    def fetch(self, listing: Listing, path: str, listen: Listener = ignore) -> Path:
        """`fetch_all` for one file."""
        return self.fetch_all(listing, [path], listen)[0]

    def fetch_all(self, listing: Listing, paths: Sequence[str], listen: Listener = ignore) -> list[Path]:
        """Download files into the cache, verify them, and return their paths in the snapshot.

        A cached file is not downloaded again, and a partial one is resumed. Raises NetworkError, VerificationFailed
        after too many wrong contents, DoesNotFit on a full disk (received bytes are kept), and DsrError for a folder
        that is not writable.
        """
        files, cache = [listing.file(path) for path in paths], self.cache(listing.repo)
        missing = [file for file in dict.fromkeys(files) if not cache.is_cached(file, listing.commit)]
        try:
            if missing:
                self._require_network(listing.repo)
                self._download(listing, missing, cache, listen)
            return [cache.link(file, listing.commit) for file in files]
        except OSError as error:
            raise write_error(cache.blob(files[0]), error) from error

    def remember(self, listing: Listing) -> None:
        """Write the commit of the revision into the cache, after its files are there."""
        cache = self.cache(listing.repo)
        try:
            cache.remember(listing.revision, listing.commit)
        except OSError as error:
            raise write_error(cache.reference(listing.revision), error) from error

    def _download(self, listing: Listing, files: Sequence[RemoteFile], cache: RepoCache, listen: Listener) -> None:
        """Download files, each under the lock that every hub tool takes before it writes this blob."""
        held: dict[RemoteFile, Any] = {}
        noticed = time.monotonic() + _SECONDS_BEFORE_LOCK_NOTICE

        def begin(file: RemoteFile, tell: Listener) -> Begun:
            nonlocal noticed
            lock = _lock(cache.lock(file))
            if lock is None:
                if time.monotonic() >= noticed:
                    noticed = float("inf")
                    tell(Notice(f"{file.name}: another program downloads this file; waiting until it ends"))
                return LOCKED
            if cache.is_cached(file, listing.commit):  # another program has finished it meanwhile
                lock.__exit__(None, None, None)
                return HERE
            held[file] = lock
            out = Partial(cache.partial(file), file)
            if not out.received:
                out.seed(listing.starts.get(file.path, b""))
            return Download(
                self._url(listing, file),
                self._headers(),
                file,
                out,
                lambda response: self._refusal(listing.repo, listing.revision, response, file.path),
                Retries(file.name, self.policy, tell),
                tell,
            )

        def finish(download: Download) -> None:
            download.out.finish()
            cache.keep(download.file)
            cache.link(download.file, listing.commit)
            held.pop(download.file).__exit__(None, None, None)

        waiting = [Waiting(partial(begin, file), file.size, cache.cached_bytes(file, listing.commit)) for file in files]
        try:
            Connections(waiting, finish, self.policy, listen).run()
        finally:
            for lock in held.values():
                lock.__exit__(None, None, None)

    def first_bytes(self, listing: Listing, path: str, length: int, listen: Listener = ignore) -> bytes:
        """The first `length` bytes of a file, by a Range request; fewer when the file is shorter."""
        file = listing.file(path)
        here = listing.starts.get(path, b"")
        if len(here) >= min(length, file.size):
            return here[:length]
        self._require_network(listing.repo)
        retries = Retries(file.name, self._short_policy(), listen)
        headers = {**self._headers(), "Range": f"bytes={len(here)}-{length - 1}", "Accept-Encoding": "identity"}
        while True:
            try:
                with (
                    http.connecting(self.policy),
                    Client(self.policy) as client,
                    client.get(self._url(listing, file), headers, most=most_sent(length)) as response,
                ):
                    if failure := http.refused(response):
                        raise failure
                    if response.status_code not in (200, 206):
                        raise self._refusal(listing.repo, listing.revision, response, path)
                    data = bytearray(here if response.status_code == 206 else b"")
                    for chunk in response.iter_bytes():
                        data += chunk
                        if len(data) >= length:
                            break
                    listing.starts[path] = bytes(data[:length])
                    return listing.starts[path]
            except Transient as failure:
                retries.wait_after(failure)

    def similar(self, repo: str) -> list[str]:
        """Up to five repositories with a similar name; none if the hub cannot be asked."""
        import difflib

        query = urlencode({"search": repo.rpartition("/")[2], "limit": 20})
        try:
            names = answers.read_names(self._body(f"{self._api()}?{query}", lambda _: NetworkError("refused"))[0])
        except (DsrError, Transient):  # without suggestions the error is shown all the same
            return []
        return difflib.get_close_matches(repo, [name for name in names if _is_repo(name)], n=5, cutoff=0.3)

    def _require_network(self, repo: str) -> None:
        if self.offline:
            raise NetworkError(f"{repo}: HF_HUB_OFFLINE is set, so dsr downloads nothing", hint="unset HF_HUB_OFFLINE")

    def _url(self, listing: Listing, file: RemoteFile) -> str:
        return f"{self._page(listing.served_as)}/resolve/{listing.commit}/{quote(file.path)}"

    def _page(self, repo: str) -> str:
        return f"{self.endpoint}/{'datasets/' if self.kind == 'dataset' else ''}{repo}"

    def _api(self) -> str:
        return f"{self.endpoint}/api/{self.kind}s"

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def _short_policy(self) -> RetryPolicy:
        return replace(self.policy, tries=min(self.policy.tries, _TRIES_FOR_THE_LISTING))

    def _ask(self, repo: str, address: str, listen: Listener, revision: str) -> tuple[bytes, str]:
        """The body of an answer of the API and the cursor of its next page, empty if there is none.

        It is asked again while the hub is busy. Raises the errors of `listing`.
        """
        retries = Retries(repo, self._short_policy(), listen)
        while True:
            try:
                return self._body(address, lambda response: self._refusal(repo, revision, response))
            except Transient as failure:
                retries.wait_after(failure)

    def _body(self, address: str, error_of: Callable[[Response], DsrError]) -> tuple[bytes, str]:
        """Body and cursor of one answer of the API. Raises Transient, NotUnderstood, or the error of a refusal."""
        headers = {**self._headers(), "Accept-Encoding": "gzip"}
        with (
            http.connecting(self.policy),
            Client(self.policy) as client,
            client.get(address, headers, most_sent(answers.MOST_BYTES), _SECONDS_FOR_A_LISTING) as response,
        ):
            if failure := http.refused(response):
                raise failure
            if response.status_code != 200:
                raise error_of(response)
            return http.read(response, answers.MOST_BYTES), http.next_cursor(response)

    def _host(self) -> str:
        """Host and port only: an endpoint may hold a password."""
        return urlsplit(self.endpoint).netloc.rpartition("@")[2]

    def _refusal(self, repo: str, revision: str, response: Response, path: str | None = None) -> DsrError:
        """The error for a refused request, by its status and X-Error-Code (as in huggingface_hub, utils/_http.py)."""
        status, code = response.status_code, response.headers.get("x-error-code", "")
        said = response.headers.get("x-error-message", "")
        what = f"{repo}/{path}" if path else repo
        log_in = "run 'hf auth login' or set HF_TOKEN"
        if code == "RevisionNotFound":
            return NotFound(f"{repo} has no revision {revision!r}", hint=f"see {self._page(repo)}/tree/main")
        if said == "Access to this resource is disabled.":
            return NotFound(
                f"the hub has disabled {repo} (HTTP {status})", hint="choose another repository of this model"
            )
        if said == "Invalid credentials in Authorization header":
            return Gated(f"{what}: the hub does not accept your token (HTTP {status})", hint=log_in)
        if code == "GatedRepo" or (status == 403 and code != "RepoNotFound"):
            return Gated(
                f"{what} is gated: its owner asks you to accept the terms first (HTTP {status})",
                hint=f"accept them at {self._page(repo)}, then {log_in}",
            )
        if status in (401, 404) and path and code != "RepoNotFound":
            return NotFound(
                f"the hub lists {what}, but does not have it (HTTP {status})", hint=f"see {self._page(repo)}/tree/main"
            )
        if status == 401 and self.token and code != "RepoNotFound":
            return Gated(f"{what}: the hub does not accept your token (HTTP 401)", hint=log_in)
        if status in (401, 404):
            near = self.similar(repo)
            return NotFound(
                f"{repo} does not exist on the hub, or it is private (HTTP {status})",
                hint=f"did you mean {', '.join(near)}?"
                if near
                else f"check the name; if the repository is private, {log_in}",
            )
        return NetworkError(f"{what}: {self._host()} answers HTTP {status}", hint="check HF_ENDPOINT and the proxy")


def _lock(path: Path) -> Any:
    """Take the lock that every hub tool takes before it writes a blob; None if another program has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = environment.library().utils.WeakFileLock(path, timeout=_SECONDS_FOR_A_LOCK)
    try:
        held.__enter__()
    except TimeoutError:
        return None
    return held


def from_environment(listen: Listener = ignore) -> Hub:
    """The hub that the environment sets; environment.py says which variables count.

    The token is sent only to an https endpoint or to this machine. Raises UsageError for a variable with a value that
    cannot be used, and DsrError for a token that cannot be read.
    """
    found = environment.read()
    token = found.token()
    endpoint = urlsplit(found.endpoint)
    if token and endpoint.scheme != "https" and endpoint.hostname not in ("127.0.0.1", "::1", "localhost"):
        listen(Notice(f"HF_ENDPOINT ({endpoint.hostname}) does not use https: dsr does not send your token there"))
        token = None
    return Hub(
        endpoint=found.endpoint,
        cache_folder=hub_cache_folder(),
        token=token,
        offline=found.offline,
        policy=RetryPolicy(found.stall_seconds, origin=found.origin),
        symlinks=found.symlinks,
    )


def _is_repo(name: str) -> bool:
    try:
        check_repo(name)
    except UsageError:
        return False
    return True
