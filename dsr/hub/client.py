"""The Hugging Face hub: lists a repository, downloads its files into the cache, and turns HTTP errors into ours.

Only this module imports huggingface_hub, and late, because that reads the HF_ variables when it is imported. It gives
the endpoint, the token, the listing and the locks of the cache; the transfer is our own (transfer.py says why).
Its telemetry is switched off.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote, urlsplit

from dsr import __version__
from dsr.hub import http, transfer
from dsr.hub.cache import Kind, RemoteFile, RepoCache, check_names
from dsr.hub.http import Retries, RetryPolicy, Transient
from dsr.hub.partial import write_error
from dsr.models.library import hub_cache_folder
from runtime.base.errors import DsrError, Gated, NetworkError, NotFound, VerificationFailed
from runtime.base.events import Listener, Notice, ignore

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")

# Few tries, so that a person who is offline waits only 1 + 2 seconds.
_TRIES_FOR_THE_LISTING = 3
_SECONDS_BEFORE_LOCK_NOTICE = 0.5


@dataclass(frozen=True, slots=True)
class Listing:
    """One revision of a repository. `repo` is the name that the user gave, `served_as` its present name on the hub.

    `sizes` maps each path to its bytes; `digests` to the SHA-256 or git blob id, None where the hub gives none.
    """

    repo: str
    served_as: str
    revision: str
    commit: str
    sizes: dict[str, int]
    digests: dict[str, str | None]

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

    def for_datasets(self) -> Hub:
        """The same hub for datasets instead of models."""
        return replace(self, kind="dataset")

    def cache(self, repo: str) -> RepoCache:
        return RepoCache(self.cache_folder, repo, self.kind)

    def listing(self, repo: str, revision: str = "main", listen: Listener = ignore) -> Listing:
        """Return the files of the repository at a revision.

        Raises NotFound (with similar names), Gated, NetworkError, and VerificationFailed for an invalid answer.
        """
        self._require_network(repo)
        check_names([revision])
        answer = self._ask(
            repo,
            lambda api: (api.dataset_info if self.kind == "dataset" else api.model_info)(
                repo, revision=revision, files_metadata=True, timeout=self.policy.stall_seconds, token=self._token()
            ),
            listen,
            revision,
        )
        siblings = answer.siblings or []
        served_as = answer.id if isinstance(answer.id, str) and answer.id else repo
        if served_as != repo:
            self.cache(served_as)  # raises if this is not the name of a repository
            listen(Notice(f"{repo} is now called {served_as}"))
        self.cache(repo).snapshot(answer.sha or "")  # raises if this is not a commit
        return Listing(
            repo=repo,
            served_as=served_as,
            revision=revision,
            commit=answer.sha or "",
            sizes={s.rfilename: s.lfs.size if s.lfs else s.size or 0 for s in siblings},
            digests={s.rfilename: s.lfs.sha256 if s.lfs else s.blob_id for s in siblings},
        )

    def fetch(self, listing: Listing, path: str, listen: Listener = ignore) -> Path:
        """Download one file into the cache, verify it, and return its path in the snapshot.

        A cached file is not downloaded again, and a partial one is resumed. Raises the errors of transfer.fetch.
        """
        file = listing.file(path)
        cache = self.cache(listing.repo)
        try:
            if cache.is_cached(file, listing.commit):
                return cache.link(file, listing.commit)
            self._require_network(listing.repo)
            with self._locked(cache.lock(file), file, listen):
                if not cache.is_cached(file, listing.commit):  # another pull may have finished it meanwhile
                    self._transfer(listing, file, cache, listen)
                return cache.link(file, listing.commit)
        except OSError as error:
            raise write_error(cache.partial(file), error) from error

    def remember(self, listing: Listing) -> None:
        """Write the commit of the revision into the cache, after its files are there."""
        cache = self.cache(listing.repo)
        try:
            cache.remember(listing.revision, listing.commit)
        except OSError as error:
            raise write_error(cache.reference(listing.revision), error) from error

    def _transfer(self, listing: Listing, file: RemoteFile, cache: RepoCache, listen: Listener) -> None:
        with http.new_client(self.policy) as client:
            transfer.fetch(
                client,
                self._url(listing, file),
                self._headers(),
                file,
                cache.partial(file),
                error_of=lambda response: self._refusal(listing.repo, listing.revision, response, file.path),
                policy=self.policy,
                listen=listen,
            )
        cache.keep(file)

    def first_bytes(self, listing: Listing, path: str, length: int, listen: Listener = ignore) -> bytes:
        """The first `length` bytes of a file, by a Range request; fewer when the file is shorter."""
        file = listing.file(path)
        self._require_network(listing.repo)
        retries = Retries(file.name, self._short_policy(), listen)
        headers = {**self._headers(), "Range": f"bytes=0-{length - 1}", "Accept-Encoding": "identity"}
        while True:
            try:
                with (
                    http.connecting(self.policy),
                    http.new_client(self.policy) as client,
                    client.stream("GET", self._url(listing, file), headers=headers) as response,
                ):
                    if failure := http.busy(response.status_code, response.headers):
                        raise failure
                    if response.status_code not in (200, 206):
                        response.read()
                        raise self._refusal(listing.repo, listing.revision, response, path)
                    data = bytearray()
                    for chunk in response.iter_bytes():
                        data += chunk
                        if len(data) >= length:
                            break
                    return bytes(data[:length])
            except Transient as failure:
                retries.wait_after(failure)

    def similar(self, repo: str) -> list[str]:
        """Up to five repositories with a similar name; none if the hub cannot be asked."""
        import difflib

        name = repo.rpartition("/")[2]
        try:
            with self._api() as api:
                search: Any = api.list_datasets if self.kind == "dataset" else api.list_models
                found = search(search=name, limit=20, token=self._token())
                names = [model.id for model in found if isinstance(model.id, str)]
        except Exception:  # without suggestions the error is shown all the same
            return []
        return difflib.get_close_matches(repo, names, n=5, cutoff=0.3)

    def _require_network(self, repo: str) -> None:
        if self.offline:
            raise NetworkError(f"{repo}: HF_HUB_OFFLINE is set, so dsr downloads nothing", hint="unset HF_HUB_OFFLINE")

    def _url(self, listing: Listing, file: RemoteFile) -> str:
        return f"{self._page(listing.served_as)}/resolve/{listing.commit}/{quote(file.path)}"

    def _page(self, repo: str) -> str:
        return f"{self.endpoint}/{'datasets/' if self.kind == 'dataset' else ''}{repo}"

    def _token(self) -> str | bool:
        return self.token or False

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def _short_policy(self) -> RetryPolicy:
        return replace(self.policy, tries=min(self.policy.tries, _TRIES_FOR_THE_LISTING))

    @contextmanager
    def _api(self) -> Iterator[HfApi]:
        """huggingface_hub's API over our client, so that our redirect rules and time limits hold for it too."""
        huggingface_hub = _library()
        huggingface_hub.set_client_factory(lambda: http.new_client(self.policy))
        api = huggingface_hub.HfApi(self.endpoint, token=self._token(), library_name="dsr", library_version=__version__)
        try:
            yield cast("HfApi", api)
        finally:
            huggingface_hub.close_session()

    def _ask(self, repo: str, question: Callable[[HfApi], T], listen: Listener, revision: str) -> T:
        """Call the hub's API, again while the hub is busy."""
        huggingface_hub = _library()
        retries = Retries(repo, self._short_policy(), listen)
        while True:
            try:
                with http.connecting(self.policy), self._api() as api:
                    return question(api)
            except huggingface_hub.errors.HfHubHTTPError as error:
                failure = http.busy(error.response.status_code, error.response.headers)
                if failure is None:
                    raise self._refusal(repo, revision, error.response) from error
                retries.wait_after(failure)
            except Transient as failure:
                retries.wait_after(failure)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise VerificationFailed(
                    f"{repo}: {self._host()} does not answer like the Hugging Face hub",
                    hint="check HF_ENDPOINT and the proxy",
                ) from error

    def _host(self) -> str:
        """Host and port only: an endpoint may hold a password."""
        return urlsplit(self.endpoint).netloc.rpartition("@")[2]

    def _refusal(self, repo: str, revision: str, response: http.Response, path: str | None = None) -> DsrError:
        """The error for a refused request, by its status and X-Error-Code (as in huggingface_hub, utils/_http.py)."""
        status, code = response.status_code, response.headers.get("x-error-code", "")
        what = f"{repo}/{path}" if path else repo
        log_in = "run 'hf auth login' or set HF_TOKEN"
        if code == "RevisionNotFound":
            return NotFound(f"{repo} has no revision {revision!r}", hint=f"see {self._page(repo)}/tree/main")
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

    @contextmanager
    def _locked(self, lock: Path, file: RemoteFile, listen: Listener) -> Iterator[None]:
        """Hold the lock that every hub tool takes before it writes this blob. A notice says if another has it."""
        weak_lock = _library().utils.WeakFileLock
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            held = weak_lock(lock, timeout=_SECONDS_BEFORE_LOCK_NOTICE)
            held.__enter__()
        except TimeoutError:
            listen(Notice(f"{file.name}: another program downloads this file; waiting until it ends"))
            held = weak_lock(lock)
            held.__enter__()
        try:
            yield
        finally:
            held.__exit__(None, None, None)


