from __future__ import annotations

import socket
from pathlib import Path

import pytest

from dsr.serve.duration import keep_alive_seconds, limit_seconds
from dsr.serve.listen import Address, check_access, check_certificate, sockets_of
from runtime.base.errors import DsrError, UsageError


def test_only_programs_of_this_machine_need_no_key() -> None:
    check_access(Address("127.0.0.1"), "", no_auth=False)
    check_access(Address("::1"), "", no_auth=True)
    check_access(Address("0.0.0.0"), "key", no_auth=False)
    check_access(Address("0.0.0.0"), "", no_auth=True)
    for host in ("0.0.0.0", "::", "", "192.168.1.20", "models.lan"):
        with pytest.raises(UsageError, match="needs a key"):
            check_access(Address(host), "", no_auth=False)
    with pytest.raises(UsageError, match="contradict"):
        check_access(Address("0.0.0.0"), "key", no_auth=True)
    for key in (" key", "ke\ny", "kéy"):
        with pytest.raises(UsageError, match="printable ASCII"):
            check_access(Address(), key, no_auth=False)


def test_addresses_as_people_type_them() -> None:
    assert Address("0.0.0.0").url(80) == "http://127.0.0.1:80"
    assert Address("::").url(80) == "http://[::1]:80"
    assert Address("models.lan").url(11500) == "http://models.lan:11500"


def test_a_free_port_is_found_and_a_taken_one_is_told() -> None:
    (first, *others) = sockets_of(Address(port=0))
    port = first.getsockname()[1]
    assert port > 0 and not others
    with pytest.raises(DsrError, match=f"port {port} of 127.0.0.1 is taken") as told:
        sockets_of(Address(port=port))
    assert told.value.hint == "choose another one: --port 0 finds one"
    first.close()
    again = sockets_of(Address(port=port))
    for each in again:
        each.close()


def test_all_addresses_of_a_name_share_one_port() -> None:
    made = sockets_of(Address("localhost", 0))
    assert len({each.getsockname()[1] for each in made}) == 1
    for each in made:
        each.close()


def test_an_address_of_another_machine_is_told() -> None:
    with pytest.raises(DsrError, match=r"192\.0\.2\.1 is no address of this machine"):  # RFC 5737: nobody has it
        sockets_of(Address("192.0.2.1", 0))


def test_a_system_that_forbids_a_port_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(DsrError, match=r"does not let you listen on 127\.0\.0\.1:80") as told:
        sockets_of(Address(port=80))
    assert told.value.hint == "choose a --port of 1024 or more"


def test_a_key_alone_is_no_certificate() -> None:
    with pytest.raises(UsageError, match="--tls-key needs --tls-cert"):
        check_certificate(Address(key=Path("key.pem")))
    with pytest.raises(DsrError, match=r"there is no file nowhere\.pem"):
        check_certificate(Address(certificate=Path("nowhere.pem")))


def test_times() -> None:
    assert [keep_alive_seconds(text) for text in ("10m", "1.5h", "30s", "0", "1h30m", "-1", "never", " 90 ")] == [
        600, 5400, 30, 0, 5400, None, None, 90,
    ]  # fmt: skip
    assert (limit_seconds(None), limit_seconds("500ms")) == (None, 0.5)
    for text in ("", "soon", "-2", "1d", "10 m", "10m5", "٣m"):
        with pytest.raises(UsageError, match="is no time"):
            keep_alive_seconds(text)
    with pytest.raises(UsageError, match="would end every answer"):
        limit_seconds("0")
