"""Every strategy within a budget, with a real model: random strategies, settings and budgets, and what they spent.

    python tests/peers/budgets.py [MODEL] [--runs 200] [--seed 0]

Needs no other program. A run fails if it spends more tokens than its budget, or takes longer than its seconds and a
tenth, or if the samples that it told of do not add up to what it says it spent. The last lines are a table of the
strategies. Every fifth run is stopped as by Ctrl-C after a random number of events.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dsr.chat.conversation import Conversation
from dsr.chat.options import ChatOptions
from dsr.loading.load import load
from dsr.loading.options import LoadOptions
from dsr.models import library
from dsr.suites import suites
from runtime.base.events import SampleFinished
from runtime.base.run import Run, Stop
from runtime.strategies.strategy import STRATEGIES, find

SETTINGS = {
    "vote": ["n={n}"], "first-finish": ["n={n}"], "short-m": ["n={n}", "m=1"], "no-think-vote": ["n={n}"],
    "deepconf": ["n={n}", "warmup=2"], "repeated-sampling": ["n={n}", "check=grep -q 7"], "rounds": ["n={n}"],
    "verify": ["verifiers={n}", "stable=1"], "phi": ["beams=2", "rollouts={n}", "depth=3"], "tree": ["n_generate={n}"],
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="nano")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, failures, rows = random.Random(given.seed), 0, defaultdict(list)
    problems = suites.find("basics").problems
    with ExitStack() as stack:
        stop = Stop()
        model = library.find(given.model)
        loaded = stack.enter_context(load(model, LoadOptions(slots=8).for_samples(8, 300), Run(stop, threads=1)))
        for number in range(given.runs):
            name = list(STRATEGIES)[number % len(STRATEGIES)]
            seconds = rng.random() < 0.25
            limit = rng.choice((0.2, 0.5, 1.0)) if seconds else rng.randrange(1, 2500)
            budget = f"{limit:g}s" if seconds else str(limit)
            settings = [each.format(n=rng.randrange(2, 9)) for each in SETTINGS.get(name, [])]
            strategy = find(name).configured([*settings, f"budget={budget}"])
            params = model.sampling.params
            talk = Conversation(loaded, params, ChatOptions(strategy=strategy))
            stops_at = rng.randrange(1, 200) if number % 5 == 4 else None
            began, spent = time.perf_counter(), 0
            for count, event in enumerate(talk.ask(rng.choice(problems).question)):
                if isinstance(event, SampleFinished):
                    spent += len(event.completion.tokens)
                if count == stops_at:
                    stop.set()
            took = time.perf_counter() - began
            stop.take()
            reply = talk.last
            assert reply is not None and reply.verdict is not None
            told = reply.verdict.spent
            over = took > float(limit) * 1.1 + 0.05 if seconds else told > limit
            wrong = over or told != spent
            failures += wrong
            answered = reply.verdict.winner is not None
            rows[name].append((told / limit if not seconds else took / limit, answered, stops_at is not None))
            if wrong:
                print(f"run {number}: {strategy}: {told} tokens told, {spent} counted, {took:.2f} s")
    print(f"{given.runs} runs, {failures} failed")
    print("| strategy | runs | stopped | used of the budget, median | most | with an answer |")
    print("|---|---|---|---|---|---|")
    for name, found in rows.items():
        used = [each for each, _, _ in found]
        counts = Counter(answered for _, answered, _ in found)
        stopped = sum(stop for *_, stop in found)
        print(f"| `{name}` | {len(found)} | {stopped} | {median(used):.2f} | {max(used):.2f} | {counts[True]} |")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