def from_environment(listen: Listener = ignore) -> Hub:
    """The hub that the variables HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_OFFLINE and others set.

    The token is sent only to an https endpoint or to this machine.
    """
    huggingface_hub = _library()
    constants = huggingface_hub.constants
    endpoint = urlsplit(constants.ENDPOINT)
    try:
        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else huggingface_hub.get_token()
    except OSError as error:
        raise DsrError(
            f"cannot read your token in {constants.HF_TOKEN_PATH}: {error.strerror}",
            hint="set HF_TOKEN to your token, or HF_HOME to a folder that you can read",
        ) from error
    if token and endpoint.scheme != "https" and endpoint.hostname not in ("127.0.0.1", "::1", "localhost"):
        listen(Notice(f"HF_ENDPOINT ({endpoint.hostname}) does not use https: dsr does not send your token there"))
        token = None
    return Hub(
        endpoint=constants.ENDPOINT,
        cache_folder=hub_cache_folder(),
        token=token,
        offline=constants.is_offline_mode(),
        policy=RetryPolicy(stall_seconds=float(constants.HF_HUB_DOWNLOAD_TIMEOUT)),
    )


def _library() -> Any:
    """huggingface_hub, imported when it is needed, without its telemetry."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import huggingface_hub
    import huggingface_hub.constants
    import huggingface_hub.errors
    import huggingface_hub.utils

    return huggingface_hub
