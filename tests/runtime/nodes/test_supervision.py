"""The embedded model shared out to real workers on loopback, some of which die."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from runtime.base.errors import (
    Aborted,
    DoesNotFit,
    EngineFailed,
    Incompatible,
    NetworkError,
    NodeLost,
    NoRoom,
    UsageError,
)
from runtime.base.events import Event, Interrupted, Notice, Progress, SampleFinished, TextDrawn, ignore
from runtime.base.run import Run, Stop
from runtime.base.types import Completion, SamplingParams
from runtime.engine.backend import Batch, Checkpoint
from runtime.engine.engine import Engine
from runtime.engine.grammar import Grammar
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.llama import LlamaBackend, OpenOptions
from runtime.nodes.addresses import Address
from runtime.nodes.client import Node
from runtime.nodes.engine_process import ChildLost, EngineProcess
from runtime.nodes.protocol import Command
from runtime.nodes.remote_parts import RemoteCheckpoint
from runtime.nodes.server import free_port
from runtime.nodes.silence import SilenceLimits
from runtime.nodes.supervision import SupervisedBackend
from tests import node_servers

TAGS = ThinkingMarkers("<think>", "</think>")
OPTIONS = OpenOptions(context=512, slots=3, visible=TAGS.texts)
GREEDY = SamplingParams(temperature=0, max_tokens=60)
# A node that is stopped must be noticed soon here, and a busy machine must not count as one.
SOON = SilenceLimits(silence=1.5, answer=1.5)


@pytest.fixture
def workers() -> Iterator[Callable[[], tuple[Popen[bytes], Address]]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(node_servers.worker())


def two_layers_each(found: Sequence[Node]) -> OpenOptions:
    return replace(OPTIONS, nodes=tuple(str(node.address) for node in found), layers=(2,) * len(found))


def requests(tokenize: Callable[[str], list[int]], params: SamplingParams = GREEDY) -> list[Request]:
    questions = ("What is 347 + 586?", "Write 'igloo' backwards.")
    texts = (f"<｜begin▁of▁sentence｜><｜User｜>{question}<｜Assistant｜><think>\n" for question in questions)
    return [Request(Prompt(tuple(tokenize(text)), True), params, TAGS, sample) for sample, text in enumerate(texts)]


@pytest.fixture(scope="module")
def expected(nano_path: Path) -> list[tuple[int, ...]]:
    """What one process draws."""
    with LlamaBackend(nano_path, OPTIONS) as backend:
        return [each.tokens for each in Engine(backend).generate(requests(backend.tokenize))]


def supervised(
    path: Path, addresses: Sequence[Address], *, retry: bool = False, reports: list[Event] | None = None
) -> SupervisedBackend:
    report = ignore if reports is None else reports.append
    return SupervisedBackend(path, addresses, two_layers_each, retry=retry, report=report, limits=SOON)


@dataclass
class Drawn:
    completions: list[Completion]
    text: str
    notices: list[str]
    interrupted: Aborted | None

    @property
    def tokens(self) -> list[tuple[int, ...]]:
        return [each.tokens for each in self.completions]


def draw(engine: Engine, wanted: list[Request], disturb: Callable[[], None] | None = None) -> Drawn:
    """Draw, and call `disturb` once, in the middle."""
    finished: dict[int, Completion] = {}
    texts: list[str] = []
    notices: list[str] = []
    interrupted: Aborted | None = None
    for event in engine.stream(wanted):
        if isinstance(event, TextDrawn):
            texts.append(event.text)
            if len(texts) == 20 and disturb is not None:
                disturb()
        elif isinstance(event, SampleFinished):
            finished[event.completion.sample] = event.completion
        elif isinstance(event, Notice):
            notices.append(event.text)
        elif isinstance(event, Interrupted):
            interrupted = event.error
    return Drawn([finished[each.sample] for each in wanted], "".join(texts), notices, interrupted)


def test_two_workers_draw_what_one_process_draws(
    nano_path: Path, expected: list[tuple[int, ...]], workers: Callable[[], tuple[Popen[bytes], Address]]
) -> None:
    heard: list[Event] = []
    addresses = [workers()[1], workers()[1]]
    with SupervisedBackend(
        nano_path, addresses, two_layers_each, run=Run(listen=heard.append), report=heard.append
    ) as backend:
        drawn = draw(Engine(backend), requests(backend.tokenize))
        assert [node.address for node in backend.nodes] == addresses
        assert (backend.slots, backend.context) == (3, 512)
    assert heard and drawn.interrupted is None
    assert not any(isinstance(event, Notice) for event in heard)
    assert drawn.tokens == expected
    assert Progress("loading", "nano.gguf", 100, 100, "percent") in heard


def test_a_tensor_that_is_kept_here_does_not_change_the_text(
    nano_path: Path, expected: list[tuple[int, ...]], workers: Callable[[], tuple[Popen[bytes], Address]]
) -> None:
    _, address = workers()

    def plan(found: Sequence[Node]) -> OpenOptions:
        return replace(two_layers_each(found), kept=("^output", "^token_embd"))

    with SupervisedBackend(nano_path, [address], plan) as backend:
        assert draw(Engine(backend), requests(backend.tokenize)).tokens == expected


def test_layers_for_a_device_that_no_node_has_are_refused(
    nano_path: Path, workers: Callable[[], tuple[Popen[bytes], Address]]
) -> None:
    _, address = workers()
    with pytest.raises(EngineFailed, match="the plan has layers for 2 devices, and 1 can be used"):
        SupervisedBackend(nano_path, [address], lambda found: replace(two_layers_each(found), layers=(1, 1)))


def test_a_worker_that_is_killed_is_survived(
    nano_path: Path, expected: list[tuple[int, ...]], workers: Callable[[], tuple[Popen[bytes], Address]]
) -> None:
    (dying, address), (_, other) = workers(), workers()
    reports: list[Event] = []
    with supervised(nano_path, [address, other], retry=True, reports=reports) as backend:
        drawn = draw(Engine(backend, reports=reports), requests(backend.tokenize), dying.kill)
        # Which of them is noticed first depends on when the connection was made that the kill ended.
        [notice] = drawn.notices
        closed, gone = f"node {address} closed the connection", f"node {address}: no server listens at this address"
        assert notice in [f"{said}; continuing without this node" for said in (closed, gone)]
        assert [node.address for node in backend.nodes] == [other]
    assert drawn.interrupted is None
    assert drawn.tokens == expected
    assert [each.finish_reason for each in drawn.completions] == ["length", "stop"]


def test_without_retry_the_text_so_far_is_kept_and_the_next_answer_is_whole(
    nano_path: Path, expected: list[tuple[int, ...]], workers: Callable[[], tuple[Popen[bytes], Address]]
) -> None:
    dying, address = workers()
    with supervised(nano_path, [address]) as backend:
        engine = Engine(backend)
        wanted = requests(backend.tokenize)
        drawn = draw(engine, wanted, dying.kill)
        assert [each.finish_reason for each in drawn.completions] == ["cancelled", "cancelled"]
        assert all(
            whole[: len(part)] == part and len(part) >= 8 for whole, part in zip(expected, drawn.tokens, strict=True)
        )
        lost = drawn.interrupted
        assert isinstance(lost, NodeLost) and lost.exit_code == 6
        # As above: the kill may be noticed by an old connection or by a new one.
        assert lost.message in (
            f"node {address} closed the connection",
            f"node {address}: no server listens at this address",
        )
        assert lost.hint == "--retry goes on at once; in a conversation, ask again"
        # Nothing is opened anew before somebody asks.
        assert draw(engine, wanted).tokens == expected
        assert backend.nodes == ()


def test_a_worker_that_is_stopped_is_noticed(
    nano_path: Path, expected: list[tuple[int, ...]], workers: Callable[[], tuple[Popen[bytes], Address]]
) -> None:
    stopping, address = workers()
    reports: list[Event] = []
    with supervised(nano_path, [address], retry=True, reports=reports) as backend:
        engine = Engine(backend, reports=reports)
        drawn = draw(engine, requests(backend.tokenize), lambda: os.kill(stopping.pid, signal.SIGSTOP))
        [notice] = drawn.notices
    assert notice.startswith(f"node {address} did not answer for")
    assert drawn.tokens == expected


def test_a_worker_that_dies_and_comes_back_is_used_again(
    nano_path: Path, expected: list[tuple[int, ...]], workers: Callable[[], tuple[Popen[bytes], Address]]
) -> None:
    """The engine was killed and no node: they all answer again."""
    _, address = workers()
    reports: list[Event] = []
    with supervised(nano_path, [address], retry=True, reports=reports) as backend:
        assert backend._child is not None
        drawn = draw(Engine(backend, reports=reports), requests(backend.tokenize), backend._child._child.kill)
        [notice] = drawn.notices
        assert notice.endswith("and all nodes answer again; continuing")
        assert [node.address for node in backend.nodes] == [address]
    assert drawn.tokens == expected


def test_sampling_goes_on_after_a_loss(nano_path: Path, workers: Callable[[], tuple[Popen[bytes], Address]]) -> None:
    dying, address = workers()
    sampled = SamplingParams(temperature=0.8, seed=3, max_tokens=40, statistics=True)
    with supervised(nano_path, [address], retry=True) as backend:
        drawn = draw(Engine(backend), requests(backend.tokenize, sampled), dying.kill)
    assert all(len(each.statistics) == len(each.tokens) > 8 for each in drawn.completions)


@pytest.mark.parametrize("last", [24, -1])
def test_penalties_count_the_whole_text_also_after_a_loss(
    nano_path: Path, workers: Callable[[], tuple[Popen[bytes], Address]], last: int
) -> None:
    penalised = replace(GREEDY, presence_penalty=1.0, repeat_penalty=1.3, penalty_last_n=last)
    with LlamaBackend(nano_path, OPTIONS) as local:
        alone = [each.tokens for each in Engine(local).generate(requests(local.tokenize, penalised))]
        assert alone != [each.tokens for each in Engine(local).generate(requests(local.tokenize))]
    dying, address = workers()
    reports: list[Event] = []
    with supervised(nano_path, [address], retry=True, reports=reports) as backend:
        drawn = draw(Engine(backend, reports=reports), requests(backend.tokenize, penalised), dying.kill)
    assert drawn.notices
    assert drawn.tokens == alone


def test_an_answer_keeps_to_its_grammar_also_after_a_loss(
    nano_path: Path, workers: Callable[[], tuple[Popen[bytes], Address]]
) -> None:
    grammar = Grammar("regex", "it is [0-9]{30}")
    params = replace(GREEDY, think_budget=4, top_logprobs=1)
    with LlamaBackend(nano_path, OPTIONS) as backend:
        wanted = [replace(requests(backend.tokenize, params)[0], grammar=grammar)]
        expected = draw(Engine(backend), wanted)
    assert re.fullmatch(grammar.text, expected.completions[0].answer)
    (dying, address), (_, other) = workers(), workers()
    with supervised(nano_path, [address, other], retry=True) as remote:
        drawn = draw(Engine(remote), wanted, dying.kill)
        assert [node.address for node in remote.nodes] == [other]
        with pytest.raises(UsageError, match="unclosed group"):
            remote.constraint(Grammar("regex", "("))
    assert drawn.tokens == expected.tokens
    assert drawn.completions[0].finish_reason == "stop"


def test_nobody_listening_is_one_line_before_anything_is_loaded(nano_path: Path) -> None:
    address = Address("127.0.0.1", free_port("127.0.0.1"))
    with pytest.raises(NetworkError, match=rf"^node {address}: no server listens at this address$"):
        supervised(nano_path, [address])


def test_with_retry_a_node_that_is_not_there_is_left_out(nano_path: Path, expected: list[tuple[int, ...]]) -> None:
    address = Address("127.0.0.1", free_port("127.0.0.1"))
    heard: list[Event] = []
    run = Run(listen=heard.append)
    with SupervisedBackend(nano_path, [address], two_layers_each, retry=True, run=run) as backend:
        [notice] = [event for event in heard if isinstance(event, Notice)]
        assert notice.text == f"node {address}: no server listens at this address; continuing without this node"
        assert draw(Engine(backend), requests(backend.tokenize)).tokens == expected


def test_another_release_is_refused_before_anything_is_loaded(nano_path: Path) -> None:
    with (
        node_servers.listener(node_servers.speaking(6, 9, 9)) as address,
        pytest.raises(Incompatible, match=r"speaks RPC 6\.9\.9"),
    ):
        supervised(nano_path, [address])


def test_what_does_not_fit_without_the_node_keeps_the_text_too(
    nano_path: Path, workers: Callable[[], tuple[Popen[bytes], Address]]
) -> None:
    dying, address = workers()

    def plan(found: Sequence[Node]) -> OpenOptions:
        if not found:
            raise DoesNotFit("too large for one machine")
        return two_layers_each(found)

    with SupervisedBackend(nano_path, [address], plan, retry=True, limits=SOON) as backend:
        drawn = draw(Engine(backend), requests(backend.tokenize), dying.kill)
        lost = drawn.interrupted
    assert isinstance(lost, NodeLost) and lost.message == f"without node {address}: too large for one machine"
    assert all(each.finish_reason == "cancelled" and each.tokens for each in drawn.completions)


def test_a_wish_to_stop_reaches_the_child_while_it_loads(nano_path: Path) -> None:
    stop = Stop()
    stop.set()
    with pytest.raises(Aborted, match="stopped while loading"):
        EngineProcess(nano_path, OPTIONS, Run(stop), max_silence=60)
    assert not stop.wanted


def test_after_an_interrupt_the_next_answer_is_whole(
    nano_path: Path,
    expected: list[tuple[int, ...]],
    workers: Callable[[], tuple[Popen[bytes], Address]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    _, address = workers()
    with supervised(nano_path, [address]) as backend:
        engine = Engine(backend)
        wanted = requests(backend.tokenize)
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            # As a second Ctrl-C while an answer of the child is awaited.
            draw(engine, wanted, lambda: patched.setattr(EngineProcess, "_answer", interrupted))
        assert draw(engine, wanted).tokens == expected


def test_an_error_of_the_engine_is_the_parents(nano_path: Path) -> None:
    child = EngineProcess(nano_path, replace(OPTIONS, context=256), Run(), max_silence=60)
    full = Batch()
    full.add([0] * 256, 0, 0, output=False)
    more = Batch()
    more.add([0], 256, 0, output=True)
    try:
        child.call("decode", full, max_silence=60)
        with pytest.raises(NoRoom, match="the KV cache of 256 tokens is full"):
            child.call("decode", more, max_silence=60)
        assert child.call("tokenize", "hi", False, (), max_silence=60)
    finally:
        child.close()


def test_a_wish_to_stop_ends_the_answer(nano_path: Path, workers: Callable[[], tuple[Popen[bytes], Address]]) -> None:
    _, address = workers()
    stop = Stop()
    with SupervisedBackend(nano_path, [address], two_layers_each, run=Run(stop), limits=SOON) as backend:
        engine = Engine(backend)
        wanted = requests(backend.tokenize)
        drawn = draw(engine, wanted, stop.set)
        assert engine.aborted and not stop.wanted
        assert [each.finish_reason for each in drawn.completions] == ["cancelled", "cancelled"]
        assert isinstance(drawn.interrupted, Aborted) and not isinstance(drawn.interrupted, NodeLost)
        assert [each.finish_reason for each in draw(engine, wanted).completions] == ["length", "stop"]


def test_a_slow_link_only_costs_time(
    nano_path: Path, expected: list[tuple[int, ...]], workers: Callable[[], tuple[Popen[bytes], Address]]
) -> None:
    _, address = workers()
    with node_servers.relay(address, delay=0.001) as slow, supervised(nano_path, [slow]) as backend:
        assert draw(Engine(backend), requests(backend.tokenize)).tokens == expected
        assert backend.nodes[0].round_trip >= 0.002


def test_a_link_that_is_cut_is_survived(
    nano_path: Path, expected: list[tuple[int, ...]], workers: Callable[[], tuple[Popen[bytes], Address]]
) -> None:
    _, address = workers()
    cut = ExitStack()
    with cut:
        slow = cut.enter_context(node_servers.relay(address))
        with supervised(nano_path, [slow], retry=True) as backend:
            drawn = draw(Engine(backend), requests(backend.tokenize), cut.close)
    assert drawn.tokens == expected


@pytest.mark.parametrize(
    ("command", "does", "said"),
    [
        (Command.GET_ALIGNMENT, node_servers.says_zeros, "answers with an alignment of 0 bytes"),
        (Command.ALLOC_BUFFER, node_servers.says_zeros, r"has no [\d.]+ [KM]iB of memory left"),
        (
            Command.ALLOC_BUFFER,
            node_servers.says_ones,
            r"allocates 18446744073709551615 bytes where \d+ were",
        ),
        (Command.BUFFER_GET_BASE, node_servers.announces_too_much, "answers BUFFER_GET_BASE with 9223372036854775808"),
        (Command.SET_TENSOR, node_servers.garbles, "sends bytes that nothing asked for"),
        (Command.SET_TENSOR, node_servers.falls_silent, r"did not answer for \d+ s"),
        (Command.GRAPH_COMPUTE, node_servers.closes, "closed the connection"),
        (Command.GET_TENSOR, node_servers.closes_in_the_middle, "closed the connection"),
        (Command.GET_TENSOR, node_servers.drips, r"did not answer for \d+ s"),
    ],
)
def test_a_node_that_greets_and_fails_while_the_model_loads_is_left_out(
    nano_path: Path,
    expected: list[tuple[int, ...]],
    workers: Callable[[], tuple[Popen[bytes], Address]],
    command: Command,
    does: node_servers.Misdeed,
    said: str,
) -> None:
    (_, behind), (_, good) = workers(), workers()
    heard: list[Event] = []
    run = Run(listen=heard.append)
    with node_servers.faulty(behind, command, does) as bad:
        addresses = [bad, good]
        with pytest.raises(NodeLost, match=rf"^node {bad} {said}") as caught:
            supervised(nano_path, addresses)
        assert (caught.value.exit_code, caught.value.hint) == (6, "--retry goes on without it")
        with SupervisedBackend(nano_path, addresses, two_layers_each, retry=True, run=run, limits=SOON) as backend:
            [notice] = [event.text for event in heard if isinstance(event, Notice)]
            assert re.fullmatch(rf"node {bad} {said}.*; continuing without this node", notice)
            assert [node.address for node in backend.nodes] == [good]
            assert draw(Engine(backend), requests(backend.tokenize)).tokens == expected


@pytest.mark.parametrize(
    ("command", "does", "said"),
    [
        (Command.GRAPH_RECOMPUTE, node_servers.closes, "closed the connection"),
        (Command.GET_TENSOR, node_servers.shortens, r"answers GET_TENSOR with \d+ bytes where \d+ were expected"),
        (Command.GET_TENSOR, node_servers.answers_twice, "sends bytes that nothing asked for"),
        (Command.GET_TENSOR, node_servers.falls_silent, r"did not answer for \d+ s"),
    ],
)
def test_a_node_that_fails_while_it_computes_is_left_out_and_the_text_is_the_same(
    nano_path: Path,
    expected: list[tuple[int, ...]],
    workers: Callable[[], tuple[Popen[bytes], Address]],
    command: Command,
    does: node_servers.Misdeed,
    said: str,
) -> None:
    (_, behind), (_, good) = workers(), workers()
    reports: list[Event] = []
    with (
        node_servers.faulty(behind, command, does, nth=8) as bad,
        supervised(nano_path, [good, bad], retry=True, reports=reports) as backend,
    ):
        drawn = draw(Engine(backend, reports=reports), requests(backend.tokenize))
        assert [node.address for node in backend.nodes] == [good]
    assert drawn.tokens == expected
    assert len(drawn.notices) == 1
    assert re.fullmatch(rf"node {bad} {said}.*; continuing without this node", drawn.notices[0])


def test_where_every_node_fails_this_machine_goes_on_alone(
    nano_path: Path, expected: list[tuple[int, ...]], workers: Callable[[], tuple[Popen[bytes], Address]]
) -> None:
    heard: list[Event] = []
    with ExitStack() as stack:
        bad = [
            stack.enter_context(node_servers.faulty(workers()[1], Command.ALLOC_BUFFER, does))
            for does in (node_servers.closes, node_servers.says_zeros)
        ]
        run = Run(listen=heard.append)
        with SupervisedBackend(nano_path, bad, two_layers_each, retry=True, run=run, limits=SOON) as backend:
            assert backend.nodes == ()
            assert draw(Engine(backend), requests(backend.tokenize)).tokens == expected
    notices = [event.text for event in heard if isinstance(event, Notice)]
    assert len(notices) == 2 and all(f"node {each}" in "".join(notices) for each in bad)


def test_nodes_are_left_out_one_by_one_where_nobody_is_seen_to_be_at_fault(
    nano_path: Path,
    expected: list[tuple[int, ...]],
    workers: Callable[[], tuple[Popen[bytes], Address]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = EngineProcess.__init__
    used: list[int] = []

    def crashes_with_nodes(self: EngineProcess, *arguments: Any, **named: Any) -> None:
        used.append(len(named["relays"]))
        if named["relays"]:
            raise ChildLost("SIGSEGV")
        real(self, *arguments, **named)

    monkeypatch.setattr(EngineProcess, "__init__", crashes_with_nodes)
    heard: list[Event] = []
    run = Run(listen=heard.append)
    addresses = [workers()[1], workers()[1]]
    with SupervisedBackend(nano_path, addresses, two_layers_each, retry=True, run=run, limits=SOON) as backend:
        assert backend.nodes == ()
        assert draw(Engine(backend), requests(backend.tokenize)).tokens == expected
    assert used == [2, 2, 1, 0]
    again, first, second = [event.text for event in heard if isinstance(event, Notice)]
    assert again == "the engine was lost (SIGSEGV), and all nodes answer again; continuing"
    assert first.startswith("the engine was lost 2 times in a row (SIGSEGV), the last time after an answer of node ")
    assert second.endswith("; continuing without this node")


def test_checkpoints_stay_in_the_child_and_end_with_it(
    nano_path: Path, workers: Callable[[], tuple[Popen[bytes], Address]]
) -> None:
    with supervised(nano_path, [workers()[1]], retry=True) as backend:
        assert (backend.sequences, backend.cuts_anywhere, backend.earliest(0)) == (19, True, 1)
        batch = Batch()
        batch.add([9] * 20, 0, 0, output=True)
        backend.decode(batch)
        assert backend.checkpoint(0) is None  # this model needs none
        assert backend.save(0) is None
        assert not backend.load(1, b"state")
        # A checkpoint that the child does not have, as after a loss.
        assert not backend.restore(Checkpoint(10, 1, RemoteCheckpoint(backend, 7)), 0)
        batch = Batch()
        batch.add([9] * 3, 0, 0, output=True)
        backend.decode(batch)  # the slot is empty
