"""What `dsr bench speed` measures against llama-bench (pp512, tg128) and llama-batched-bench (votes).

    python tests/peers/bench_speed.py MODEL [--threads N] [--pairs N] [--depth D]

Each figure is measured in turns, once by dsr and once by its peer, each time in a new process. Votes are drawn at
temperature 0.6 with statistics gathered; the peer draws nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from common import llama_batched_bench, llama_bench, peer, report

from dsr.bench.speed.bench import SHARED_PROMPT, SpeedJob, SpeedRequest, Test, jobs, measure
from dsr.models.library import find
from runtime.base.run import Run
from runtime.gguf.reader import read_card


def ours(job: SpeedJob, test: Test) -> float:
    made = measure([replace(job, tests=(test,))], Run())
    if made.failures:
        raise SystemExit(made.failures[0].why)
    return made.rows[0].figures["tokens_per_second"].mean


def theirs(job: SpeedJob, test: Test) -> float:
    path, threads = job.model.path, job.threads or 1
    if test.kind == "votes":
        sizes = {"prompt": SHARED_PROMPT, "tokens": test.generated, "sequences": test.votes}
        return llama_batched_bench(peer("llama-batched-bench"), path, threads, **sizes)[0]
    sizes = ["-p", str(test.prompt), "-n", str(test.generated), "-d", str(test.depth)]
    return llama_bench(peer("llama-bench"), path, threads, *sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--depth", type=int, default=0)
    asked = parser.parse_args()
    local = find(asked.model)
    depths = tuple(dict.fromkeys((0, asked.depth)))
    request = SpeedRequest(depths=depths, threads=(asked.threads,), repetitions=1)
    [job] = jobs(local, read_card(local.path), request)
    for test in job.tests:
        if test.kind in ("prompt", "decode", "votes"):
            pairs = [(ours(job, test), theirs(job, test)) for _ in range(asked.pairs)]
            title = f"{test.name}, {local.path.name}, {asked.threads} threads"
            report(title, [a for a, _ in pairs], [b for _, b in pairs], "t/s")


if __name__ == "__main__":
    main()
