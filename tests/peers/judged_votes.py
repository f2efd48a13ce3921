"""Votes and judges over the same samples of a real model: which choice of eight samples is right how often?

    python tests/peers/judged_votes.py MODEL [--suite NAME|FILE] [--limit 30] [--samples 8] [--temp 0.8] [--out FILE]

For each question it draws one greedy sample and `--samples` others. Then every rule chooses between the first 2, 4, ...
of them: the plain vote, `judge=close`, `bon` by `best` and by `sum`, the medoid of `soft`. "Any" is the limit of all
rules. Each finished question is a line of `--out`, and a run that was stopped goes on there. --seed draws others.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Generator
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import prompts
from dsr.chat.task import task_of
from dsr.loading.load import LoadedModel, load
from dsr.loading.options import LoadOptions
from dsr.models import library
from dsr.suites import suites
from dsr.suites.suites import Suite, SuiteProblem
from runtime.base.run import Run
from runtime.base.types import Message, SamplingParams
from runtime.engine.engine import Engine
from runtime.strategies import asked_choice, bon, soft, vote
from runtime.strategies.task import Task
from runtime.strategies.verdict import Sample, Verdict, whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--suite", default="nano")
    parser.add_argument("--limit", type=int, default=30)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--temp", type=float, default=0.8)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("judged_votes.jsonl"))
    given = parser.parse_args()
    suite = suites.find(given.suite)
    model = library.find(given.model)
    rows = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    done = {row["id"] for row in rows}
    options = LoadOptions(slots=given.samples).for_samples(given.samples, given.max_tokens)
    with load(model, options, Run(threads=given.threads)) as loaded, given.out.open("a") as out:
        for number, problem in enumerate(suite.problems[: given.limit]):
            if problem.id in done:
                continue
            params = replace(
                model.sampling.params,
                temperature=given.temp,
                max_tokens=given.max_tokens,
                seed=given.seed + 1000 * number,
            )
            rows.append({"id": problem.id, **asked(loaded, suite, problem, params, given.samples)})
            out.write(json.dumps(rows[-1]) + "\n")
            out.flush()
            print(f"{len(rows)} of {given.limit}", file=sys.stderr)
    show(rows)


def asked(
    loaded: LoadedModel, suite: Suite, problem: SuiteProblem, params: SamplingParams, most: int
) -> dict[str, Any]:
    """Right or wrong, by rule; tokens of the samples."""
    said = [Message("user", suite.message(problem))]
    request = loaded.request(said, params)
    task = task_of(
        loaded, said, request, Engine(loaded.backend), lambda messages, thinking: loaded.prompt(messages), None
    )
    [greedy] = ended(task.draw([task.request(temperature=0.0)]))
    samples = sorted(ended(task.draw(task.requests(range(most)))), key=lambda each: each.number)
    found = {"greedy": problem.is_solved_by(greedy.answer)}
    found["one"] = sum(problem.is_solved_by(each.answer) for each in samples) / most
    size = 2
    while size <= most:
        for rule, verdict in choices(task, samples[:size], most).items():
            found[f"{rule} of {size}"] = problem.is_solved_by(verdict.winner)
        found[f"any of {size}"] = any(problem.is_solved_by(each.answer) for each in samples[:size])
        size *= 2
    return {"right": found, "tokens": sum(len(each.completion.tokens) for each in samples)}


def choices(task: Task, samples: list[Sample], most: int) -> dict[str, Verdict]:
    plain = vote.judge(samples, vote.VoteSettings(n=len(samples), stop="none"))
    made = {"vote": plain, "judge=close": ended(vote._judged(task, plain))}
    voting = [each for each in samples if each.answer is not None]
    asked = [prompts.read("bon-judge").format(question=task.question, answer=whole(each.completion)) for each in voting]
    found = ended(asked_choice.chances(task, asked, ("Yes", "No"))) if voting else []
    scores = {each.number: yes for each, (yes, _) in zip(voting, found or [], strict=True)} or None
    for pick in ("best", "sum"):
        made[f"bon {pick}"] = bon.judge(samples, bon.BonSettings(len(samples), pick), scores)
    texts = [each.completion.answer.strip() for each in voting]
    near = None
    if len(voting) > 1:
        pairs = [
            (
                prompts.read("soft-other").format(question=task.question, answer=text),
                [other for index, other in enumerate(texts) if index != number],
            )
            for number, text in enumerate(texts)
        ]
        near = soft.nearness(ended(asked_choice.mean_logprobs(task, pairs)))
    made["soft"] = soft.judge(samples, voting, near, soft.SoftSettings())
    return made


def ended(running: Generator[Any, None, Any]) -> Any:
    while True:
        try:
            next(running)
        except StopIteration as end:
            return end.value


def show(rows: list[dict[str, Any]]) -> None:
    """A table: right in percent, and the difference from the plain vote of as many, on the same questions."""
    print(f"{len(rows)} questions, {sum(row['tokens'] for row in rows) / len(rows):.0f} tokens each\n")
    print("| rule | right, % | less or more than the vote, points | better, worse |\n| :-- | --: | --: | --: |")
    for rule in rows[0]["right"]:
        right = [float(row["right"][rule]) for row in rows]
        line = f"| {rule} | {100 * sum(right) / len(right):.1f} |"
        size = rule.rpartition(" of ")[2]
        if rule.partition(" of ")[0] in ("greedy", "one", "vote"):
            print(line + "  |  |")
            continue
        differences = [mine - float(row["right"][f"vote of {size}"]) for mine, row in zip(right, rows, strict=True)]
        mean = sum(differences) / len(rows)
        error = sqrt(sum((each - mean) ** 2 for each in differences)) / len(rows)
        better, worse = sum(each > 0 for each in differences), sum(each < 0 for each in differences)
        print(f"{line} {100 * mean:+.1f} ± {100 * error:.1f} | {better}, {worse} |")


if __name__ == "__main__":
    main()
