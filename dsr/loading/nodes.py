"""Nodes: parses the user's list, asks each node for its memory, and splits a model's layers over them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsr.loading.context import SHORTEST_CONTEXT, context_for_machine, slots_for
from dsr.loading.machine import read_machine
from dsr.loading.options import LoadOptions
from dsr.loading.place import apply_placement, describe_layers, find_placement, placement_request, samples_together
from dsr.store import paths
from runtime.base.errors import DoesNotFit, DsrError, UsageError
from runtime.base.events import Listener, Notice
from runtime.base.run import Run
from runtime.base.types import ByteCount
from runtime.gguf.card import ModelCard, layer_count
from runtime.machine.machine import Device, Link, Machine, Speed
from runtime.nodes import addresses as nodes
from runtime.nodes import client
from runtime.nodes.addresses import Address, NodeEntry
from runtime.nodes.client import Node
from runtime.nodes.supervision import SupervisedBackend

if TYPE_CHECKING:
    from runtime.llama import OpenOptions


def parse_nodes(text: str | None) -> tuple[NodeEntry, ...]:
    """The nodes of "host:port,..." or of a nodes.toml; for None those of the user's own nodes.toml.

    Raises UsageError, NetworkError for an unknown name.
    """
    if text is None:
        file = paths.nodes_file()
        if not file.exists():
            raise UsageError(
                "no nodes are named", hint=f"name them with --nodes host:port,... or as [[node]] tables in {file}"
            )
        entries = nodes.read_file(file)
    elif text.endswith(".toml") or os.path.isfile(text):
        entries = nodes.read_file(Path(text))
    else:
        entries = nodes.parse_list(text)
    return tuple(replace(entry, address=entry.address.resolved()) for entry in entries)


def network_warning(entries: Sequence[NodeEntry]) -> str | None:
    """A warning that RPC is not encrypted; None if all nodes are on this machine."""
    return None if all(entry.address.is_loopback for entry in entries) else nodes.UNPROTECTED


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The answer of a node, or the problem with it."""

    entry: NodeEntry
    node: Node | None
    problem: DsrError | None = None

    def json(self) -> dict[str, Any]:
        node = self.node
        return {
            "address": str(self.entry.address),
            "problem": self.problem.message if self.problem else None,
            "rpc": ".".join(map(str, node.version)) if node else None,
            "memory_free": int(node.memory_free) if node else None,
            "memory_limit": self.entry.memory,
            "devices": [
                {"memory_free": each.memory_free, "memory_total": each.memory_total}
                for each in (node.devices if node else ())
            ],
            "round_trip_seconds": node.round_trip if node else None,
            "bytes_per_second": round(node.bandwidth) if node else None,
        }


def probe_nodes(entries: Sequence[NodeEntry]) -> tuple[NodeStatus, ...]:
    """Ask each node, one after the other, so that links are measured separately."""
    return tuple(_probe_node(entry) for entry in entries)


def _probe_node(entry: NodeEntry) -> NodeStatus:
    try:
        return NodeStatus(entry, client.ask(entry.address, bandwidth=True))
    except DsrError as error:
        return NodeStatus(entry, None, error)


def within_limits(found: Sequence[Node], entries: Sequence[NodeEntry]) -> tuple[Node, ...]:
    """The nodes, with free memory at most the limit of their entry in nodes.toml."""
    limits = {entry.address: entry.memory for entry in entries if entry.memory is not None}
    return tuple(_limited(node, limits.get(node.address)) for node in found)


def _limited(node: Node, limit: int | None) -> Node:
    if limit is None:
        return node
    devices = []
    for device in node.devices:
        free = min(device.memory_free, limit)
        limit -= free
        devices.append(replace(device, memory_free=free))
    return replace(node, devices=tuple(devices))


