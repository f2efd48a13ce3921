from __future__ import annotations

import pytest

from dsr.serve.http.access import Access, is_loopback
from dsr.serve.http.errors import Refused


def status(access: Access, path: str = "/v1/models", *, preflight: bool = False, **headers: str) -> int:
    """200, or why it is refused."""
    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    try:
        access.check(path, given, preflight=preflight)
    except Refused as error:
        return error.fault.status
    return 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:11500", 200),
        ("localhost", 200),
        ("LOCALHOST:11500", 200),
        ("localhost.", 200),
        ("127.8.9.10", 200),
        ("[::1]:11500", 200),
        ("evil.example", 403),
        ("evil.example:11500", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("192.168.1.20", 403),
        ("", 400),
        ("127.0.0.1/@evil.example", 400),
        ("evil@127.0.0.1", 400),
        ("127.0.0.1:99999999", 400),
        ("[::1", 400),
    ],
)
def test_on_loopback_only_names_of_this_machine_are_hosts(host: str, expected: int) -> None:
    assert status(Access(), host=host) == expected


def test_a_request_has_exactly_one_host() -> None:
    assert status(Access()) == 400
    with pytest.raises(Refused, match="one Host header, not 2"):
        Access().check("/", [(b"host", b"localhost"), (b"Host", b"evil.example")])


def test_other_names_and_addresses_are_added() -> None:
    access = Access(host="127.0.0.1", hosts=("Models.lan",))
    assert status(access, host="models.lan:11500") == 200
    everywhere = Access(host="0.0.0.0")
    assert (status(everywhere, host="192.168.1.20"), status(everywhere, host="evil.example")) == (200, 403)
    assert status(Access(host="models.lan"), host="models.lan") == 200


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://localhost:11500", 200),
        ("https://localhost:11500", 200),
        ("http://localhost:3000", 403),
        ("http://localhost", 403),
        ("https://evil.example", 403),
        ("null", 403),
        ("file://", 403),
        ("https://chat.example", 200),
        ("https://chat.example.evil.example", 403),
    ],
)
def test_pages_of_other_origins_are_refused_unless_listed(origin: str, expected: int) -> None:
    access = Access(origins=("https://chat.example",))
    assert status(access, host="localhost:11500", origin=origin) == expected
    shared = access.shared_with([(b"origin", origin.encode())])
    assert shared == ("https://chat.example" if origin == "https://chat.example" else None)


def test_a_star_allows_every_origin() -> None:
    assert status(Access(origins=("*",)), host="localhost", origin="https://any.example") == 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"authorization": "Bearer secret"}, 200),
        ({"authorization": "bearer secret"}, 200),
        ({"x_api_key": "secret"}, 200),
        ({"authorization": "Bearer wrong", "x_api_key": "secret"}, 200),
        ({}, 401),
        ({"authorization": "secret"}, 401),
        ({"authorization": "Basic secret"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "Bearer secretsecret"}, 401),
        ({"x_api_key": "sécret"}, 401),
        ({"x_api_key": "secre\u0442"}, 401),
    ],
)
def test_a_key_is_asked_for(headers: dict[str, str], expected: int) -> None:
    assert status(Access(key="secret"), host="localhost", **headers) == expected


def test_the_page_and_the_health_need_no_key() -> None:
    access = Access(key="secret")
    for path in ("/", "/page/app.js", "/health"):
        assert status(access, path, host="localhost") == 200
    for path in ("/v1/models", "/metrics", "/pages", "/health/x", "//"):
        assert status(access, path, host="localhost") == 401


def test_a_preflight_needs_no_key_but_a_listed_origin() -> None:
    access = Access(key="secret", origins=("https://chat.example",))
    assert status(access, preflight=True, host="localhost", origin="https://chat.example") == 200
    assert status(access, preflight=True, host="localhost", origin="https://evil.example") == 403


def test_a_key_is_not_shown() -> None:
    assert "secret" not in repr(Access(key="secret"))


def test_loopback() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "", "10.0.0.1")] == [
        True, True, True, False, False, False, False,
    ]  # fmt: skip
