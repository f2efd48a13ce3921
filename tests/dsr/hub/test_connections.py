"""Several files over several connections, against a hub that limits, refuses, stalls and changes."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dsr.hub import connections
from dsr.hub.cache import RemoteFile, missing_of
from dsr.hub.client import Hub
from dsr.hub.growth import Growth
from dsr.hub.http import RetryPolicy
from dsr.hub.partial import Partial
from dsr.hub.ranges import LEAST
from runtime.base.errors import NetworkError, VerificationFailed
from runtime.base.events import Event, Notice, Progress
from tests.hub_server import HubServer

BIG = random.Random(5).randbytes(24_000_000)
FILES = {"big.gguf": BIG, **{f"{n}.safetensors": random.Random(n).randbytes(700_000 + n) for n in range(6)}}


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add("org/m", dict(FILES))
        yield hub


@pytest.fixture(autouse=True)
def four_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four connections from the first byte on, as if they had been worth it."""

    class Four(Growth):
        def __init__(self) -> None:
            super().__init__()
            self.limit = 4

        def observe(self, now: float, received: int, busy: int) -> None:
            pass

    monkeypatch.setattr(connections, "Growth", Four)


def hub_of(server: HubServer, folder: Path, **policy: Any) -> Hub:
    return Hub(server.url, folder / "hub", policy=RetryPolicy(**{"stall_seconds": 1.0, "first_pause": 0.0, **policy}))


def pull(hub: Hub, *paths: str) -> list[Event]:
    events: list[Event] = []
    listing = hub.listing("org/m")
    places = hub.fetch_all(listing, paths or list(FILES), events.append)
    assert [place.read_bytes() for place in places] == [FILES[path] for path in paths or FILES]
    blobs = hub.cache("org/m").folder / "blobs"
    assert all(len(path.name) in (40, 64) for path in blobs.iterdir())
    return events


def notices(events: list[Event]) -> str:
    return "\n".join(event.text for event in events if isinstance(event, Notice))


