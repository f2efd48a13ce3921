"""Answers without end, answers that drip, and answers that grow when they are unpacked."""

from __future__ import annotations

import gzip
import io
import json
import time
import zlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from dsr.hub.client import Hub
from dsr.hub.http import RetryPolicy
from dsr.hub.limits import LEAST_RATE, Meter, NotUnderstood, TooSlow
from runtime.base.errors import DsrError, NetworkError, NotFound
from tests.dsr.hub.wire import Answer, wire

COMMIT = "a" * 40
OK = b"HTTP/1.1 200 OK\r\n"


def listing_of(size: int = 9) -> bytes:
    lfs = {"sha256": "0" * 64, "size": size, "pointerSize": 9}
    body = json.dumps(
        {"id": "org/m", "sha": COMMIT, "siblings": [{"rfilename": "m.gguf", "size": size, "lfs": lfs}]}
    ).encode()
    return OK + b"Content-Length: %d\r\n\r\n" % len(body) + body


def hub_at(address: str, folder: Path, seconds: float = 5.0) -> Hub:
    return Hub(address, folder, policy=RetryPolicy(seconds, tries=2, sleep=lambda _: None))


def error_of(answer: Answer, folder: Path, seconds: float = 5.0) -> DsrError:
    """The error of a listing from a server that answers like this."""
    with wire(answer) as address, pytest.raises(DsrError) as caught:
        hub_at(address, folder, seconds).listing("org/m")
    assert "\n" not in caught.value.message and len(caught.value.message) < 300
    return caught.value


def endless(head: bytes, piece: bytes) -> Answer:
    def answer(request: bytes) -> Iterator[bytes]:
        yield head
        while True:
            yield piece

    return answer


def dripping(head: bytes, piece: bytes = b" ") -> Answer:
    def answer(request: bytes) -> Iterator[bytes]:
        yield head
        while True:
            time.sleep(0.05)
            yield piece

    return answer


def bomb(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([packer.compress(bytes(1 << 20)) for _ in range(megabytes)] + [packer.flush()])


def test_a_body_without_end_is_given_up(tmp_path: Path) -> None:
    said = error_of(endless(OK + b"\r\n", b" " * 65536), tmp_path).message
    assert said == "the hub's answer is not understood: it is longer than 32.0 MiB"


def test_a_small_body_that_grows_when_it_is_unpacked_is_given_up(tmp_path: Path) -> None:
    packed = bomb(200)
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    assert "longer than 32.0 MiB" in error_of(endless(head, packed), tmp_path).message


def test_a_body_that_is_compressed_twice_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(bomb(10))
    head = OK + b"Content-Encoding: gzip, gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    assert "dsr did not ask for the compression 'gzip, gzip'" in error_of(endless(head, packed), tmp_path).message


def test_a_compressed_body_without_content_is_given_up(tmp_path: Path) -> None:
    """The file name in the header of gzip has no limit, and unpacks to nothing."""
    start = b"\x1f\x8b\x08\x08" + bytes(6)
    head = OK + b"Content-Encoding: gzip\r\n\r\n" + start
    assert "a body without end" in error_of(endless(head, b"x" * 65536), tmp_path).message


def test_the_bodies_of_refusals_and_redirects_are_not_read(tmp_path: Path) -> None:
    said = error_of(endless(b"HTTP/1.1 404 Not Found\r\n\r\n", b"x" * 65536), tmp_path)
    assert isinstance(said, NotFound)

    def answer(request: bytes) -> Iterator[bytes]:
        if b"moved" in request:
            yield listing_of()
            return
        yield b"HTTP/1.1 302 Found\r\nLocation: /moved\r\n\r\n"
        while True:
            yield b"x" * 65536

    with wire(answer) as address:
        assert hub_at(address, tmp_path).listing("org/m").commit == COMMIT


def test_headers_without_end_are_given_up(tmp_path: Path) -> None:
    for piece in (b"X-Header: value\r\n", b"x" * 1000):
        error_of(endless(OK, piece), tmp_path)


def test_interim_answers_without_end_are_given_up(tmp_path: Path) -> None:
    said = error_of(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100), tmp_path).message
    assert said == "the hub's answer is not understood: it sends headers without end"


def test_headers_that_drip_are_given_up(tmp_path: Path) -> None:
    said = error_of(dripping(OK + b"X-Header: "), tmp_path, seconds=0.2).message
    assert said == "org/m: no answer within 0.6 s (tried 2 times)"


def test_a_body_that_drips_is_given_up(tmp_path: Path) -> None:
    said = error_of(dripping(OK + b"\r\n"), tmp_path, seconds=0.2).message
    assert said == "org/m: less than 1.00 KiB a second (tried 2 times)"


def test_a_file_that_drips_is_given_up(tmp_path: Path) -> None:
    drip = dripping(OK + b"Content-Length: 100000\r\n\r\n")

    def answer(request: bytes) -> Iterator[bytes]:
        if b"/api/" in request:
            yield listing_of(100_000)
        else:
            yield from drip(request)

    with wire(answer) as address:
        hub = hub_at(address, tmp_path, seconds=0.2)
        listing = hub.listing("org/m")
        with pytest.raises(NetworkError, match=r"m.gguf: less than 1.00 KiB a second \(tried 2 times\)"):
            hub.fetch(listing, "m.gguf")


