"""The hub as it is: huggingface_hub's own client downloads from the tests' hub, and dsr makes the same cache.

docs/log.md (2026-11-30) says where each belief about the hub comes from.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dsr.hub.client import Hub
from dsr.hub.http import RetryPolicy
from runtime.base.errors import Gated, NetworkError, NotFound, VerificationFailed
from tests.hub_server import COMMIT, HubServer, Repo

DATA = random.Random(5).randbytes(200_000)
FILES = {"m-Q4_K_M.gguf": DATA, "config.json": b"{}", "sub/folder/tokenizer.json": b'{"a": 1}', ".gitattributes": b""}


@pytest.fixture(params=["", "/mirror/of/the-hub"])
def server(request: pytest.FixtureRequest) -> Iterator[HubServer]:
    with HubServer(request.param) as hub:
        hub.add("org/m", dict(FILES))
        yield hub


def hub_of(server: HubServer, folder: Path, token: str | None = None, tries: int = 3) -> Hub:
    return Hub(server.url, folder / "hub", token, policy=RetryPolicy(2.0, tries, sleep=lambda seconds: None))


def library(server: HubServer, folder: Path, code: str, token: str = "") -> Any:
    """What huggingface_hub's client returns: `code` sets `result`; an error is its class's name."""
    program = f"""
import json, warnings
warnings.simplefilter("ignore")
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
api = HfApi()
try:
    {code}
except OSError as error:
    result = type(error if type(error).__name__ != "LocalEntryNotFoundError" else error.__cause__).__name__