@dataclass(frozen=True, slots=True)
class NodePool:
    """The nodes that answered and can hold layers of a model."""

    entries: tuple[NodeEntry, ...]
    retry: bool
    memory: ByteCount

    @classmethod
    def connect(cls, entries: Sequence[NodeEntry], retry: bool, listen: Listener) -> NodePool:
        """Ask the nodes. Raises NetworkError or Incompatible for one that cannot be used, unless `retry`."""
        if (warning := network_warning(entries)) is not None:
            listen(Notice(warning))
        found = []
        for entry in entries:
            try:
                found.append(client.ask(entry.address))
            except DsrError as error:
                if not retry:
                    raise
                listen(Notice(f"{error.message}; continuing without this node"))
        answering = {node.address for node in found}
        return cls(
            tuple(entry for entry in entries if entry.address in answering),
            retry,
            ByteCount(sum(node.memory_free for node in within_limits(found, entries))),
        )

    def with_pooled_memory(self, home: Machine) -> Machine:
        """This machine with the memory of the nodes added to its own."""
        cpu, *others = home.devices
        free, total = cpu.memory_free + self.memory, cpu.memory_total + self.memory
        return replace(home, devices=(replace(cpu, memory_free=free, memory_total=total), *others))

    def backend(
        self,
        path: Path,
        card: ModelCard,
        options: OpenOptions,
        asked: LoadOptions,
        home: Machine,
        run: Run,
        report: Listener,
    ) -> SupervisedBackend:
        """Open the model split over the nodes; if a node is lost, open it again without that node.

        `options` are for all nodes of the pool. `report` gets the notices about lost nodes.
        """
        is_open = False

        def plan(found: Sequence[Node]) -> OpenOptions:
            usable = within_limits(found, self.entries)
            if is_open or asked.context is not None:  # later the cache is in use, and must not become shorter
                return split(options, usable)
            fitting = self._fitting(card, options, asked, home, usable)
            while True:
                try:
                    return split(fitting, usable)
                except DoesNotFit:
                    # Together the devices have the room, and still no split has.
                    if fitting.context <= SHORTEST_CONTEXT:
                        raise
                    fitting = _with_context(fitting, max(fitting.context // 2, SHORTEST_CONTEXT), asked)

        def split(options: OpenOptions, usable: Sequence[Node]) -> OpenOptions:
            return split_over_nodes(card, options, home, samples_together(options.slots, asked), usable, self.entries)

        addresses = [entry.address for entry in self.entries]
        backend = SupervisedBackend(path, addresses, plan, retry=self.retry, run=run, report=report)
        is_open = True
        if backend.nodes:
            run.listen(Notice(describe_layers(backend.opened, card)))
        return backend

    def _fitting(
        self, card: ModelCard, options: OpenOptions, asked: LoadOptions, home: Machine, found: Sequence[Node]
    ) -> OpenOptions:
        """`options` with the context that fits where nodes were left out while the model loads."""
        memory = ByteCount(sum(node.memory_free for node in found))
        if memory >= self.memory:
            return options
        less = replace(self, memory=memory).with_pooled_memory(home)
        return _with_context(options, min(options.context, context_for_machine(card, less, asked)), asked)


def _with_context(options: OpenOptions, context: int, asked: LoadOptions) -> OpenOptions:
    return replace(options, context=context, slots=slots_for(context, asked))


def split_over_nodes(
    card: ModelCard,
    options: OpenOptions,
    home: Machine,
    samples: int,
    found: Sequence[Node],
    entries: Sequence[NodeEntry] = (),
) -> OpenOptions:
    """`options` with the layers of each node: the number in its entry, or the fastest split.

    Raises DoesNotFit, and UsageError for more layers than there are.
    """
    known = {entry.address: entry for entry in entries}
    asked = {address: entry.layers for address, entry in known.items() if entry.layers is not None}
    if asked:
        every = layer_count(card) + 1
        if sum(asked.values()) > every:
            raise UsageError(
                f"--nodes assigns {sum(asked.values())} layers, but {card.name} has only {every} with the output layer"
            )
        counts: list[int] = []
        for node in found:
            # MTP layers lie before the output layer. The first device of a node gets all of its layers.
            ahead = card.nextn_layers if node is found[-1] else 0
            counts += [asked[node.address] + ahead, *[0] * (len(node.devices) - 1)]
        nodes = tuple(str(node.address) for node in found)
        return replace(options, nodes=nodes, gpus=() if len(home.devices) > 1 else None, layers=tuple(counts))
    machine = machine_with_nodes(home, found, known)
    request = placement_request(options.context, samples, options.kv_type, options.drafted, kv_full=options.kv_full)
    return apply_placement(options, card, machine, find_placement(card, machine, request, from_disk=True))


def machine_with_nodes(home: Machine, found: Sequence[Node], known: Mapping[Address, NodeEntry]) -> Machine:
    """This machine with the devices of the nodes. A node with unknown speed counts as fast as this machine's CPU."""
    devices, links = [*home.devices], [*home.links]
    for node in found:
        entry = known.get(node.address)
        speeds = _speeds(entry) if entry is not None else ()
        for number, device in enumerate(node.devices):
            devices.append(
                Device(
                    name=f"RPC{number}",
                    kind="cpu",
                    # The answer of a worker may be wrong.
                    memory_free=min(device.memory_free, device.memory_total),
                    memory_total=device.memory_total,
                    speed=speeds[number] if number < len(speeds) else replace(home.devices[0].speed, assumed=True),
                    node=str(node.address),
                )
            )
        links.append(Link(str(node.address), node.round_trip, node.bandwidth))
    return replace(home, devices=tuple(devices), links=tuple(links))


def _speeds(entry: NodeEntry) -> tuple[Speed, ...]:
    """The speeds of the devices that a worker offers: the GPUs of its machine, or the CPU if it has none."""
    if entry.machine is None:
        return ()
    machine = read_machine(entry.machine)
    gpus = tuple(device.speed for device in machine.devices if device.kind == "gpu")
    return gpus or (machine.devices[0].speed,)