def test_a_file_that_comes_a_byte_per_connection_is_given_up(tmp_path: Path) -> None:
    def answer(request: bytes) -> Iterator[bytes]:
        if b"/api/" in request:
            yield listing_of(100_000)
        elif b"Range: bytes=" in request:
            start = int(request.split(b"Range: bytes=")[1].split(b"-")[0])
            yield b"HTTP/1.1 206 Partial\r\nContent-Range: bytes %d-99999/100000\r\n" % start
            yield b"Content-Length: %d\r\n\r\nx" % (100_000 - start)
        else:
            yield OK + b"Content-Length: 100000\r\n\r\nx"

    with wire(answer) as address:
        hub = hub_at(address, tmp_path)
        with pytest.raises(NetworkError, match=r"the connection broke \(tried 2 times\)"):
            hub.fetch(hub.listing("org/m"), "m.gguf")


def test_redirects_without_end_are_given_up(tmp_path: Path) -> None:
    numbers = count()

    def answer(request: bytes) -> Iterator[bytes]:
        yield b"HTTP/1.1 302 Found\r\nLocation: /%d\r\nContent-Length: 0\r\n\r\n" % next(numbers)

    assert error_of(answer, tmp_path).message == "127.0.0.1 redirects more than 10 times"
    assert next(numbers) == 11


@pytest.mark.parametrize("target", ["http://[::1", "http://a\x80b/", "ftp://host/x", "http://" + "a" * 300 + "/", "//"])
def test_a_redirect_to_an_address_that_is_none_is_an_error(tmp_path: Path, target: str) -> None:
    head = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")
    error_of(lambda request: iter([head]), tmp_path)


@pytest.mark.parametrize("stall", [b"", OK, OK + b"Content-Length: 100\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_server_that_falls_silent_is_given_up(tmp_path: Path, stall: bytes) -> None:
    def answer(request: bytes) -> Iterator[bytes]:
        yield stall
        time.sleep(1)

    assert error_of(answer, tmp_path, seconds=0.2).message == "org/m: no data for 0.2 s (tried 2 times)"


def test_a_stalled_tls_handshake_is_given_up(tmp_path: Path) -> None:
    def answer(request: bytes) -> Iterator[bytes]:
        yield b""

    with wire(answer) as address, pytest.raises(NetworkError, match=r"no connection within 0\.2 s"):
        hub_at(address.replace("http:", "https:"), tmp_path, seconds=0.2).listing("org/m")


def test_an_api_that_is_no_hub_is_not_read_twice(tmp_path: Path) -> None:
    asked = []

    def answer(request: bytes) -> Iterator[bytes]:
        asked.append(request)
        yield OK + b"Content-Length: 2\r\n\r\n[]"

    assert isinstance(error_of(answer, tmp_path), NotUnderstood)
    assert len(asked) == 1


def test_cookies_are_neither_kept_nor_sent(tmp_path: Path) -> None:
    asked = []

    def answer(request: bytes) -> Iterator[bytes]:
        asked.append(request)
        if b"/moved" in request:
            yield listing_of()
        else:
            yield b"HTTP/1.1 307 X\r\nSet-Cookie: a=b; Path=/\r\nLocation: /moved\r\nContent-Length: 0\r\n\r\n"

    with wire(answer) as address:
        hub_at(address, tmp_path).listing("org/m")
    assert len(asked) == 2 and not any(b"cookie" in request.lower() for request in asked)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_slow_connection_at_the_least_rate_goes_on() -> None:
    clock = Clock()
    meter = Meter(10, clock)
    meter.body(most=1 << 40)
    for _ in range(1000):
        meter.seconds_left()
        meter.count(LEAST_RATE)
        clock.seconds += 1
    for _ in range(60):
        clock.seconds += 1
        try:
            meter.seconds_left()
        except TooSlow:
            break
    else:
        pytest.fail("a connection that fell silent went on")


def test_a_body_may_have_a_time_limit_of_its_own() -> None:
    clock = Clock()
    meter = Meter(10, clock)
    meter.body(most=1 << 40, seconds=100)
    for _ in range(99):
        assert meter.seconds_left() > 0
        meter.count(1 << 20)
        clock.seconds += 1
    clock.seconds = 100
    with pytest.raises(TooSlow, match="takes too long"):
        meter.seconds_left()


def test_a_body_that_no_one_asked_for_is_short() -> None:
    """What huggingface_hub itself asks for, such as a new token, goes through the same client."""
    from dsr.hub import http

    def answer(request: bytes) -> Iterator[bytes]:
        yield OK + b"\r\n"
        while True:
            yield b"x" * 65536

    with wire(answer) as address, http.new_client(RetryPolicy()) as client, pytest.raises(NotUnderstood):
        client.get(address)


def test_gzip_of_the_api_is_read(tmp_path: Path) -> None:
    body = io.BytesIO()
    with gzip.GzipFile(fileobj=body, mode="wb") as out:
        out.write(listing_of().partition(b"\r\n\r\n")[2])
    packed = body.getvalue()
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    with wire(lambda request: iter([head, packed])) as address:
        assert hub_at(address, tmp_path).listing("org/m").sizes == {"m.gguf": 9}
