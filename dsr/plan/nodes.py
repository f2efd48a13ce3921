"""The nodes a user names, as part of what is planned for."""

from __future__ import annotations

from dsr.loading import nodes
from runtime.base.errors import NotFound
from runtime.machine.machine import Machine


def with_nodes(home: Machine, text: str) -> Machine:
    """This machine and the nodes that `text` names, as they are now. Raises what a node that cannot be used raises."""
    entries = nodes.named(text)
    found = []
    for each in nodes.seen(entries):
        if each.node is None:
            raise each.problem or NotFound(f"{each.entry.address} does not answer")
        found.append(each.node)
    return nodes.together(home, nodes.within_limits(found, entries), {entry.address: entry for entry in entries})
