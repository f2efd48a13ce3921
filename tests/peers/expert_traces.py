"""How many experts does each policy read, beside the fewest possible, and how well do routers foretell the next ones?

    python tests/peers/expert_traces.py [MODEL] [--suite SUITE] [--limit N] [--tokens N] [--threads N]

With a suite the model answers the first N questions of each task, and its routers are recorded; each task is a trace,
and so are all tasks in turns. Without, it reads random tokens. Memory is empty at first and holds a quarter, a half or
three quarters of the routed experts. Nothing is timed. MODEL is the embedded one by default, with the suite nano.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import common  # noqa: F401  # sets sys.path
import numpy as np
from numpy.typing import NDArray

from dsr.experts.profile import tasks_of
from dsr.loading.load import load
from dsr.loading.options import LoadOptions
from dsr.models.library import find
from dsr.models.sampling import SamplingRequest
from dsr.suites import suites
from runtime.base.events import SampleFinished, ignore
from runtime.base.run import Run
from runtime.base.types import Message
from runtime.engine.engine import Engine
from runtime.from_disk.lookahead import Lookahead
from runtime.from_disk.policy import Frequency
from runtime.llama import GraphNode, Observer
from tests.routing.replay import Policy, belady, replay, to_drop
from tests.routing.trace import Trace, of_tokens

_NODE = re.compile(r"ffn_moe_(topk|logits|probs|probs_biased)-(\d+)")
_QUESTIONS = "nano-profile"  # other questions of the same tasks, for the seed
_SLOTS, _MOST = 8, 1024
Floats = NDArray[np.float32]


@dataclass
class Routers:
    """What the routers of one text did, by layer: (tokens, ...)."""

    chosen: dict[int, list[NDArray[np.int32]]] = field(default_factory=dict)
    inputs: dict[int, list[Floats]] = field(default_factory=dict)
    logits: dict[int, list[Floats]] = field(default_factory=dict)
    weights: dict[int, Floats] = field(default_factory=dict)
    probs: dict[int, Floats] = field(default_factory=dict)
    bias: dict[int, Floats] = field(default_factory=dict)

    def wants(self, node: GraphNode) -> bool:
        return _NODE.fullmatch(node.name) is not None

    def sees(self, node: GraphNode) -> bool:
        named = _NODE.fullmatch(node.name)
        assert named is not None
        layer, values = int(named[2]), node.values()[0, 0].copy()
        if named[1] == "topk":
            self.chosen.setdefault(layer, []).append(values)
        elif named[1] == "probs":
            self.probs[layer] = values
        elif named[1] == "probs_biased":
            self.bias[layer] = (values - self.probs[layer])[0]
        else:
            self.logits.setdefault(layer, []).append(values)
            self.weights[layer] = node.source(0).values()[0, 0].copy()
            self.inputs.setdefault(layer, []).append(node.source(1).values()[0, 0].copy())
        return True

    @property
    def experts(self) -> int:
        return next(iter(self.weights.values())).shape[0]

    def choices(self) -> NDArray[np.int32]:
        """(tokens, layers, active)"""
        return np.stack([np.concatenate(self.chosen[layer]) for layer in sorted(self.chosen)], axis=1)

    def ranks(self, layer: int, scores: Floats) -> NDArray[np.intp]:
        """The rank of each expert in the order in which this layer's router takes them, (tokens, experts)."""
        if layer in self.bias:
            last = self.logits[layer][-1]
            sigmoid = np.allclose(self.probs[layer], 1 / (1 + np.exp(-last)), atol=1e-4)
            powers = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores = (1 / (1 + np.exp(-scores)) if sigmoid else powers / powers.sum(1, keepdims=True)) + self.bias[
                layer
            ]
        return np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)


def record(path: Path, texts: Sequence[Sequence[int]], threads: int) -> Routers:
    found = Routers()
    window = max(map(len, texts))
    with Observer(path, found.wants, found.sees, window=window, run=Run(threads=threads)) as observer:
        for text in texts:
            for _ in observer.observe(text):
                pass
    return found


