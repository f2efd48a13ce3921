"""Value-guided search beside votes at the same tokens: which is right how often, on the same problems?

    python tests/peers/value_search.py [MODEL] [--head FILE] [--suite nano] [--limit 200] [--block 16] [--out FILE]
        [--write docs/results.md]

For each question every row draws its own samples at `--temp`, with the same seed. Each finished question is a line of
`--out`, and a run that was stopped goes on there. Differences are over the same questions, with one standard error.
The head of the embedded model is made by `tests/nano/training/value_head.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from datetime import date
from math import sqrt
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from dsr.bench.kit.intervals import wilson  # noqa: E402
from dsr.chat.task import task_of  # noqa: E402
from dsr.loading.load import load  # noqa: E402
from dsr.loading.options import LoadOptions  # noqa: E402
from dsr.models import library  # noqa: E402
from dsr.suites import suites  # noqa: E402
from runtime.base.events import value_of  # noqa: E402
from runtime.base.run import Run  # noqa: E402
from runtime.base.types import Message  # noqa: E402
from runtime.engine.engine import Engine  # noqa: E402
from runtime.strategies.strategy import find  # noqa: E402
from tests import sections  # noqa: E402

HEAD = ROOT / "tests" / "nano" / "value_head.safetensors"


GREEDY, VOTE = "greedy", "vote n=8 stop=none"


def rows(head: str, block: int) -> dict[str, tuple[str, ...]]:
    """Strategy and settings by the label of the row."""
    own, short = f"head={head}", f"head={Path(head).name}"
    search = f"value-guided block={block}"
    labels = {
        GREEDY: "direct",
        "direct": "direct",
        "vote n=4 stop=none": "",
        VOTE: "",
        f"bon n=8 pick=sum {short}": "",
        f"bon n=8 pick=best {short}": "",
        f"{search} {short}": "",
        f"{search} n=16 {short}": "",
        search: "",
    }
    return {label: tuple((text or label).replace(short, own).split()) for label, text in labels.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="nano")
    parser.add_argument("--head", default=str(HEAD))
    parser.add_argument("--suite", default="nano")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--block", type=int, default=16)
    parser.add_argument("--temp", type=float, default=1.0)
    parser.add_argument("--max-tokens", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", type=Path, help="the document whose part value-search is replaced")
    parser.add_argument("--out", type=Path, default=Path("value_search.jsonl"))
    given = parser.parse_args()
    suite, model = suites.find(given.suite), library.find(given.model)
    table = rows(given.head, given.block)
    found = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    done = {row["id"] for row in found}
    options = LoadOptions(slots=8).for_samples(8, given.max_tokens)
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
            said = [Message("user", suite.message(problem))]
            task = task_of(
                loaded, said, loaded.request(said, params), Engine(loaded.backend),
                lambda messages, thinking: loaded.prompt(messages), None,
            )  # fmt: skip
            line: dict[str, Any] = {"id": problem.id}
            for name, (strategy, *settings) in table.items():
                asked = replace(task, params=replace(params, temperature=0.0)) if name == GREEDY else task
                verdict = value_of(find(strategy).configured(settings).run(asked))
                line[name] = [problem.is_solved_by(verdict.winner), verdict.spent, verdict.sequential]
            found.append(line)
            out.write(json.dumps(line) + "\n")
            out.flush()
            print(f"{len(found)} of {given.limit}", file=sys.stderr)
    text = page(
        found,
        [*table],
        f"{model.reference} on {suite.name}",
        f"python tests/peers/value_search.py {' '.join(sys.argv[1:])}".strip(),
    )
    if given.write is not None:
        sections.replace(given.write, "value-search", text)
    print(text)


def page(found: list[dict[str, Any]], labels: list[str], where: str, command: str) -> str:
    """The part of docs/results.md: right, tokens, longest chain of tokens, and the difference to the vote of 8."""
    lines = [
        "## Votes and searches by a value head", "",
        f"### {where}: {len(found)} questions, 8 samples each", "", f"    {command}", "",
        f"Made {date.today().isoformat()}. Every strategy drew its own samples at temperature 1, except `greedy`.", "",
        "| strategy | right, % | 95 % interval | tokens | chain | against the vote of 8 |",
        "| :-- | --: | --: | --: | --: | --: |",
    ]  # fmt: skip
    for label in labels:
        right, tokens, chain = ([line[label][part] for line in found] for part in range(3))
        differences = [int(line[label][0]) - int(line[VOTE][0]) for line in found]
        mean = sum(differences) / len(found)
        error = sqrt(sum((each - mean) ** 2 for each in differences) / max(len(found) - 1, 1) / len(found))
        share = sum(right) / len(found)
        low, high = wilson(share, len(found))
        lines.append(
            f"| `{label}` | {100 * share:.1f} | {100 * low:.1f} to {100 * high:.1f} "
            f"| {sum(tokens) / len(found):.0f} | {sum(chain) / len(found):.0f} "
            f"| {100 * mean:+.1f} ± {100 * error:.1f} |"
        )
    lines += [
        "",
        "*against the vote of 8*: over the same questions, with one standard error. Values cost no tokens.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
