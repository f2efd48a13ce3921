from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dsr.cli import app
from dsr.loading import nodes as service
from dsr.loading.options import LoadOptions
from dsr.store import paths
from runtime.base.errors import DoesNotFit, UsageError
from runtime.base.events import ignore
from runtime.base.run import Run
from runtime.base.types import ByteCount
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import read_card
from runtime.llama import OpenOptions
from runtime.machine.machine import Device, Machine, Speed
from runtime.nodes.addresses import Address, NodeEntry
from runtime.nodes.client import Node, NodeDevice
from runtime.nodes.protocol import Command
from runtime.nodes.server import free_port
from runtime.nodes.supervision import Plan
from tests import node_servers

ROOT = Path(__file__).resolve().parents[3]
QUESTION = "What is 347 + 586?"
ANSWER = "The answer is \\boxed{933}.\n"
GIB = 1 << 30


def node(*free: int, port: int = 1) -> Node:
    return Node(Address("10.0.0.1", port), (7, 0, 0), tuple(NodeDevice(each, each) for each in free), 0.001, 1e8)


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stdout, result.stderr


SPEED = Speed(bandwidth=1e10, one={}, many={})
HOME = Machine("here", (Device("CPU", "cpu", 8 * GIB, 8 * GIB, SPEED),), disk_read=1e9)
OPTIONS = OpenOptions(context=512)


@pytest.fixture(scope="session")
def card(nano_path: Path) -> ModelCard:
    return read_card(nano_path)


def test_layers_go_where_they_were_asked_to(card: ModelCard) -> None:
    found = [node(GIB, port=1), node(GIB, GIB, port=2)]
    entries = [NodeEntry(found[0].address, 2), NodeEntry(found[1].address, 3)]
    options = service.split_over_nodes(card, OPTIONS, HOME, 1, found, entries)
    assert (options.nodes, options.layers) == (("10.0.0.1:1", "10.0.0.1:2"), (2, 3, 0))
    # The second is lost: its layers come home.
    alone = service.split_over_nodes(card, OPTIONS, HOME, 1, found[:1], entries)
    assert (alone.nodes, alone.layers) == (("10.0.0.1:1",), (2,))


def test_more_layers_than_there_are_cannot_be_dealt_out(card: ModelCard) -> None:
    with pytest.raises(UsageError, match="--nodes assigns 6 layers, but Nano has only 5 with the output layer"):
        service.split_over_nodes(card, OPTIONS, HOME, 1, [node(GIB)], [NodeEntry(node(GIB).address, 6)])


def test_a_model_that_fits_here_stays_here_where_nodes_only_slow_it_down(card: ModelCard) -> None:
    assert service.split_over_nodes(card, OPTIONS, HOME, 1, [node(8 * GIB)]) == OPTIONS


def test_what_has_no_room_here_goes_to_a_node(card: ModelCard) -> None:
    small = replace(HOME, devices=(replace(HOME.devices[0], memory_free=200 << 20),), disk_read=0.0)
    large = replace(OPTIONS, context=100_000)
    options = service.split_over_nodes(card, large, small, 1, [node(8 * GIB)])
    assert options.nodes == ("10.0.0.1:1",)
    assert sum(options.layers) >= 3
    with pytest.raises(DoesNotFit):
        service.split_over_nodes(card, large, small, 1, [])