def answers(name: str, suite_name: str, limit: int, threads: int) -> dict[str, list[tuple[int, ...]]]:
    """The tokens of questions with the model's answers, by task."""
    model, suite = find(name), suites.find(suite_name, ignore)
    params = SamplingRequest(seed=0, max_tokens=_MOST).applied_to(model.sampling.params)
    found: dict[str, list[tuple[int, ...]]] = {}
    with load(model, LoadOptions().for_samples(_SLOTS, _MOST), Run(threads=threads)) as loaded:
        for task, problems in tasks_of(suite, None, limit).items():
            turns = [[Message("user", suite.message(problem))] for problem in problems]
            requests = [replace(loaded.request(turn, params), sample=number) for number, turn in enumerate(turns)]
            ended = {
                event.completion.sample: event.completion.tokens
                for event in Engine(loaded.backend).stream(requests)
                if isinstance(event, SampleFinished)
            }
            found[task] = [(*each.prompt.tokens, *ended[each.sample]) for each in requests]
    return found


class Recency:
    """Least recently used."""

    def __init__(self, trace: Trace) -> None:
        self._clock, self._last = 0, np.zeros((trace.layers, trace.experts))

    def used(self, layer: int, counts: NDArray[np.integer[Any]]) -> None:
        self._clock += 1
        self._last[layer][counts > 0] = self._clock

    def worth(self, layer: int) -> NDArray[np.float64]:
        return self._last.ravel()


class Ageing:
    """LRFU with one time scale, in tokens, without the layer's turn."""

    def __init__(self, trace: Trace, memory: float) -> None:
        self._decay, self._active = np.exp(-1 / memory), trace.active
        self._scores = np.zeros((trace.layers, trace.experts))

    def used(self, layer: int, counts: NDArray[np.integer[Any]]) -> None:
        tokens = counts.sum() / self._active
        kept = self._decay**tokens
        self._scores[layer] = self._scores[layer] * kept + counts * ((1 - kept) / tokens)

    def worth(self, layer: int) -> NDArray[np.float64]:
        return self._scores.ravel()


class Known:
    """Keeps the experts that are used most in the whole trace: the best of all fixed choices, in hindsight."""

    def __init__(self, trace: Trace) -> None:
        self._uses = np.count_nonzero(trace.counts, axis=0).ravel().astype(np.float64)

    def used(self, layer: int, counts: NDArray[np.integer[Any]]) -> None:
        pass

    def worth(self, layer: int) -> NDArray[np.float64]:
        return self._uses


Seed = NDArray[np.int64] | None


def _frequency(trace: Trace, seed: Seed = None) -> Policy:
    return Frequency(trace.layers, trace.experts, trace.active, seed=seed)


POLICIES: Mapping[str, Callable[[Trace, Seed], Policy]] = {
    "LRU": lambda trace, _: Recency(trace),
    "LRFU 4": lambda trace, _: Ageing(trace, 4),
    "LRFU 32": lambda trace, _: Ageing(trace, 32),
    "LRFU 256": lambda trace, _: Ageing(trace, 256),
    "dsr": lambda trace, _: _frequency(trace),
    "dsr, seeded": _frequency,
    "hindsight": lambda trace, _: Known(trace),
}


