"""One file against a server that misbehaves in every way a hub, a proxy or a disk can."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest

from dsr.hub import http, partial
from dsr.hub.cache import PartialPaths, RemoteFile, missing_of
from dsr.hub.client import Hub
from dsr.hub.http import RetryPolicy
from dsr.models.library import incomplete, plan_removal
from runtime.base.errors import DoesNotFit, DsrError, Gated, NetworkError, NotFound, VerificationFailed
from runtime.base.events import Event, Notice, Progress
from tests.hub_server import COMMIT, HubServer

DATA = random.Random(1).randbytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
NAME = "model-Q4_K_M.gguf"


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add("org/m", {NAME: DATA, "config.json": b'{"a": 1}'})
        yield hub


class Client:
    """A hub with a cache of its own, and what it said and slept."""

    def __init__(self, server: HubServer, folder: Path, token: str | None = "hf_secret") -> None:
        self.slept: list[float] = []
        self.events: list[Event] = []
        policy = RetryPolicy(stall_seconds=0.3, sleep=self.slept.append)
        self.hub = Hub(server.url, folder / "hub", token, policy=policy)
        self.cache = self.hub.cache("org/m")

    def fetch(self, path: str = NAME) -> Path:
        return self.hub.fetch(self.hub.listing("org/m"), path, self.events.append)

    @property
    def blob(self) -> Path:
        return self.cache.blob(RemoteFile(NAME, len(DATA), SHA256))

    @property
    def partial(self) -> PartialPaths:
        return self.cache.partial(RemoteFile(NAME, len(DATA), SHA256))

    def leave_partial(self, data: bytes) -> None:
        """As another hub tool leaves one."""
        self.partial.plain.parent.mkdir(parents=True)
        self.partial.plain.write_bytes(data)

    @property
    def notices(self) -> str:
        return "\n".join(event.text for event in self.events if isinstance(event, Notice))


@pytest.fixture
def client(server: HubServer, tmp_path: Path) -> Client:
    return Client(server, tmp_path)


def test_a_file_lands_in_the_cache_under_its_digest(client: Client) -> None:
    place = client.fetch()
    assert place.read_bytes() == DATA
    assert place.resolve() == client.blob.resolve()
    assert os.readlink(place) == f"../../blobs/{SHA256}"
    assert [path.name for path in client.blob.parent.iterdir()] == [SHA256]


def test_a_small_file_is_checked_against_its_git_blob_id(client: Client) -> None:
    place = client.fetch("config.json")
    assert place.read_bytes() == b'{"a": 1}'
    assert place.resolve().name == "4a036f56bb619924ec4189bd84ed716c766971ae"  # git hash-object


def test_an_empty_file_needs_no_request(server: HubServer, client: Client) -> None:
    server.repos["org/m"].files["empty.txt"] = b""
    assert client.fetch("empty.txt").read_bytes() == b""


def test_a_whole_blob_is_not_fetched_again(server: HubServer, client: Client) -> None:
    client.fetch()
    before = server.served
    client.fetch()
    assert server.served == before


def test_a_partial_is_continued(server: HubServer, client: Client) -> None:
    client.leave_partial(DATA[:200_000])
    assert client.fetch().read_bytes() == DATA
    assert server.ranges() == ["bytes=200000-"]
    assert server.served == 100_000


def test_a_complete_partial_is_only_verified(server: HubServer, client: Client) -> None:
    client.leave_partial(DATA)
    assert client.fetch().read_bytes() == DATA
    assert server.served == 0


def test_the_bar_of_a_resumed_download_starts_where_it_was(client: Client) -> None:
    client.leave_partial(DATA[:200_000])
    client.fetch()
    moves = [e for e in client.events if isinstance(e, Progress)]
    assert moves[0] == Progress("downloading", NAME, 200_000, 300_000, "bytes")
    assert moves[-2] == Progress("downloading", NAME, 300_000, 300_000, "bytes")
    assert moves[-1] == Progress("verifying", NAME, 300_000, 300_000, "bytes")


def test_a_partial_with_a_wrong_byte_is_found_out_and_fetched_again(server: HubServer, client: Client) -> None:
    client.leave_partial(b"?" + DATA[1:200_000])
    assert client.fetch().read_bytes() == DATA
    assert f"{NAME}: its SHA-256 is" in client.notices


def test_a_partial_longer_than_the_file_is_dropped(client: Client) -> None:
    client.leave_partial(DATA + b"more")
    assert client.fetch().read_bytes() == DATA


def test_a_symbolic_link_in_place_of_the_partial_is_not_followed(client: Client, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    client.partial.data.parent.mkdir(parents=True)
    client.partial.data.symlink_to(victim)
    assert client.fetch().read_bytes() == DATA
    assert victim.read_bytes() == b"precious"


def test_a_link_in_the_snapshot_is_replaced_and_its_target_left_alone(client: Client, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    place = client.cache.pointer(client.hub.listing("org/m").commit, NAME)
    place.parent.mkdir(parents=True)
    place.symlink_to(victim)
    assert client.fetch().read_bytes() == DATA
    assert victim.read_bytes() == b"precious"


def test_the_token_does_not_follow_to_another_host(server: HubServer, client: Client) -> None:
    client.fetch()
    (asked,) = server.asked("/resolve/")
    (stored,) = server.asked("/storage/")
    assert asked.authorization == "Bearer hf_secret"
    assert stored.authorization is None


def test_an_https_address_never_becomes_http() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(302, headers={"Location": "http://elsewhere.example/x"})

    with http.Client(RetryPolicy()) as client:
        client._client._transport = httpx2.MockTransport(answer)
        with (
            pytest.raises(NetworkError, match=r"redirects from https to http at elsewhere"),
            client.get("https://hub.example/x", {}, most=0),
        ):
            pass


def test_a_server_that_ignores_the_range_starts_the_file_over(server: HubServer, client: Client) -> None:
    server.faults.ignore_range = 1
    client.leave_partial(b"?" * 200_000)  # would spoil the file if the answer were appended
    assert client.fetch().read_bytes() == DATA
    assert "cannot resume a download" in client.notices
    assert server.served == 300_000


def test_a_wrong_range_is_refused_and_asked_again(server: HubServer, client: Client) -> None:
    server.faults.wrong_range = 1
    client.leave_partial(DATA[:200_000])
    assert client.fetch().read_bytes() == DATA
    assert server.ranges() == ["bytes=200000-", "bytes=200000-"]


def test_a_server_with_only_wrong_ranges_is_asked_for_the_whole(server: HubServer, client: Client) -> None:
    server.faults.wrong_range = 1000
    client.leave_partial(DATA[:200_000])
    assert client.fetch().read_bytes() == DATA


def test_a_refused_range_starts_over(server: HubServer, client: Client) -> None:
    server.faults.refuse_range = 1
    client.leave_partial(DATA[:200_000])
    assert client.fetch().read_bytes() == DATA
    assert "HTTP 416" in client.notices


def test_a_file_that_shrank_on_the_server_is_named(server: HubServer, client: Client) -> None:
    server.repos["org/m"].listed_sizes[NAME] = 300_500
    server.repos["org/m"].listed_digests[NAME] = SHA256
    client.leave_partial(DATA)
    with pytest.raises(VerificationFailed, match=f"{NAME}: the server has 300000 bytes, but the hub lists 300500"):
        client.fetch()


def test_a_broken_connection_is_continued(server: HubServer, client: Client) -> None:
    server.faults.cut_after = [100_000, 50_000]
    assert client.fetch().read_bytes() == DATA
    assert server.ranges() == ["bytes=100000-", "bytes=150000-"]
    assert server.served == 300_000


def test_a_body_that_ends_early_without_a_length_is_continued(server: HubServer, client: Client) -> None:
    server.faults.no_length = True
    server.faults.cut_after = [100_000]
    assert client.fetch().read_bytes() == DATA


def test_what_a_server_sends_beyond_the_file_is_not_kept(server: HubServer, client: Client) -> None:
    server.faults.longer_by = 100
    assert client.fetch().read_bytes() == DATA


def test_a_stall_is_noticed_said_and_continued(server: HubServer, client: Client) -> None:
    server.faults.stall_after = [100_000]
    assert client.fetch().read_bytes() == DATA
    assert f"{NAME}: no data for 0.3 s; trying again in 1 s" in client.notices
    assert server.ranges() == ["bytes=100000-"]


def test_a_wrong_digest_is_fetched_again(server: HubServer, client: Client) -> None:
    server.faults.corrupt = 1
    assert client.fetch().read_bytes() == DATA
    assert server.served == 600_000


def test_a_digest_that_stays_wrong_ends_in_verification_failed(server: HubServer, client: Client) -> None:
    server.faults.corrupt = 1000
    with pytest.raises(
        VerificationFailed, match=rf"{NAME}: its SHA-256 is [0-9a-f]{{64}}, but the hub lists {SHA256} \(tried 3 times"
    ):
        client.fetch()
    assert server.served == 900_000
    assert not client.blob.exists()


def test_a_pointer_text_in_place_of_the_model_is_called_by_its_name(server: HubServer, client: Client) -> None:
    server.faults.pointer = 1000
    with pytest.raises(VerificationFailed, match="sends a Git LFS pointer instead of the file"):
        client.fetch()


def test_a_pointer_text_that_was_committed_is_called_by_its_name(server: HubServer, client: Client) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    server.add("org/m", {NAME: pointer}, lfs=set())
    with pytest.raises(VerificationFailed, match="the repository holds a Git LFS pointer instead of the model"):
        client.fetch()


def test_a_wrong_length_is_refused_before_a_byte_is_kept(server: HubServer, client: Client) -> None:
    server.faults.short_length = 1
    assert client.fetch().read_bytes() == DATA
    assert "the server offers 299993 bytes, but the hub lists 300000" in client.notices


def test_an_etag_that_changes_while_resuming_is_not_mixed(server: HubServer, client: Client) -> None:
    server.faults.new_etag = 1
    client.leave_partial(DATA[:200_000])
    assert client.fetch().read_bytes() == DATA
    assert "the file changed on the server" in client.notices
    assert set(server.ranges()) == {"bytes=200000-"}


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again_with_growing_pauses(server: HubServer, client: Client, status: int) -> None:
    server.faults.status = {status: 3}
    assert client.fetch().read_bytes() == DATA
    assert client.slept == [1.0, 2.0, 4.0]


def test_retry_after_is_honoured(server: HubServer, client: Client) -> None:
    server.faults.status = {429: 1}
    server.faults.retry_after = "17"
    client.fetch()
    assert client.slept == [17.0]
    assert "too many requests (HTTP 429); trying again in 17 s" in client.notices


def test_a_wait_of_hours_ends_the_pull(server: HubServer, client: Client) -> None:
    server.faults.status = {503: 1}
    server.faults.retry_after = "7200"
    with pytest.raises(NetworkError, match="asks to wait 7200 s"):
        client.fetch()


def test_a_server_that_stays_broken_ends_in_a_network_error(server: HubServer, client: Client) -> None:
    server.faults.status = {500: 1000}
    with pytest.raises(NetworkError, match=r"the server answers HTTP 500 \(tried 6 times\)") as caught:
        client.fetch()
    assert "it resumes a download" in (caught.value.hint or "")


def test_redirects_in_circles_end(server: HubServer, client: Client) -> None:
    server.faults.loop = True
    with pytest.raises(NetworkError):
        client.fetch()


def test_a_storage_host_that_refuses_its_link_is_asked_through_the_hub_again(server: HubServer, client: Client) -> None:
    server.faults.status = {403: 1}
    assert client.fetch().read_bytes() == DATA
    assert len(server.asked("/resolve/")) == 2


def test_a_file_that_is_listed_but_gone_is_not_found(server: HubServer, client: Client) -> None:
    listing = client.hub.listing("org/m")
    del server.repos["org/m"].files[NAME]
    with pytest.raises(NotFound, match=f"the hub lists org/m/{NAME}, but does not have it"):
        client.hub.fetch(listing, NAME)


def test_a_gated_file_says_where_to_accept(server: HubServer, tmp_path: Path) -> None:
    server.repos["org/m"].gated = True
    with pytest.raises(Gated, match="gated") as caught:
        Client(server, tmp_path, token=None).fetch()
    assert f"accept them at {server.url}/org/m, then run 'hf auth login' or set HF_TOKEN" == caught.value.hint
    assert not list(tmp_path.rglob("*.incomplete"))


def test_the_second_pull_waits_for_the_first_and_fetches_nothing(server: HubServer, client: Client) -> None:
    server.gate = threading.Event()
    hub = replace(client.hub, policy=RetryPolicy(stall_seconds=30))
    listing = hub.listing("org/m")
    threads = [threading.Thread(target=hub.fetch, args=(listing, NAME, client.events.append)) for _ in range(2)]
    for thread in threads:
        thread.start()
    while "another program downloads this file" not in client.notices:
        time.sleep(0.01)
    server.gate.set()
    for thread in threads:
        thread.join()
    assert client.blob.read_bytes() == DATA
    assert server.served == 300_000


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_does_not_fit(number: int) -> None:
    error = partial.write_error(
        Path("/cache/x"), OSError(number, "No space"), 5 << 20, RemoteFile("m.gguf", 9 << 20, SHA256)
    )
    assert isinstance(error, DoesNotFit)
    assert (
        error.message
        == "/cache: the disk is full or too small for this file after 5.00 MiB of 9.00 MiB of m.gguf (No space)"
    )


def test_a_disk_that_fills_up_keeps_what_came(client: Client) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    listing = client.hub.listing("org/m")
    resource.setrlimit(resource.RLIMIT_FSIZE, (123_456, before[1]))
    try:
        with pytest.raises(DoesNotFit):
            client.hub.fetch(listing, NAME)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert client.partial.data.read_bytes() == DATA[:123_456]
    assert client.fetch().read_bytes() == DATA


def test_a_cache_that_cannot_be_written_is_one_sentence(server: HubServer, tmp_path: Path) -> None:
    (tmp_path / "hub").write_text("a file where the folder should be")
    with pytest.raises(DsrError, match="cannot write to the cache") as caught:
        Client(server, tmp_path).fetch()
    assert caught.value.hint == "set HF_HOME to a folder that you can write to"


def test_a_read_only_cache_that_has_the_file_is_enough(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.fetch()

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("mkdir", "symlink", "replace", "open"):
        monkeypatch.setattr(os, name, refuse)
    assert client.fetch().read_bytes() == DATA


def test_without_symbolic_links_the_file_moves_into_the_snapshot_once(
    server: HubServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EPERM, "A required privilege is not held by the client")

    monkeypatch.setattr(os, "symlink", refuse)
    place = client.fetch()
    assert place.read_bytes() == DATA and not place.is_symlink() and not client.blob.exists()
    client.fetch()
    assert server.served == 300_000


def test_the_waits_a_server_names() -> None:
    wait = lambda headers: (http.busy(429, headers) or SimpleNamespace(wait="none")).wait  # noqa: E731
    assert wait({}) is None
    assert wait({"retry-after": "3"}) == 3.0
    assert wait({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert wait({"retry-after": "soon"}) is None
    assert wait({"ratelimit": '"api";r=0;t=55'}) == 55.0
    assert wait({"ratelimit": '"api";r=12;t=55'}) is None
    assert http.busy(404, {}) is None


def test_patience_starts_anew_when_bytes_come(server: HubServer, client: Client) -> None:
    server.faults.cut_after = [20_000] * 14
    hub = replace(client.hub, policy=replace(client.hub.policy, tries=2))
    assert hub.fetch(hub.listing("org/m"), NAME).read_bytes() == DATA
    assert set(client.slept) == {1.0}


_PULL = """
import sys
from pathlib import Path
from dsr.hub.client import Hub
hub = Hub(sys.argv[1], Path(sys.argv[2]))
hub.fetch(hub.listing("org/big"), "big.gguf")
"""


def test_ten_kills_at_random_moments_lose_nothing(server: HubServer, tmp_path: Path) -> None:
    size = 30_000_000
    data = random.Random(2).randbytes(size)
    server.add("org/big", {"big.gguf": data})
    file = RemoteFile("big.gguf", size, hashlib.sha256(data).hexdigest())
    cache = Hub(server.url, tmp_path).cache("org/big")
    server.bytes_per_second = 4_000_000  # each connection
    chance = random.Random(3)
    kept, several = [], 0
    for _ in range(10):
        process = subprocess.Popen([sys.executable, "-c", _PULL, server.url, str(tmp_path)])
        before, goal = server.served, chance.randint(200_000, 4_000_000)
        while server.served - before < goal and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        paths = cache.partial(file)
        kept.append(cache.cached_bytes(file, COMMIT))
        several += len(missing_of(paths, size)[1]) > 1
        held = paths.data.read_bytes()
        holes = missing_of(paths, size)[1]
        ends = [0, *(end for hole in holes for end in hole)]
        assert all(held[a:b] == data[a:b] for a, b in zip(ends[::2], ends[1::2], strict=False))
    server.bytes_per_second = None
    subprocess.run([sys.executable, "-c", _PULL, server.url, str(tmp_path)], check=True, timeout=60)

    assert cache.blob(file).read_bytes() == data
    assert kept == sorted(kept) and kept[-1] > 1_000_000 and several
    # What a kill loses is what was on its way: about a socket's buffer of each connection.
    assert server.served < size + 10 * 3_000_000
    assert [path.name for path in cache.blob(file).parent.iterdir()] == [file.digest]


def test_a_kill_before_the_link_is_found_and_repaired(
    server: HubServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes have their final name and no link leads to them: nothing is lost, hidden or fetched again."""
    monkeypatch.setenv("HF_HUB_CACHE", str(client.hub.cache_folder))
    client.fetch().unlink()
    (left,) = incomplete()
    assert (left.reference, left.size, left.problem) == ("org/m:incomplete", 300_000, "its download is not complete")
    assert plan_removal(left).freed == 300_000
    served = server.served
    assert client.fetch().read_bytes() == DATA and server.served == served
    assert incomplete() == []


def test_a_link_to_something_else_is_replaced_without_a_trace(client: Client) -> None:
    place = client.fetch()
    place.unlink()
    place.symlink_to("nowhere")
    assert client.fetch().read_bytes() == DATA
    assert [entry.name for entry in place.parent.iterdir()] == [NAME]


def test_a_password_in_the_endpoint_is_never_shown(server: HubServer, client: Client) -> None:
    server.faults.api_garbage = 1
    hub = replace(client.hub, endpoint=server.url.replace("//", "//me:secret@"))
    with pytest.raises(VerificationFailed) as caught:
        hub.listing("org/m")
    said = f"{caught.value.message} {caught.value.hint}"
    assert "127.0.0.1" in said and "secret" not in said