def test_a_node_lost_while_loading_shortens_the_context_to_what_fits_without_it(
    nano_path: Path, card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Backend:
        """The only node is lost while the model loads."""

        nodes = ()

        def __init__(self, _: Path, __: object, plan: Plan, **___: object) -> None:
            self.plan, self.whole, self.opened = plan, plan([node(8 * GIB)]), plan([])

    monkeypatch.setattr(service, "SupervisedBackend", Backend)
    small = replace(HOME, devices=(replace(HOME.devices[0], memory_free=102_500_000),))
    pool = service.NodePool((NodeEntry(node().address),), True, ByteCount(8 * GIB))
    pooled = replace(OPTIONS, context=16384, slots=8)

    def opened(asked: LoadOptions) -> Any:
        return pool.backend(nano_path, card, pooled, asked, small, Run(), ignore)

    backend = opened(LoadOptions(slots=8, reply_tokens=4096))
    assert (backend.whole.context, backend.whole.slots) == (8192, 8)  # of 16384 this machine cannot hold its part
    assert (backend.opened.context, backend.opened.slots) == (768, 3)  # as without --nodes
    with pytest.raises(DoesNotFit):
        backend.plan([])  # while an answer is drawn, its cache is not cut
    with pytest.raises(DoesNotFit):
        opened(LoadOptions(context=16384, slots=8))


def test_a_node_that_claims_more_memory_than_it_has_is_not_believed() -> None:
    lying = replace(node(GIB), devices=(NodeDevice(memory_free=1 << 60, memory_total=GIB),))
    [_, device] = service.machine_with_nodes(HOME, [lying], {}).devices
    assert (device.memory_free, device.memory_total) == (GIB, GIB)


def test_the_speed_of_a_node_is_that_of_the_machine_its_entry_names(tmp_path: Path) -> None:
    fast = replace(HOME, devices=(replace(HOME.devices[0], speed=replace(SPEED, bandwidth=5e11)),))
    file = tmp_path / "fast.json"
    file.write_text(json.dumps(fast.to_json()))
    entry = NodeEntry(node(GIB).address, machine=file)
    [_, known] = service.machine_with_nodes(HOME, [node(GIB)], {entry.address: entry}).devices
    [_, unknown] = service.machine_with_nodes(HOME, [node(GIB)], {}).devices
    assert (known.speed.bandwidth, known.speed.assumed) == (5e11, False)
    assert (unknown.speed.bandwidth, unknown.speed.assumed) == (1e10, True)


def test_a_limit_of_the_file_lowers_what_a_node_says() -> None:
    found = [node(6 * GIB, 6 * GIB, port=1), node(6 * GIB, port=2)]
    entries = [NodeEntry(found[0].address, memory=ByteCount(8 * GIB)), NodeEntry(found[1].address)]
    [limited, other] = service.within_limits(found, entries)
    assert [device.memory_free for device in limited.devices] == [6 * GIB, 2 * GIB]
    assert other == found[1]


def test_nodes_are_named_by_a_list_a_file_or_the_config(tmp_path: Path) -> None:
    assert service.parse_nodes("127.0.0.1:7,localhost:8") == (
        NodeEntry(Address("127.0.0.1", 7)),
        NodeEntry(Address("127.0.0.1", 8)),
    )
    file = tmp_path / "mine.toml"
    file.write_text('[[node]]\naddress = "127.0.0.1:9"\n')
    assert service.parse_nodes(str(file)) == (NodeEntry(Address("127.0.0.1", 9)),)
    with pytest.raises(UsageError, match="no nodes are named"):
        service.parse_nodes(None)
    paths.nodes_file().parent.mkdir(parents=True)
    paths.nodes_file().write_text(file.read_text())
    assert service.parse_nodes(None) == (NodeEntry(Address("127.0.0.1", 9)),)


def test_what_rpc_does_not_protect_is_said_where_text_leaves_the_machine() -> None:
    assert service.network_warning([NodeEntry(Address("127.0.0.1", 7))]) is None
    said = service.network_warning([NodeEntry(Address("127.0.0.1", 7)), NodeEntry(Address("10.0.0.1", 7))])
    assert said is not None and "no encryption" in said


def test_the_list_shows_who_lends_and_who_does_not_answer() -> None:
    nobody = f"127.0.0.1:{free_port('127.0.0.1')}"
    with node_servers.worker() as (_, address):
        code, out, err = run("node", "list", "--nodes", f"{address},{nobody}")
        body = json.loads(run("node", "list", "--nodes", f"{address},{nobody}", "--json")[1])
        alone = run("node", "list", "--nodes", str(address))
    assert code == 6
    header, row = out.splitlines()
    assert header.split() == ["NODE", "FREE", "DEVICES", "ROUND", "TRIP", "LINK"]
    assert row.startswith(f"{address}  ") and row.endswith("/s")
    assert f"node {nobody}: no server listens at this address" in err
    assert "1 of 2 nodes cannot be used" in err
    assert body["schema"] == "dsr.node.list/1"
    [first, second] = body["nodes"]
    assert first["rpc"] == "7.0.0" and first["problem"] is None and first["memory_free"] > 0
    assert second["rpc"] is None and second["problem"] == f"node {nobody}: no server listens at this address"
    assert alone[0] == 0


@pytest.mark.parametrize(
    ("named", "code", "said"),
    [
        ("8.8.8.8", 2, "public address"),
        ("[::1]:1", 2, "IPv4 address"),
        ("a:b", 2, "port"),
        ("no.invalid", 6, "no such"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_line(named: str, code: int, said: str) -> None:
    assert run("node", "list", "--nodes", named)[0] == code
    got, out, err = run("chat", "--no-log", "--nodes", named, QUESTION)
    assert (got, out) == (code, "")
    assert said in err


def test_a_chat_on_two_nodes_answers_as_on_none() -> None:
    with node_servers.worker() as (_, one), node_servers.worker() as (_, other):
        code, out, err = run("chat", "--no-log", "--temp", "0", "--nodes", f"{one}=2,{other}=2", QUESTION)
    assert (code, out) == (0, ANSWER)
    assert f"4 of 5 layers at {one}, {other}\n" in err


def test_a_chat_with_nobody_there_says_so_and_answers_nothing() -> None:
    nobody = f"127.0.0.1:{free_port('127.0.0.1')}"
    code, out, err = run("chat", "--no-log", "--nodes", nobody, QUESTION)
    assert (code, out) == (6, "")
    assert f"error: node {nobody}: no server listens at this address" in err


def test_with_retry_a_chat_goes_on_without_the_node_that_is_not_there() -> None:
    nobody = f"127.0.0.1:{free_port('127.0.0.1')}"
    code, out, err = run("chat", "--no-log", "--temp", "0", "--retry", "--nodes", nobody, QUESTION)
    assert (code, out) == (0, ANSWER)
    assert f"node {nobody}: no server listens at this address; continuing without this node" in err


@pytest.mark.parametrize("host", ["8.8.8.8", "0.0.0.0", "::1", "attic"])
def test_serving_is_refused_outside_of_private_networks(host: str) -> None:
    code, out, err = run("node", "serve", "--host", host)
    assert (code, out) == (2, "")
    assert host in err


def test_serving_tells_its_address_and_ends_with_ctrl_c() -> None:
    command = [sys.executable, "-m", "dsr", "node", "serve", "--port", "0", "--threads", "1", "--memory", "64MiB"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            address = process.stdout.readline().strip()
            body = json.loads(run("node", "list", "--nodes", address, "--json")[1])
            assert body["nodes"][0]["devices"][0]["memory_total"] == 64 << 20
            process.send_signal(signal.SIGINT)
            assert process.wait() == 130
            lends = "lends at most 64.0 MiB and 1 thread until Ctrl-C"
            told = process.stderr.read().splitlines()
            assert told[:2] == [f"ready at {address}", lends]
            assert told[2].startswith("127.0.0.1 came and uses ")  # the list measures the link with a buffer
            assert told[-2].startswith("127.0.0.1 left after ")
            assert told[-1] == "stopped"
        finally:
            process.kill()


def test_json_of_an_answer_whose_node_fails_is_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["chat", "--json", "--no-log", "--threads", "1", "--temp", "0", QUESTION]
    with (
        node_servers.worker() as (_, behind),
        node_servers.faulty(behind, Command.ALLOC_BUFFER, node_servers.says_zeros) as bad,
    ):
        alone = CliRunner().invoke(app, [*words, "--nodes", f"{bad}=2"])
        assert (alone.exit_code, json.loads(alone.stdout)["exit_code"]) == (6, 6)
        first, second = alone.stderr.splitlines()[-2:]
        assert first.startswith(f"error: node {bad} has no ") and first.endswith(" of memory left")
        assert second == "hint: --retry goes on without it"
        retried = CliRunner().invoke(app, [*words, "--retry", "--nodes", f"{bad}=2"])
        assert retried.exit_code == 0
        assert json.loads(retried.stdout)["answer"] == ANSWER.strip()


def test_a_cache_that_cannot_be_written_is_one_line_before_anything_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_bytes(b"")
    monkeypatch.setenv("DSR_HOME", str(tmp_path))
    told = CliRunner().invoke(app, ["node", "serve", "--cache", "--port", "0"])
    assert told.exit_code == 1
    assert told.stderr.startswith(f"error: {tmp_path / 'cache' / 'lent'}: cannot be written: ")
    assert told.stderr.splitlines()[1].startswith("hint: ")