def compare(title: str, traces: Sequence[tuple[Trace, Seed]]) -> None:
    """Reads of each policy, as multiples of Belady's, with those of all traces added."""
    policies = [name for name in POLICIES if name != "dsr, seeded" or traces[0][1] is not None]
    print(f"\n{title}\n| memory | Belady: hits, reads a pass | {' | '.join(policies)} |")
    for quarters in (1, 2, 3):
        rooms = [max(trace.units * quarters // 4, trace.most_at_once) for trace, _ in traces]
        best = [belady(trace, room) for (trace, _), room in zip(traces, rooms, strict=True)]
        least, needed = sum(each.reads.sum() for each in best), sum(each.needed.sum() for each in best)
        cells = []
        for name in policies:
            reads = [
                replay(trace, POLICIES[name](trace, seed), room).reads.sum()
                for (trace, seed), room in zip(traces, rooms, strict=True)
            ]
            cells.append(f"{sum(reads) / least:.2f}")
        passes = sum(trace.passes for trace, _ in traces)
        print(f"| {25 * quarters} % | {1 - least / needed:.3f}, {least / passes:.2f} | {' | '.join(cells)} |")


def after_a_prompt(title: str, traces: Sequence[Trace]) -> None:
    """Hits in the ten tokens that follow a prompt, and in all later ones; memory holds half of the experts."""
    rows = []
    for name in ("LRU", "LRFU 256", "dsr"):
        hits = np.zeros(4)
        for trace in traces:
            replayed = replay(trace, POLICIES[name](trace, None), trace.units // 2)
            for at, part in enumerate((slice(1, 11), slice(11, None))):
                hits[2 * at : 2 * at + 2] += replayed.reads[part].sum(), replayed.needed[part].sum()
        rows.append(f"{name} {1 - hits[0] / hits[1]:.3f} then {1 - hits[2] / hits[3]:.3f}")
    print(f"\n{title}: {'; '.join(rows)}")


def foretell(title: str, texts: Sequence[Routers]) -> None:
    """How many of the experts that a router names from an earlier layer's input are chosen, and the other way round."""
    print(f"\n{title}\n| layers ahead | guess | named | of all: right | not in memory: found, right |")
    active = texts[0].choices().shape[2]
    for ahead in (1, 2, 4):
        if ahead >= len(texts[0].weights):
            continue
        for corrected in (False, True):
            for most in (active // 2, active, 3 * active // 2, 2 * active):
                found = sum(_foretold(each, ahead, corrected, most) for each in texts)
                named, right, absent, absent_right, missing = found.tolist()
                print(
                    f"| {ahead} | {'corrected' if corrected else 'plain'} | {most} | {right / named:.3f} "
                    f"| {absent_right / missing:.3f}, {absent_right / max(absent, 1):.3f} |"
                )


def _foretold(text: Routers, ahead: int, corrected: bool, most: int) -> NDArray[np.int64]:
    """Experts: named, and right of these; named that are not in memory, and right of these; missing in memory."""
    trace = of_tokens(text.choices(), text.experts)
    resident = _in_memory(trace, trace.units // 2)
    layers, total = sorted(text.weights), np.zeros(5, np.int64)
    for at, (layer, later) in enumerate(zip(layers, layers[ahead:], strict=False)):
        guess = np.concatenate(text.inputs[layer]) @ text.weights[later].T
        if corrected:
            guess = _corrected(guess, np.concatenate(text.logits[later]))
        named = text.ranks(later, guess) < most
        needed, absent = trace.counts[:, at + ahead] > 0, ~resident[:, at + ahead]
        parts = (named, named & needed, named & absent, named & absent & needed, needed & absent)
        total += [int(part.sum()) for part in parts]
    return total


def _corrected(guess: Floats, met: Floats) -> Floats:
    lookahead, rows = Lookahead(1, guess.shape[1]), []
    for guessed, true in zip(guess, met, strict=True):
        rows.append(lookahead.guess(0, guessed[None]))
        lookahead.met(0, true[None])
    return np.concatenate(rows)


def _in_memory(trace: Trace, room: int) -> NDArray[np.bool_]:
    """Whether each unit is in memory before its layer computes, (passes, layers, experts), under dsr's policy."""
    policy, resident, found = _frequency(trace), np.zeros(trace.units, bool), np.zeros(trace.counts.shape, bool)
    for number in range(trace.passes):
        for layer in range(trace.layers):
            found[number, layer] = resident.reshape(trace.layers, -1)[layer]
            policy.used(layer, trace.counts[number, layer])
            wanted = trace.needed(number, layer)
            over = int(resident.sum() + (~resident[wanted]).sum()) - room
            if over > 0:
                resident[to_drop(policy.worth(layer), resident, wanted, over)] = False
            resident[wanted] = True
    return found


def skew(choices: NDArray[np.int32], experts: int) -> list[float]:
    """The share of picks by the hottest 25, 50 and 75 % of all experts."""
    counts = np.sort(of_tokens(choices, experts).counts.sum(axis=0).ravel())[::-1]
    return [round(float(counts[: len(counts) * each // 4].sum() / counts.sum()), 3) for each in (1, 2, 3)]


def mixed(parts: Sequence[Sequence[NDArray[np.int32]]]) -> NDArray[np.int32]:
    """The first question of each task, then the second of each, and so on."""
    return np.concatenate([each for turn in zip(*parts, strict=True) for each in turn])


def together(parts: Sequence[NDArray[np.int32]], samples: int, experts: int) -> list[Trace]:
    """`samples` texts computed side by side, as far as the shortest of them goes."""
    found = []
    for start in range(0, len(parts) - samples + 1, samples):
        group = parts[start : start + samples]
        length = min(map(len, group))
        rows = np.stack([each[:length] for each in group], axis=1)
        found.append(of_tokens(rows.reshape(-1, *rows.shape[2:]), experts, [samples] * length))
    return found


def drawn(spread: float) -> Trace:
    """300 tokens that choose 8 of 64 experts in 12 layers, each independently of all others.

    `spread` is the standard deviation of the logits of the experts: 0 for an even use."""
    random = np.random.default_rng(0)
    logits = random.normal(0, spread, (12, 64))
    return of_tokens(np.argsort(-(logits + random.gumbel(size=(300, 12, 64))), axis=2)[:, :, :8], 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="nano")
    parser.add_argument("--suite", default=None)
    parser.add_argument("--limit", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    model = find(asked.model)
    suite = "nano" if model.embedded and asked.suite is None else asked.suite
    if suite is None:
        random = np.random.default_rng(1)
        text = record(model.path, [random.integers(10, model.card.vocab_size, asked.tokens).tolist()], asked.threads)
        choices, experts = text.choices(), text.experts
        print(f"picks by the hottest 25, 50, 75 %: {skew(choices, experts)}")
        compare("random tokens, one at a time", [(of_tokens(choices, experts), None)])
        compare("eight tokens at a time", [(of_tokens(choices, experts, [8] * (len(choices) // 8)), None)])
        half = len(choices) // 2
        prompt = [half, *[1] * (len(choices) - half)]
        after_a_prompt(f"hits after a prompt of {half} tokens", [of_tokens(choices, experts, prompt)])
        foretell("the router of a later layer", [text])
        for spread in (0, 1, 2):
            compare(f"independent choices of experts, logits with a deviation of {spread}", [(drawn(spread), None)])
        return
    tasks = answers(asked.model, suite, asked.limit, asked.threads)
    asked_before = answers(asked.model, _QUESTIONS, asked.limit, asked.threads) if model.embedded else {}
    texts = {task: record(model.path, each, asked.threads) for task, each in tasks.items()}
    experts, parts, traces, prompts = next(iter(texts.values())).experts, [], [], []
    for task, text in texts.items():
        choices, ends = text.choices(), np.cumsum([len(each) for each in tasks[task]])
        parts.append(np.split(choices, ends[:-1]))
        seed = None
        if task in asked_before:
            seed = of_tokens(record(model.path, asked_before[task], asked.threads).choices(), experts).counts.sum(
                axis=0
            )
        traces.append((of_tokens(choices, experts), seed))
        half = len(choices) // 2
        prompts.append(of_tokens(choices, experts, [half, *[1] * (len(choices) - half)]))
        print(f"{task}: {len(choices)} tokens; picks by the hottest 25, 50, 75 %: {skew(choices, experts)}")
    compare("each task by itself, one token at a time", traces)
    compare("the tasks in turns, a question of each", [(of_tokens(mixed(parts), experts), None)])
    compare("four questions of a task side by side", [(t, None) for part in parts for t in together(part, 4, experts)])
    after_a_prompt("hits after half of each task was read as a prompt", prompts)
    foretell("the router of a later layer", [*texts.values()])


main()
