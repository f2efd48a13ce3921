from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.base.errors import Incompatible, NetworkError, UsageError
from runtime.base.types import ByteCount
from runtime.nodes import addresses, client
from runtime.nodes.addresses import Address, NodeEntry
from runtime.nodes.server import free_port
from tests import node_servers


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.168.1.20:50052", "192.168.1.20", 50052),
        (" attic ", "attic", 50052),
        ("kitchen.local:1", "kitchen.local", 1),
    ],
)
def test_an_address_is_a_host_and_a_port(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)


@pytest.mark.parametrize(
    "text", ["", ":50052", "attic:", "attic:0", "attic:65536", "attic:-1", "attic:1e3", "attic:١", "a b", "a/b", "ä"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Address.parse(text)


@pytest.mark.parametrize("text", ["[::1]:50052", "::1", "fe80::1:50052", "[fe80::1]"])
def test_an_ipv6_address_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(UsageError, match="need an IPv4 address"):
        Address.parse(text)


@given(st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True), st.integers(1, 65535))
def test_an_address_reads_back_what_it_prints(host: str, port: int) -> None:
    assert Address.parse(str(Address(host, port))) == Address(host, port)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    try:
        address = Address.parse(text)
    except UsageError:
        return
    assert address.host.isascii() and 0 < address.port < 65536


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.0.9", "169.254.1.1", "100.64.0.1"]
)
def test_private_addresses_may_be_used(host: str) -> None:
    addresses.check_private(host)


@pytest.mark.parametrize("host", ["8.8.8.8", "172.32.0.1", "100.63.255.255", "192.169.0.1", "1.1.1.1"])
def test_a_public_address_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match="public address"):
        addresses.check_private(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "0.1.2.3"])
def test_listening_on_every_network_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match="all networks"):
        addresses.check_private(host)


def test_why_ipv6_is_refused_is_said_where_a_worker_would_listen_too() -> None:
    with pytest.raises(UsageError, match="::1 is not an IPv4 address: nodes need an IPv4 address") as caught:
        addresses.check_private("::1")
    assert caught.value.hint == "use the machine's IPv4 address"


@pytest.mark.parametrize("host", ["attic", "127.1", "::1", ""])
def test_only_a_number_can_be_private(host: str) -> None:
    with pytest.raises(UsageError, match="is not an IPv4 address"):
        addresses.check_private(host)


def test_a_name_is_resolved_to_its_number() -> None:
    assert Address("localhost", 9).resolved() == Address("127.0.0.1", 9)


def test_a_name_that_nobody_has_is_an_error_of_the_network() -> None:
    with pytest.raises(NetworkError, match=r"node no-such-host\.invalid:9: there is no such host"):
        Address("no-such-host.invalid", 9).resolved()


def test_a_list_names_each_node_once() -> None:
    assert addresses.parse_list("a:1, b:2,") == (NodeEntry(Address("a", 1)), NodeEntry(Address("b", 2)))
    with pytest.raises(UsageError, match="a:1 is named twice"):
        addresses.parse_list("a:1,b,a:1")
    with pytest.raises(UsageError, match="no node was named"):
        addresses.parse_list(" , ")
    with pytest.raises(UsageError, match="17 nodes"):
        addresses.parse_list(",".join(f"a:{port}" for port in range(1, 18)))


def test_a_list_may_say_how_many_layers_go_where() -> None:
    assert addresses.parse_list("a=3,b:2=1") == (NodeEntry(Address("a", 50052), 3), NodeEntry(Address("b", 2), 1))


@pytest.mark.parametrize("text", ["a=", "a=0", "a=-1", "a=1.5", "a=x", "=3", "a=1,b"])
def test_a_list_with_a_wrong_number_of_layers_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        addresses.parse_list(text)


def test_a_file_names_nodes_with_limits(tmp_path: Path) -> None:
    file = tmp_path / "nodes.toml"
    file.write_text('[[node]]\naddress = "10.0.0.1"\nmemory = "4GiB"\n[[node]]\naddress = "b:7"\nmachine = "b.json"\n')
    assert addresses.read_file(file) == (
        NodeEntry(Address("10.0.0.1", 50052), memory=ByteCount(4 << 30)),
        NodeEntry(Address("b", 7), machine=tmp_path / "b.json"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[[node",
        "[[node]]\n",
        "node = 1\n",
        "[node]\naddress = 'a'\n",
        "[[node]]\naddress = 1\n",
        "[[node]]\naddress = 'a'\nspeed = 'fast'\n",
        "[[node]]\naddress = 'a'\nmemory = 'much'\n",
        "[[node]]\naddress = 'a'\n[[node]]\naddress = 'a:50052'\n",
        "[[node]]\naddress = 'a'\n[other]\n",
        "[[node]]\naddress = 'a'\nlayers = 0\n",
        "[[node]]\naddress = 'a'\nlayers = true\n",
        "[[node]]\naddress = 'a'\nlayers = 2\n[[node]]\naddress = 'b'\n",
    ],
)
def test_a_file_that_is_wrong_is_a_usage_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "nodes.toml"
    file.write_text(text)
    with pytest.raises(UsageError):
        addresses.read_file(file)


def test_a_worker_tells_its_release_and_its_memory() -> None:
    with node_servers.worker() as (_, address):
        node = client.ask(address, bandwidth=True)
        # Measuring took a buffer, wrote to it, and gave it back: the worker still answers.
        again = client.ask(address)
    assert node.version == (7, 0, 0)
    assert [0 < device.memory_free <= device.memory_total for device in node.devices] == [True]
    assert again.devices == node.devices
    assert node.bandwidth > 0 and again.bandwidth == 0


def test_a_slow_way_is_measured_as_such() -> None:
    with node_servers.worker() as (_, address), node_servers.relay(address, delay=0.02, bytes_per_second=10e6) as slow:
        node = client.ask(slow, bandwidth=True)
    assert node.round_trip >= 0.04
    assert node.bandwidth <= 10e6


def test_where_nobody_listens_is_one_clear_line() -> None:
    address = Address("127.0.0.1", free_port("127.0.0.1"))
    with pytest.raises(NetworkError, match=rf"^node {address}: no server listens at this address$") as caught:
        client.ask(address)
    assert caught.value.hint is not None and "dsr node serve" in caught.value.hint
    assert not client.is_reachable(address)


def test_a_worker_that_does_not_answer_is_not_waited_for_long() -> None:
    with (
        node_servers.listener(node_servers.silent) as address,
        pytest.raises(NetworkError, match=rf"node {address} does not answer within 0.2 s"),
    ):
        client.ask(address, seconds=0.2)


@pytest.mark.parametrize("version", [(6, 0, 0), (8, 0, 0), (7, 1, 0), (7, 0, 1)])
def test_another_release_is_refused(version: tuple[int, int, int]) -> None:
    with (
        node_servers.listener(node_servers.speaking(*version)) as address,
        pytest.raises(Incompatible, match=rf"speaks RPC {'.'.join(map(str, version))}, this engine 7\.0\.0"),
    ):
        client.ask(address)


def test_what_hangs_up_is_no_worker_of_this_release() -> None:
    with (
        node_servers.listener(lambda connection: None) as address,
        pytest.raises((Incompatible, NetworkError), match=rf"node {address} (closed the connection|cannot be reached)"),
    ):
        client.ask(address)


def test_a_web_server_is_no_worker() -> None:
    with (
        node_servers.listener(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as address,
        pytest.raises((Incompatible, NetworkError), match=rf"node {address}"),
    ):
        client.ask(address)