print(json.dumps(result))
"""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "XDG_"))}
    variables = {"HF_ENDPOINT": server.url, "HF_HOME": str(folder), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": token}
    variables |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "*", "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**kept, **variables}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rpartition("\n{")[2] or done.stdout)


def tree(folder: Path) -> dict[str, str]:
    """The files of a cache, and where its links lead; without the files that only huggingface_hub writes."""
    return {
        path.relative_to(folder).as_posix(): os.readlink(path) if path.is_symlink() else path.read_bytes().hex()[:64]
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() and not path.relative_to(folder).parts[0].startswith((".", "CACHEDIR"))
        and "trees" not in path.parts
    }  # fmt: skip


def test_the_library_and_dsr_make_the_same_cache(server: HubServer, tmp_path: Path) -> None:
    library(server, tmp_path / "theirs", 'result = snapshot_download("org/m")')
    hub = hub_of(server, tmp_path / "ours")
    listing = hub.listing("org/m")
    for path in listing.sizes:
        hub.fetch(listing, path)
    hub.remember(listing)
    ours, theirs = tree(tmp_path / "ours/hub"), tree(tmp_path / "theirs/hub")
    assert ours == theirs and len(ours) == 2 * len(FILES) + 1


@pytest.mark.parametrize("path", FILES)
def test_the_library_downloads_each_file(server: HubServer, tmp_path: Path, path: str) -> None:
    place = library(server, tmp_path, f'result = hf_hub_download("org/m", {path!r})')
    assert Path(place).read_bytes() == FILES[path]


def test_the_library_reads_the_same_listing(server: HubServer, tmp_path: Path) -> None:
    code = """
    info = api.model_info("org/m", files_metadata=True)
    files = {s.rfilename: [s.size, s.lfs.sha256 if s.lfs else s.blob_id] for s in info.siblings}
    result = [info.id, info.sha, files, info.gated, info.gguf]"""
    name, commit, files, gated, gguf = library(server, tmp_path, code.strip())
    listing = hub_of(server, tmp_path).listing("org/m")
    assert (name, commit) == (listing.served_as, listing.commit)
    assert files == {path: [listing.sizes[path], listing.digests[path]] for path in FILES}
    assert gated is False and gguf["architecture"] == "llama"


@pytest.mark.parametrize("page", [1, 2, 1000])
def test_the_library_reads_the_tree_page_by_page(server: HubServer, tmp_path: Path, page: int) -> None:
    server.page = page
    code = 'result = sorted(e.path for e in api.list_repo_tree("org/m", recursive=True, expand=True))'
    assert library(server, tmp_path, code) == sorted([*FILES, "sub", "sub/folder"])
    code = 'result = sorted(e.path for e in api.list_repo_tree("org/m", "sub"))'
    assert library(server, tmp_path, code) == ["sub/folder"]


def test_a_long_listing_is_read_page_by_page(server: HubServer, tmp_path: Path) -> None:
    files = {f"folder/{n}.json": b"{}" for n in range(1200)} | {"m-Q4_K_M.gguf": DATA}
    server.add("org/long", files, shortened_to=1000)
    hub = hub_of(server, tmp_path, "hf_secret")
    listing = hub.listing("org/long")
    assert set(listing.sizes) == set(files)
    assert hub.fetch(listing, "m-Q4_K_M.gguf").read_bytes() == DATA
    assert len(server.asked("/tree/")) == 2


def test_pages_without_end_are_given_up(server: HubServer, tmp_path: Path) -> None:
    server.add("org/long", {f"{n}.json": b"{}" for n in range(1200)})
    hub = hub_of(server, tmp_path)
    server.same_page = True
    with pytest.raises(VerificationFailed, match=r"lists '0\.json' twice"):
        hub.listing("org/long")
    server.page = 0
    with pytest.raises(VerificationFailed, match="a page of the list of files leads to itself"):
        hub.listing("org/long")


REFUSED: list[tuple[dict[str, Any], str, str, str, type[Exception], str]] = [
    ({"gated": True}, "", "org/m", "main", Gated, "GatedRepoError"),
    ({"gated": True}, "hf_other", "org/m", "main", Gated, "GatedRepoError"),
    # Without a token the hub answers 401 and no code. The library knows the repository by its https address.
    ({"private": True}, "", "org/m", "main", NotFound, "HfHubHTTPError"),
    ({"private": True}, "hf_other", "org/m", "main", NotFound, "RepositoryNotFoundError"),
    ({}, "", "org/absent", "main", NotFound, "HfHubHTTPError"),
    ({}, "hf_x", "org/absent", "main", NotFound, "RepositoryNotFoundError"),
    ({}, "hf_wrong", "org/m", "main", Gated, "HfHubHTTPError"),
    ({}, "", "org/m", "v9", NotFound, "RevisionNotFoundError"),
    ({"disabled": True}, "", "org/m", "main", NotFound, "DisabledRepoError"),
]


@pytest.mark.parametrize(("how", "token", "name", "revision", "ours", "theirs"), REFUSED)
def test_the_library_and_dsr_agree_about_refusals(
    how: dict[str, Any], token: str, name: str, revision: str, ours: type[Exception], theirs: str, tmp_path: Path
) -> None:
    with HubServer() as server:
        server.add("org/m", dict(FILES), **how)
        code = f"result = snapshot_download({name!r}, revision={revision!r})"
        assert library(server, tmp_path, code, token) == theirs
        hub = hub_of(server, tmp_path, token or None)
        with pytest.raises(ours) as caught:
            hub.fetch(hub.listing(name, revision), "m-Q4_K_M.gguf")
        assert type(caught.value) is ours


def test_a_disabled_repository_is_not_called_gated(server: HubServer, tmp_path: Path) -> None:
    server.repos["org/m"].disabled = True
    with pytest.raises(NotFound, match=r"the hub has disabled org/m \(HTTP 403\)"):
        hub_of(server, tmp_path).listing("org/m")


def test_a_token_that_the_hub_does_not_know_is_named(server: HubServer, tmp_path: Path) -> None:
    with pytest.raises(Gated, match="the hub does not accept your token") as caught:
        hub_of(server, tmp_path, "hf_wrong").listing("org/m")
    assert caught.value.hint == "run 'hf auth login' or set HF_TOKEN"


def test_a_gated_repository_lists_its_files_and_opens_with_a_granted_token(server: HubServer, tmp_path: Path) -> None:
    server.repos["org/m"].gated = True
    assert hub_of(server, tmp_path).listing("org/m").sizes.keys() == FILES.keys()
    hub = hub_of(server, tmp_path, "hf_x")
    for path in FILES:
        assert hub.fetch(hub.listing("org/m"), path).read_bytes() == FILES[path]


def test_a_renamed_repository_is_followed_for_listing_and_files(server: HubServer, tmp_path: Path) -> None:
    server.add("old/name", {}, moved_to="org/m")
    place = library(server, tmp_path / "theirs", 'result = hf_hub_download("old/name", "config.json")')
    assert Path(place).read_bytes() == b"{}"
    hub = hub_of(server, tmp_path)
    listing = hub.listing("old/name")
    assert listing.served_as == "org/m"
    for path in FILES:
        assert hub.fetch(listing, path).read_bytes() == FILES[path]


def test_a_renamed_repository_that_is_gated_is_called_gated(server: HubServer, tmp_path: Path) -> None:
    """A redirect on the hub itself is no storage host: the refusal behind it is final."""
    listing = hub_of(server, tmp_path).listing("org/m")
    server.repos["new/m"] = Repo(dict(FILES), gated=True)
    server.repos["org/m"] = Repo({}, moved_to="new/m")
    asked = len(server.asked("/resolve/"))
    with pytest.raises(Gated, match="is gated"):
        hub_of(server, tmp_path, "hf_other").fetch(listing, "m-Q4_K_M.gguf")
    assert len(server.asked("/resolve/")) == asked + 2


def test_revisions_are_branches_tags_pull_requests_and_short_commits(server: HubServer, tmp_path: Path) -> None:
    server.repos["org/m"].branches = {"refs/pr/1": "b" * 40, "v1.0": "c" * 40}
    hub = hub_of(server, tmp_path)
    commits = {revision: hub.listing("org/m", revision).commit for revision in ("refs/pr/1", "v1.0", COMMIT[:8])}
    assert commits == {"refs/pr/1": "b" * 40, "v1.0": "c" * 40, COMMIT[:8]: COMMIT}
    code = 'result = [api.model_info("org/m", revision=r).sha for r in ("refs/pr/1", "v1.0")]'
    assert library(server, tmp_path, code) == ["b" * 40, "c" * 40]


def test_a_repository_in_xet_storage_comes_over_http(server: HubServer, tmp_path: Path) -> None:
    """The storage host's ETag is the Xet hash, which is neither the SHA-256 nor the blob id."""
    server.repos["org/m"].xet = True
    place = library(server, tmp_path / "theirs", 'result = hf_hub_download("org/m", "m-Q4_K_M.gguf")')
    assert Path(place).read_bytes() == DATA
    hub = hub_of(server, tmp_path)
    assert hub.fetch(hub.listing("org/m"), "m-Q4_K_M.gguf").read_bytes() == DATA
    assert not server.asked("xet-read-token")


