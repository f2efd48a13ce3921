"""Tokens per second of dsr's plan on two unequal nodes, against llama.cpp's default split, in interleaved pairs.

    python tests/peers/two_nodes.py MODEL [--pairs N] [--delay SECONDS] [--room SHARE] [--share OF_A_CORE]

Two workers on loopback. The second is behind a relay that adds `--delay` to each piece of data and passes 25 MB/s, and
gets `--share` of a core (`limited.py` says how). This machine is said to have room for `--room` of what the model
needs, so that the rest must go to nodes. Both splits are the ones that `runtime/placement/place.py` gives for what was
measured: the links, this machine's speed, and that of the second worker, under its limit, as `dsr doctor --json` would
tell it there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dsr.loading import machine
from dsr.loading.nodes import machine_with_nodes, split_over_nodes
from runtime.base.types import SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.gguf.reader import ModelCard, read_card
from runtime.llama import OpenOptions
from runtime.machine.machine import Machine, free_for
from runtime.nodes import addresses as nodes
from runtime.nodes import client
from runtime.nodes.supervision import SupervisedBackend
from runtime.placement.memory import need
from runtime.placement.offload import offload
from runtime.placement.place import PlacementRequest, default_split
from runtime.placement.split import layer_order
from tests import node_servers
from tests.peers.common import report
from tests.peers.limited import Limit, limited

CONTEXT, TOKENS = 512, 64


class Unending(SupervisedBackend):
    """A model that never ends its reply, so that both sides decode the same number of tokens."""

    def ends(self, token: int) -> bool:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--delay", type=float, default=0.003)
    parser.add_argument("--room", type=float, default=0.7)
    parser.add_argument("--share", type=float, default=1 / 3)
    options = parser.parse_args()
    card = read_card(options.model)
    room = free_for(int(need(card, CONTEXT).total * options.room))
    measured = machine.measure_this_machine(card)
    home = replace(measured, devices=(replace(measured.devices[0], memory_free=room),), disk_read=0.0)
    with (
        tempfile.TemporaryDirectory() as folder,
        limited(options.share) as limit,
        node_servers.worker() as (_, near),
        node_servers.worker() as (slow, there),
        node_servers.relay(there, delay=options.delay, bytes_per_second=25e6) as far,
    ):
        print(f"  the far worker has {limit.words}")
        limit.add(slow.pid)
        told = Path(folder) / "far.json"
        told.write_text(measured_within(limit, options.model, folder))
        entries = [nodes.NodeEntry(far, machine=told), nodes.NodeEntry(near)]
        found = [client.ask(address, bandwidth=True) for address in (far, near)]
        for node in found:
            print(f"  {node.address}: {1000 * node.round_trip:.2f} ms, {node.bandwidth / 1e6:.0f} MB/s")
        open_with = OpenOptions(context=CONTEXT, threads=1)
        ours = split_over_nodes(card, open_with, home, 1, found, entries)
        theirs = by_default(card, open_with, machine_with_nodes(home, found, {}).usable())
        names = {str(far): "far", str(near): "near"}
        for name, each in (("dsr", ours), ("default", theirs)):
            print(
                f"  {name}: {', '.join(f'{n} layers {names[w]}' for w, n in zip(each.nodes, each.layers, strict=True))}"
            )
        speeds: tuple[list[float], list[float]] = ([], [])
        for _ in range(options.pairs):
            for each, kept in zip((ours, theirs), speeds, strict=True):
                kept.append(tokens_per_second(options.model, each, [near, far]))
    report("two unequal nodes", *speeds, "tokens/s", "default split")


def measured_within(limit: Limit, model: Path, folder: str) -> str:
    """The machine as a process under the limit sees it, in JSON."""
    code = (
        "import json, sys; from pathlib import Path; sys.stdin.readline();"
        "from dsr.loading import machine; from runtime.gguf.reader import read_card;"
        "print(json.dumps(machine.measure_this_machine(read_card(Path(sys.argv[1]))).to_json()))"
    )
    own = {**os.environ, "DSR_HOME": folder}  # figures that are kept are those of another speed
    command = [sys.executable, "-c", code, str(model.absolute())]
    with subprocess.Popen(
        command, cwd=node_servers.ROOT, env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        limit.add(process.pid)
        said, _ = process.communicate("\n", timeout=120)
    return said


def by_default(card: ModelCard, options: OpenOptions, machine: Machine) -> OpenOptions:
    placement = default_split(card, machine, PlacementRequest(CONTEXT))
    how = offload(card, layer_order(machine)[1:], placement.assignments)
    return replace(options, nodes=how.nodes, layers=how.tensor_split, kept=how.overrides)


def tokens_per_second(path: Path, options: OpenOptions, addresses: list[nodes.Address]) -> float:
    used = [address for address in addresses if str(address) in options.nodes]
    with Unending(path, used, lambda found: options) as backend:
        engine = Engine(backend)
        prompt = tuple(backend.tokenize("Tell me a long story about a dragon who lived in the mountains."))
        engine.generate([Request(Prompt(prompt), SamplingParams(temperature=0, max_tokens=4))])
        started = time.perf_counter()
        [completion] = engine.generate([Request(Prompt(prompt), SamplingParams(temperature=0, max_tokens=TOKENS))])
        return len(completion.tokens) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
