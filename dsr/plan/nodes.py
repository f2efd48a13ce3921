"""The user's nodes as part of the machine that is planned for."""

from __future__ import annotations

from dsr.loading import nodes
from runtime.base.errors import NotFound
from runtime.machine.machine import Machine


def add_nodes(home: Machine, text: str) -> Machine:
    """`home` with the nodes that `text` names, as they are now. Raises the error of a node that cannot be used."""
    entries = nodes.parse_nodes(text)
    found = []
    for each in nodes.probe_nodes(entries):
        if each.node is None:
            raise each.problem or NotFound(f"{each.entry.address} does not answer")
        found.append(each.node)
    return nodes.machine_with_nodes(
        home, nodes.within_limits(found, entries), {entry.address: entry for entry in entries}
    )