def test_the_bytes_of_xet_storage_may_come_without_a_redirect(server: HubServer, tmp_path: Path) -> None:
    server.repos["org/m"].xet = True
    server.direct = True
    hub = hub_of(server, tmp_path, "hf_x")
    assert hub.fetch(hub.listing("org/m"), "m-Q4_K_M.gguf").read_bytes() == DATA
    assert not server.asked("/storage/") and server.served == len(DATA)


def test_an_expired_link_is_renewed_in_the_middle_of_a_download(server: HubServer, tmp_path: Path) -> None:
    server.faults.cut_after = [50_000]
    server.faults.expired = 1
    hub = hub_of(server, tmp_path, "hf_x")
    assert hub.fetch(hub.listing("org/m"), "m-Q4_K_M.gguf").read_bytes() == DATA
    stored = server.asked("/storage/")
    assert [request.authorization for request in stored] == [None] * 3
    assert stored[0].path != stored[1].path == stored[2].path  # a new signature, used again while it is valid


def test_a_storage_host_that_refuses_each_link_is_a_network_error_and_not_gated(
    server: HubServer, tmp_path: Path
) -> None:
    server.faults.expired = 1000
    hub = hub_of(server, tmp_path, "hf_x")
    listing = hub.listing("org/m")
    for action in (lambda: hub.fetch(listing, "m-Q4_K_M.gguf"), lambda: hub.first_bytes(listing, "m-Q4_K_M.gguf", 9)):
        with pytest.raises(NetworkError, match=r"the storage host refuses its own link \(HTTP 403\)"):
            action()
    server.faults.expired = 1
    assert hub.first_bytes(listing, "m-Q4_K_M.gguf", 9) == DATA[:9]


def test_a_rate_limit_is_waited_for_as_long_as_the_hub_says(server: HubServer, tmp_path: Path) -> None:
    slept: list[float] = []
    hub = Hub(server.url, tmp_path, policy=RetryPolicy(2.0, sleep=slept.append))
    server.faults.api_status = {429: 1}
    server.faults.rate_limit = 55
    assert hub.listing("org/m").commit == COMMIT
    assert slept == [55]


def test_the_token_goes_to_the_hub_only(server: HubServer, tmp_path: Path) -> None:
    hub = hub_of(server, tmp_path, "hf_secret")
    listing = hub.listing("org/m")
    for path in FILES:
        hub.fetch(listing, path)
    for request in server.requests:
        assert request.authorization == (None if "/storage/" in request.path else "Bearer hf_secret")
