"""Listings, refusals, names and the cache's layout, against a hub on loopback."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.hub.cache import RemoteFile, RepoCache, check_names
from dsr.hub.client import Hub
from dsr.hub.http import RetryPolicy
from runtime.base.errors import Gated, NetworkError, NotFound, UsageError, VerificationFailed
from runtime.base.events import Event, Notice
from tests.hub_server import COMMIT, HubServer

DATA = random.Random(4).randbytes(50_000)
HOSTILE = [
    "../x.gguf",
    "a/../../x.gguf",
    "/etc/x.gguf",
    "C:\\x.gguf",
    "C:x.gguf",
    "\\\\host\\share\\x.gguf",
    "a\\b.gguf",
    "x\0.gguf",
    "x\n.gguf",
    "x\x1b[2J.gguf",
    "x\u202egguf.gguf",
    "x\x85.gguf",
    "nul",
    "CON.gguf",
    "a/aux.txt/b",
    "lpt1.gguf",
    "trailing.",
    "trailing ",
    "a//b.gguf",
    "./x.gguf",
    "",
    "x" * 256,
    "/".join(["folder"] * 200),
    "x.gguf:stream",
]


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add("org/m", {"m-Q4_K_M.gguf": DATA, "sub/config.json": b"{}"})
        yield hub


def hub_of(server: HubServer, folder: Path, token: str | None = None) -> Hub:
    return Hub(server.url, folder / "hub", token, policy=RetryPolicy(stall_seconds=0.5, sleep=lambda seconds: None))


def test_a_listing_tells_sizes_digests_and_the_commit(server: HubServer, tmp_path: Path) -> None:
    listing = hub_of(server, tmp_path).listing("org/m")
    assert listing.commit == COMMIT
    assert listing.sizes == {"m-Q4_K_M.gguf": 50_000, "sub/config.json": 2}
    assert listing.file("sub/config.json").digest == "9e26dfeeb6e641a33dae4961196235bdb965b21b"  # git hash-object


def test_other_hub_tools_find_what_was_fetched(server: HubServer, tmp_path: Path) -> None:
    hub = hub_of(server, tmp_path)
    listing = hub.listing("org/m")
    places = [hub.fetch(listing, path) for path in listing.sizes]
    hub.remember(listing)
    cache = huggingface_hub.scan_cache_dir(hub.cache_folder)
    assert not cache.warnings
    (repo,) = cache.repos
    (revision,) = repo.revisions
    assert (repo.repo_id, revision.commit_hash, set(revision.refs), repo.size_on_disk) == (
        "org/m",
        COMMIT,
        {"main"},
        50_002,
    )
    for path, place in zip(listing.sizes, places, strict=True):
        assert huggingface_hub.try_to_load_from_cache("org/m", path, cache_dir=hub.cache_folder) == str(place)


def test_what_another_hub_tool_fetched_is_not_fetched_again(server: HubServer, tmp_path: Path) -> None:
    hub = hub_of(server, tmp_path)
    listing = hub.listing("org/m")
    blob = hub.cache("org/m").blob(listing.file("m-Q4_K_M.gguf"))
    blob.parent.mkdir(parents=True)
    blob.write_bytes(DATA)
    assert hub.fetch(listing, "m-Q4_K_M.gguf").read_bytes() == DATA
    assert server.served == 0


def test_a_renamed_repository_is_followed_and_named(server: HubServer, tmp_path: Path) -> None:
    server.add("old/name", {"m-Q4_K_M.gguf": DATA}, moved_to="org/m")
    events: list[Event] = []
    hub = hub_of(server, tmp_path)
    listing = hub.listing("old/name", listen=events.append)
    assert Notice("old/name is now called org/m") in events
    assert hub.fetch(listing, "m-Q4_K_M.gguf").read_bytes() == DATA
    assert (tmp_path / "hub/models--old--name/snapshots" / COMMIT / "m-Q4_K_M.gguf").exists()


def test_an_unknown_repository_suggests_near_names(server: HubServer, tmp_path: Path) -> None:
    server.add("org/nice-model-gguf", {})
    with pytest.raises(NotFound, match="org/nice-modle-gguf does not exist on the hub, or it is private") as caught:
        hub_of(server, tmp_path).listing("org/nice-modle-gguf")
    assert caught.value.hint == "did you mean org/nice-model-gguf?"


def test_an_unknown_revision_is_named(server: HubServer, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="org/m has no revision 'v9'"):
        hub_of(server, tmp_path).listing("org/m", "v9")


def test_a_private_repository_opens_with_the_token(server: HubServer, tmp_path: Path) -> None:
    server.repos["org/m"].private = True
    with pytest.raises(NotFound, match="or it is private"):
        hub_of(server, tmp_path).listing("org/m")
    assert hub_of(server, tmp_path, "hf_x").listing("org/m").commit == COMMIT


def test_a_refused_token_is_told_apart_from_a_missing_repository(server: HubServer, tmp_path: Path) -> None:
    server.faults.api_status = {401: 1}
    with pytest.raises(Gated, match="does not accept your token") as caught:
        hub_of(server, tmp_path, "hf_x").listing("org/m")
    assert "hf_x" not in str(caught.value) + str(caught.value.hint) + repr(hub_of(server, tmp_path, "hf_x"))


def test_a_forbidden_repository_is_gated(server: HubServer, tmp_path: Path) -> None:
    server.faults.api_status = {403: 1}
    with pytest.raises(Gated, match="accept the terms"):
        hub_of(server, tmp_path, "hf_x").listing("org/m")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_is_asked_again(server: HubServer, tmp_path: Path, status: int) -> None:
    server.faults.api_status = {status: 2}
    assert hub_of(server, tmp_path).listing("org/m").commit == COMMIT


def test_a_hotel_page_instead_of_the_hub_is_recognised(server: HubServer, tmp_path: Path) -> None:
    server.faults.api_garbage = 1
    with pytest.raises(
        VerificationFailed, match="the hub's answer is not understood: it is not JSON, and begins with '<html>"
    ):
        hub_of(server, tmp_path).listing("org/m")


def test_no_hub_at_all_is_a_network_error(tmp_path: Path) -> None:
    hub = Hub("http://127.0.0.1:9", tmp_path, policy=RetryPolicy(stall_seconds=0.5, sleep=lambda seconds: None))
    with pytest.raises(NetworkError, match=r"org/m: cannot reach 127.0.0.1: .*\(tried 3 times\)"):
        hub.listing("org/m")


def test_offline_asks_nothing(server: HubServer, tmp_path: Path) -> None:
    hub = Hub(server.url, tmp_path, offline=True)
    with pytest.raises(NetworkError, match="HF_HUB_OFFLINE is set"):
        hub.listing("org/m")
    assert server.requests == []


def test_nothing_is_told_about_this_machine(server: HubServer, tmp_path: Path) -> None:
    hub = hub_of(server, tmp_path)
    hub.fetch(hub.listing("org/m"), "m-Q4_K_M.gguf")
    assert {r.path.split("?")[0].split("/")[1] for r in server.requests} == {"api", "org", "storage"}
    for request in server.requests:
        assert "torch" not in str(request.user_agent) and "agent/" not in str(request.user_agent)


def test_the_first_bytes_come_by_a_range(server: HubServer, tmp_path: Path) -> None:
    hub = hub_of(server, tmp_path)
    listing = hub.listing("org/m")
    assert hub.first_bytes(listing, "m-Q4_K_M.gguf", 1000) == DATA[:1000]
    assert server.ranges() == ["bytes=0-999"]
    server.faults.ignore_range = 1
    assert hub.first_bytes(listing, "m-Q4_K_M.gguf", 1000) == DATA[:1000]


@pytest.mark.parametrize("path", HOSTILE)
def test_a_hostile_name_never_becomes_a_path(tmp_path: Path, path: str) -> None:
    cache = RepoCache(tmp_path, "org/m")
    with pytest.raises(VerificationFailed):
        cache.pointer(COMMIT, path)
    with pytest.raises(VerificationFailed):
        cache.reference(path)


@given(st.text(max_size=40))
def test_whatever_the_name_the_path_stays_inside(path: str) -> None:
    cache = RepoCache(Path("/nowhere/hub"), "org/m")
    try:
        place = cache.pointer(COMMIT, path)
    except VerificationFailed:
        return
    assert Path(os.path.normpath(place)).is_relative_to(cache.snapshot(COMMIT))
    assert place != cache.snapshot(COMMIT)


def test_a_hostile_listing_writes_nothing(server: HubServer, tmp_path: Path) -> None:
    server.add("org/evil", {"../../../evil-Q4_K_M.gguf": DATA})
    hub = hub_of(server, tmp_path)
    with pytest.raises(VerificationFailed, match="unsafe file name"):
        hub.fetch(hub.listing("org/evil"), "../../../evil-Q4_K_M.gguf")
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("pair", [("A.gguf", "a.gguf"), ("\u212b.gguf", "\u00c5.gguf"), ("x/B", "X/b")])
def test_names_that_some_disks_take_for_one_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(VerificationFailed, match="some systems cannot tell apart"):
        check_names(pair)


@pytest.mark.parametrize("digest", ["", "../../x", "a" * 39, "A" * 64, "g" * 64, "a" * 65, "a" * 64 + "\n"])
def test_a_digest_that_is_none_never_becomes_a_path(digest: str) -> None:
    with pytest.raises(VerificationFailed):
        RemoteFile("x.gguf", 1, digest)


@pytest.mark.parametrize("commit", ["", "main", "../..", "a" * 39, "a" * 40 + "/.."])
def test_a_commit_that_is_none_never_becomes_a_path(tmp_path: Path, commit: str) -> None:
    with pytest.raises(VerificationFailed):
        RepoCache(tmp_path, "org/m").snapshot(commit)


@pytest.mark.parametrize("repo", ["", "a", "../b", "a/../b", "a/b/c", "a--b/c", "a/b\n", "/etc", "con/x"])
def test_a_repository_that_is_none_never_becomes_a_path(tmp_path: Path, repo: str) -> None:
    with pytest.raises(UsageError):
        RepoCache(tmp_path, repo)


def test_a_linked_folder_in_the_snapshot_is_not_followed_out(server: HubServer, tmp_path: Path) -> None:
    hub = hub_of(server, tmp_path)
    listing = hub.listing("org/m")
    snapshot = hub.cache("org/m").snapshot(COMMIT)
    snapshot.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (snapshot / "sub").symlink_to(outside)
    with pytest.raises(VerificationFailed, match="leads out of the cache"):
        hub.fetch(listing, "sub/config.json")
    assert list(outside.iterdir()) == []


HUB = "https://huggingface.co"
_FROM_ENVIRONMENT = """
from dsr.hub.client import from_environment
from runtime.base.events import Notice
said = []
hub = from_environment(said.append)
print(hub.endpoint, hub.cache_folder, hub.token, hub.offline, hub.policy.stall_seconds, len(said))
"""


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "XDG_"))}
    return {**kept, **variables}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HF_HOME": "/h"}, f"{HUB} /h/hub None False 10.0 0"),
        ({"HF_HUB_CACHE": "/c", "HF_TOKEN": "hf_t"}, f"{HUB} /c hf_t False 10.0 0"),
        ({"HF_HOME": "/h", "HF_ENDPOINT": "https://mirror/", "HF_HUB_OFFLINE": "1"},
         "https://mirror /h/hub None True 10.0 0"),
        ({"HF_HOME": "/h", "HF_ENDPOINT": "http://mirror", "HF_TOKEN": "hf_t"},
         "http://mirror /h/hub None False 10.0 1"),
        ({"HF_HOME": "/h", "HF_TOKEN": "hf_t", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"},
         f"{HUB} /h/hub None False 10.0 0"),
        ({"HF_HOME": "/h", "HF_HUB_DOWNLOAD_TIMEOUT": "3"}, f"{HUB} /h/hub None False 3.0 0"),
    ],
)  # fmt: skip
def test_the_hub_variables_are_respected(variables: dict[str, str], expected: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FROM_ENVIRONMENT],
        env=environment(**variables),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == expected


def test_the_token_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_file\n")
    variables = environment(HF_HOME=str(tmp_path), HF_TOKEN_PATH=str(tmp_path / "token"))
    done = subprocess.run(
        [sys.executable, "-c", _FROM_ENVIRONMENT], env=variables, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[2] == "hf_file"


def test_the_proxy_of_the_environment_is_used(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    hub = Hub("http://hub.example", tmp_path, policy=RetryPolicy(stall_seconds=0.5))
    assert hub.listing("org/m").commit == COMMIT
    assert server.requests[0].path.startswith("http://hub.example/api/models/org/m")
