"""The way from the engine to one node: the engine connects to an address of this machine, and the relay to the node.

The engine's own connection would abort or hang its process, and nobody would know which node was at fault.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from runtime.base.types import ByteCount
from runtime.nodes.addresses import Address
from runtime.nodes.wire import Wire

_CONNECT_SECONDS = 5.0


class Relay:
    """Listens on loopback until `close`. `address` is what the engine connects to, `node` where that leads."""

    def __init__(self, node: Address, bandwidth: float = 0.0) -> None:
        """`bandwidth` to the node in bytes per second; 0 if it is not known."""
        self.node = node
        self._seconds_per_byte = 1 / bandwidth if bandwidth else 0.0
        self._wires: list[Wire] = []
        self._unreachable: str | None = None
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = Address("127.0.0.1", self._server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                node = socket.create_connection((self.node.host, self.node.port), _CONNECT_SECONDS)
            except OSError as error:
                self._unreachable = f"cannot be reached: {error.strerror or error}"
                client.close()
                continue
            node.settimeout(None)
            wire = Wire(client, node, seconds_per_byte=self._seconds_per_byte)
            self._wires.append(wire)
            threading.Thread(target=wire.run, daemon=True).start()

    @property
    def fault(self) -> str | None:
        """What the node did wrong: "closed the connection"; None if nothing."""
        return next((wire.node_fault for wire in self._wires if wire.node_fault), self._unreachable)

    @property
    def refused(self) -> ByteCount | None:
        """The size of a buffer that the node could not allocate."""
        return next((wire.refused for wire in self._wires if wire.refused is not None), None)

    @property
    def heard(self) -> float:
        """When the node last answered, by `time.monotonic`."""
        return max((wire.heard for wire in self._wires), default=0.0)

    def silence(self) -> float:
        """Seconds for which the node has owed something; 0 if it owes nothing."""
        return max((wire.silence() for wire in self._wires), default=0.0)

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # ends the accept of the other thread
        self._server.close()
        for wire in self._wires:
            wire.close()
