"""Parses node addresses: a single one, a list, or a nodes.toml. Only private IPv4 networks are allowed."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runtime.base.errors import NetworkError, UsageError
from runtime.base.texts import read_toml
from runtime.base.types import ByteCount

DEFAULT_PORT = 50052  # that of llama.cpp's ggml-rpc-server
MOST_NODES = 16  # GGML_RPC_MAX_SERVERS

UNPROTECTED = (
    "RPC has no password and no encryption: anyone who reaches this address can read the model and your text, "
    "and may take over the node"
)

# Loopback, the private ones of RFC 1918, link-local, and the shared space (RFC 6598) that tunnels use.
_NETWORKS = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10")


@dataclass(frozen=True, slots=True)
class Address:
    """The host name or IPv4 address and the port at which a node listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        return self.host == "localhost" or self.host.startswith("127.")

    @classmethod
    def parse(cls, text: str, port: int = DEFAULT_PORT) -> Address:
        """Parses '192.168.1.20' or 'attic:50052'. Raises UsageError, also for IPv6: the engine's RPC lacks it."""
        text = text.strip()
        host, colon, digits = text.partition(":")
        if text.startswith("[") or digits.count(":") > 0:
            raise UsageError(f"{text}: nodes need an IPv4 address", hint="use the machine's IPv4 address")
        if colon:
            if not (digits.isascii() and digits.isdecimal() and 0 < int(digits[:6]) < 65536):
                raise UsageError(f"{text!r}: the port must be a number from 1 to 65535")
            port = int(digits)
        if not host or not all(c.isascii() and (c.isalnum() or c in "-._") for c in host):
            raise UsageError(f"{text!r} is not the address of a node", hint=f"as in 192.168.1.20:{DEFAULT_PORT}")
        return cls(host, port)

    def resolved(self) -> Address:
        """The same address with the host as an IPv4 address.

        Raises NetworkError for an unknown name, UsageError for a public address."""
        try:
            number = socket.gethostbyname(self.host)
        except OSError as error:
            raise NetworkError(f"node {self}: there is no such host ({error.strerror or error})") from None
        check_private(number)
        return Address(number, self.port)


def check_private(host: str) -> None:
    """Raises UsageError unless `host` is the IPv4 address of a loopback, private or tunnel network."""
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        six = ": nodes need an IPv4 address" if ":" in host else ""
        hint = "use the machine's IPv4 address" if six else None
        raise UsageError(f"{host} is not an IPv4 address{six}", hint=hint) from None
    if not address.packed[0]:
        raise UsageError(
            f"{host} would listen on all networks of this machine, including public ones",
            hint="give the address of one network card, as in --host 192.168.1.20",
        )
    if not any(address in ipaddress.IPv4Network(network) for network in _NETWORKS):
        raise UsageError(
            f"{host} is a public address, and RPC has no password and no encryption",
            hint="use an address of a private network, or a tunnel such as WireGuard or ssh -L",
        )


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """A node as the user describes it.

    `layers` is the number of layers that go there, with the head as one more; None leaves it to the plan. `memory`
    limits the bytes used there. `machine` is a file from `dsr doctor --json` on that node, which gives its speed.
    """

    address: Address
    layers: int | None = None
    memory: ByteCount | None = None
    machine: Path | None = None


def parse_list(text: str) -> tuple[NodeEntry, ...]:
    """Parses 'attic,10.0.0.7:50053' or, with numbers of layers, 'attic=8,10.0.0.7:50053=4'. Raises UsageError."""
    return _checked(_parsed(part) for part in text.split(",") if part.strip())


def _parsed(text: str) -> NodeEntry:
    address, given, layers = text.partition("=")
    if given and not (layers.strip().isascii() and layers.strip().isdecimal() and int(layers.strip()[:6]) > 0):
        raise UsageError(f"{text.strip()!r}: the number of layers must be a whole number above 0")
    return NodeEntry(Address.parse(address), int(layers) if given else None)


def read_file(path: Path) -> tuple[NodeEntry, ...]:
    """The `[[node]]` tables of a nodes.toml. Raises UsageError that names the file and the mistake."""
    table = read_toml(path)
    nodes = table.get("node")
    if table.keys() - {"node"} or not isinstance(nodes, list) or not nodes:
        raise UsageError(f"{path}: may only contain [[node]] tables", hint='[[node]]\naddress = "192.168.1.20:50052"')
    return _checked(_entry(path, each) for each in nodes)


def _entry(path: Path, table: object) -> NodeEntry:
    kinds = {"address": str, "layers": int, "memory": str, "machine": str}
    if not isinstance(table, dict) or any(type(value) is not kinds.get(key) for key, value in table.items()):
        raise UsageError(
            f"{path}: a node has an address (text) and optionally layers (number), memory and machine (texts)"
        )
    if "address" not in table:
        raise UsageError(f"{path}: a node has no address")
    if table.get("layers", 1) < 1:
        raise UsageError(f"{path}: layers must be above 0, not {table['layers']}")
    return NodeEntry(
        Address.parse(table["address"]),
        table.get("layers"),
        ByteCount.parse(table["memory"]) if "memory" in table else None,
        path.parent / table["machine"] if "machine" in table else None,
    )


def _checked(entries: Iterable[NodeEntry]) -> tuple[NodeEntry, ...]:
    found = tuple(entries)
    addresses = [entry.address for entry in found]
    for number, address in enumerate(addresses):
        if address in addresses[:number]:
            raise UsageError(f"node {address} is named twice")
    if len({entry.layers is None for entry in found}) > 1:
        raise UsageError("some nodes have a number of layers and some do not", hint="give it for all nodes or for none")
    if not found:
        raise UsageError("no node was named", hint=f"as in --nodes 192.168.1.20:{DEFAULT_PORT}")
    if len(found) > MOST_NODES:
        raise UsageError(f"{len(found)} nodes were named, and the engine can use at most {MOST_NODES}")
    return found