class Counted:
    """How many connections were at the storage host at once, at most."""

    def __init__(self, server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.most = 0
        lock = threading.Lock()
        handler = type(server._storage.RequestHandlerClass.__name__, (server._storage.RequestHandlerClass,), {})
        send = handler._send  # type: ignore[attr-defined]

        def counted(this: Any, body: Any) -> None:
            with lock:
                self.now += 1
                self.most = max(self.most, self.now)
            try:
                send(this, body)
            finally:
                with lock:
                    self.now -= 1

        monkeypatch.setattr(handler, "_send", counted, raising=False)
        server._storage.RequestHandlerClass = handler


def test_one_file_comes_over_several_connections(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(server, monkeypatch)
    server.bytes_per_second = 8_000_000
    pull(hub_of(server, tmp_path), "big.gguf")
    assert 4 <= counted.most <= 6  # the server may not know yet that one has left
    assert len(server.asked("/resolve/")) <= 4  # a signed link is used again


def test_several_files_come_at_once_with_a_bar_for_all(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(server, monkeypatch)
    server.bytes_per_second = 4_000_000
    events = pull(hub_of(server, tmp_path), *list(FILES)[1:])
    assert 1 < counted.most <= 6
    together = [e for e in events if isinstance(e, Progress) and e.item == "all 6 files"]
    assert (together[-1].done, together[-1].total) == (4_200_015, 4_200_015)
    assert server.served == 4_200_015


def test_a_part_that_breaks_is_fetched_by_the_others(server: HubServer, tmp_path: Path) -> None:
    server.bytes_per_second = 8_000_000
    server.faults.cut_after = [1_000_000, 300_000, 100]
    events = pull(hub_of(server, tmp_path), "big.gguf")
    assert notices(events) == ""
    assert server.served < len(BIG) + 3 * LEAST


def test_a_connection_that_stalls_holds_nothing_up(server: HubServer, tmp_path: Path) -> None:
    server.bytes_per_second = 8_000_000
    server.faults.stall_after = [500_000]
    pull(hub_of(server, tmp_path), "big.gguf")


def test_a_server_that_refuses_some_gets_fewer(server: HubServer, tmp_path: Path) -> None:
    server.bytes_per_second = 8_000_000
    server.faults.status = {429: 3}
    server.faults.retry_after = "1"
    pull(hub_of(server, tmp_path, sleep=lambda _: None), "big.gguf")


def test_a_server_without_ranges_sends_the_file_once(server: HubServer, tmp_path: Path) -> None:
    server.faults.ignore_range = 1000
    events = pull(hub_of(server, tmp_path), "big.gguf")
    assert server.served == len(BIG)
    assert notices(events) == ""


def test_wrong_ranges_end_in_one_request_for_the_whole_file(server: HubServer, tmp_path: Path) -> None:
    server.faults.wrong_range = 1000
    pull(hub_of(server, tmp_path), "big.gguf")
    assert server.requests[-1].range is None


def test_links_that_expire_on_the_way_are_renewed(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.bytes_per_second = 8_000_000
    taken, take = [], Partial.take

    def taking(self: Partial, most: int, *, steal: bool = False) -> object:
        taken.append(most)
        if len(taken) % 3 == 0:
            server.signatures.clear()
        return take(self, most, steal=steal)

    monkeypatch.setattr(Partial, "take", taking)
    assert notices(pull(hub_of(server, tmp_path), "big.gguf")) == ""
    assert len(server.asked("/resolve/")) > 1


def test_a_file_that_changes_on_the_way_is_not_mixed(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.bytes_per_second = 8_000_000
    hub = hub_of(server, tmp_path)
    listing = hub.listing("org/m")
    append, other = Partial.append, BIG[::-1]

    def changing(self: Partial, part: Any, data: bytes) -> int:
        if self.received > 6_000_000:
            server.repos["org/m"].files["big.gguf"] = other
        return append(self, part, data)

    monkeypatch.setattr(Partial, "append", changing)
    with pytest.raises(VerificationFailed, match=r"big.gguf: .*changed on the server|its SHA-256 is"):
        hub.fetch_all(listing, ["big.gguf"])
    assert not hub.cache("org/m").blob(listing.file("big.gguf")).exists()


def test_an_error_of_one_file_ends_all_and_keeps_what_came(server: HubServer, tmp_path: Path) -> None:
    server.bytes_per_second = 8_000_000
    hub = hub_of(server, tmp_path, tries=2)
    listing = hub.listing("org/m")
    server.faults.status = {500: 1000}
    with pytest.raises(NetworkError, match=r"big.gguf: the server answers HTTP 500 \(tried 2 times\)"):
        hub.fetch_all(listing, list(FILES))
    server.faults.status = {}
    pull(hub)


def test_ctrl_c_ends_at_once_and_the_next_pull_goes_on(server: HubServer, tmp_path: Path) -> None:
    server.bytes_per_second = 1_000_000
    hub = hub_of(server, tmp_path)
    listing = hub.listing("org/m")
    file = listing.file("big.gguf")

    def interrupt(event: Event) -> None:
        if isinstance(event, Progress) and event.done > 2_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hub.fetch_all(listing, ["big.gguf"], interrupt)
    here = hub.cache("org/m").cached_bytes(file, listing.commit)
    holes = missing_of(hub.cache("org/m").partial(file), file.size)[1]
    assert here > 2_000_000 and len(holes) > 1
    server.bytes_per_second = None
    time.sleep(0.1)  # threads of the first pull store nothing more
    assert hub.cache("org/m").cached_bytes(file, listing.commit) == here
    before = len(server.ranges())
    pull(hub, "big.gguf")
    starts = [int(text.removeprefix("bytes=").split("-")[0]) for text in server.ranges()[before:]]
    assert all(any(start <= at < stop for start, stop in holes) for at in starts)


def test_two_paths_with_one_content_come_once(server: HubServer, tmp_path: Path) -> None:
    server.repos["org/m"].files["copy.gguf"] = BIG
    hub = hub_of(server, tmp_path)
    one, two = hub.fetch_all(hub.listing("org/m"), ["big.gguf", "copy.gguf"])
    assert one.resolve() == two.resolve() and server.served == len(BIG)


def test_records_say_what_is_missing_and_an_older_file_is_taken_over(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3_000_000)
    file = RemoteFile("m.gguf", len(data), hashlib.sha256(data).hexdigest())
    paths = Hub("http://x", tmp_path).cache("org/m").partial(file)
    paths.plain.parent.mkdir(parents=True)
    paths.plain.write_bytes(data[:1_000_000])
    assert missing_of(paths, file.size)[1] == [(1_000_000, 3_000_000)]
    out = Partial(paths, file)
    assert not paths.plain.exists() and out.received == 1_000_000
    first, second = out.take(500_000), out.take(500_000)
    assert first and second
    out.append(second, data[1_500_000:1_700_000])
    out.close()
    assert missing_of(paths, file.size)[1] == [(1_000_000, 1_500_000), (1_700_000, 3_000_000)]
    again = Partial(paths, file)
    while (part := again.take(700_000)) is not None:
        again.append(part, data[part.at : part.stop])
        again.end(part)
    while again.verify_more():
        pass
    assert again.digest() == file.digest
    again.finish()
    assert paths.data.read_bytes() == data and not paths.records.exists()
    assert missing_of(paths, file.size)[1] == []  # killed before the file got its name


def test_a_shorter_file_than_its_records_say_counts_for_nothing(tmp_path: Path) -> None:
    file = RemoteFile("m.gguf", 3_000_000, "0" * 64)
    paths = Hub("http://x", tmp_path).cache("org/m").partial(file)
    out = Partial(paths, file)
    part = out.take(2_000_000)
    assert part
    out.append(part, bytes(1_500_000))
    out.close()
    assert missing_of(paths, file.size)[1] == [(1_500_000, 3_000_000)]
    paths.data.write_bytes(bytes(1_000_000))
    assert missing_of(paths, file.size)[1] == [(0, 3_000_000)]
