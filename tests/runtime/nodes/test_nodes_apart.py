"""A node in a network of its own, reached through a cable that can be cut; where the system permits to make one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime.base.events import Event, Notice, TextDrawn
from runtime.base.types import SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.llama import LlamaBackend, OpenOptions
from runtime.nodes import addresses, client
from runtime.nodes.addresses import Address
from runtime.nodes.client import Node
from runtime.nodes.silence import SilenceLimits
from runtime.nodes.supervision import SupervisedBackend

ROOT = Path(__file__).resolve().parents[3]
GREEDY = SamplingParams(temperature=0, max_tokens=40)
PROMPT = "<｜begin▁of▁sentence｜><｜User｜>What is 347 + 586?<｜Assistant｜><think>\n"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass(frozen=True)
class Cable:
    """Its end on this side, and the worker at the other."""

    end: str
    worker: Address

    def cut(self) -> None:
        ip("link", "set", self.end, "down")


@pytest.fixture
def cable() -> Iterator[Cable]:
    if shutil.which("ip") is None:
        pytest.skip("there is no ip command")
    number = os.getpid() % 250
    name, end, far = f"dsr{os.getpid()}", f"dsr{number}a", f"dsr{number}b"
    here, there = f"10.231.{number}.1", f"10.231.{number}.2"
    inside = ("netns", "exec", name)
    with ExitStack() as stack:
        try:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            ip("link", "add", end, "type", "veth", "peer", "name", far, "netns", name)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network can be made here: {error.stderr.decode().strip()}")
        ip("addr", "add", f"{here}/24", "dev", end)
        ip("link", "set", end, "up")
        ip(*inside, "ip", "addr", "add", f"{there}/24", "dev", far)
        ip(*inside, "ip", "link", "set", far, "up")
        address = Address(there, addresses.DEFAULT_PORT)
        serve = [sys.executable, "-c", f"from runtime.llama import serve; serve('{address}', 1)"]
        worker = stack.enter_context(
            subprocess.Popen(["ip", *inside, *serve], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        stack.callback(worker.kill)
        until = time.monotonic() + 30
        while not client.is_reachable(address, 1):
            assert worker.poll() is None and time.monotonic() < until, "the worker did not start"
            time.sleep(0.02)
        yield Cable(end, address)


def shared(found: Sequence[Node]) -> OpenOptions:
    return OpenOptions(context=512, nodes=tuple(str(node.address) for node in found), layers=(3,) * len(found))


def test_a_cable_that_is_cut_in_the_middle_of_an_answer_is_survived(cable: Cable, nano_path: Path) -> None:
    with LlamaBackend(nano_path, shared(())) as alone:
        [expected] = Engine(alone).generate([Request(Prompt(tuple(alone.tokenize(PROMPT))), GREEDY)])
    limits = SilenceLimits(silence=1.5)
    reports: list[Event] = []
    with SupervisedBackend(
        nano_path, [cable.worker], shared, retry=True, report=reports.append, limits=limits
    ) as backend:
        engine = Engine(backend, reports=reports)
        wanted = Request(Prompt(tuple(backend.tokenize(PROMPT))), GREEDY)
        assert engine.generate([wanted])[0].tokens == expected.tokens
        assert [node.address for node in backend.nodes] == [cable.worker]
        text, notices = "", []
        for event in engine.stream([wanted]):
            if isinstance(event, TextDrawn):
                text += event.text
                if len(text) == len(event.text):
                    cable.cut()
            elif isinstance(event, Notice):
                notices.append(event.text)
        [notice] = notices
        assert notice.startswith(f"node {cable.worker}") and notice.endswith("; continuing without this node")
        assert text == expected.thinking + expected.answer
        assert backend.nodes == ()
