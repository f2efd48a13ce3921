"""Counts the votes of a `dsr bench reason` again, from its folder alone: `python tests/peers/recount.py FOLDER`.

Shares no code with dsr: answers are compared as they are written, in lower case. Prints how many winners agree for each
line of the table that it can count, and every one that does not; ends with 1 when there is any.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

Sample = dict[str, Any]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def voted(samples: list[Sample], weights: list[float]) -> str | None:
    """The answer of the largest weight; then of the highest mean probability; then of the shortest thought."""
    total: Counter[str] = Counter()
    for sample, weight in zip(samples, weights, strict=True):
        if sample["found"] is not None:
            total[word(sample["found"])] += weight

    def strength(answer: str) -> tuple[float, float, int]:
        voters = [sample for sample in samples if word(sample["found"]) == answer]
        surest = sum(sample["probability"] for sample in voters) / len(voters)
        return round(total[answer], 6), round(surest, 6), -min(sample["thinking_tokens"] for sample in voters)

    return max(total, key=strength, default=None)


def borda(samples: list[Sample]) -> list[float]:
    """(N - rank + 1) to the power 0.5 for the N samples with an answer, the most certain first."""
    ranked = sorted((s for s in samples if s["found"] is not None), key=lambda s: -s["self_certainty"])
    points = {s["sample"]: (len(ranked) - rank) ** 0.5 for rank, s in enumerate(ranked)}
    return [points.get(sample["sample"], 0.0) for sample in samples]


def first(samples: list[Sample]) -> str | None:
    """The answer of the shortest sample that has one."""
    answered = [sample for sample in samples if sample["found"] is not None]
    shortest = min(answered, key=lambda s: (s["tokens"], s["sample"]), default=None)
    return None if shortest is None else word(shortest["found"])


def word(answer: str | None) -> str:
    return "" if answer is None else " ".join(answer.lower().split())


def recounted(row: str, samples: list[Sample]) -> tuple[str | None] | None:
    """The winner, or None for a line that is not counted here."""
    name, *settings = row.split()
    known = {setting for setting in settings if not setting.startswith("n=")}
    if name in ("greedy", "direct"):
        return (first(samples),)
    if name == "vote" and known == {"stop=none"}:
        return (voted(samples, [1.0] * len(samples)),)
    if name == "vote" and known == {"stop=none", "weights=probability"}:
        return (voted(samples, [sample["probability"] for sample in samples]),)
    if name == "vote" and known == {"stop=none", "weights=certainty"}:
        return (voted(samples, borda(samples)),)
    if name == "first-finish" and not known:
        return (first(samples),)
    return None


def main(folder: Path) -> int:
    drawn = {
        name: {(row["id"], row["sample"]): row for row in read(folder / f"{name}.jsonl")}
        for name in ("samples", "greedy")
        if (folder / f"{name}.jsonl").exists()
    }
    agree: Counter[str] = Counter()
    differ: Counter[str] = Counter()
    for verdict in read(folder / "verdicts.jsonl"):
        row = verdict["row"]
        source = drawn["greedy" if row == "greedy" else "samples"] if drawn else {}
        keys = [(verdict["id"], sample) for sample in verdict["samples"]]
        found = recounted(row, [source[key] for key in keys]) if all(key in source for key in keys) else None
        if found is None:
            continue
        wanted = None if verdict["winner"] is None else word(verdict["winner"])
        (agree if found[0] == wanted else differ)[row] += 1
        if found[0] != wanted:
            print(f"{row}, {verdict['id']}, samples {verdict['samples']}: dsr {wanted!r}, recounted {found[0]!r}")
    for row in dict.fromkeys([*agree, *differ]):
        print(f"{row}: {agree[row]} of {agree[row] + differ[row]} winners agree")
    print(f"{agree.total()} of {agree.total() + differ.total()} winners agree")
    return 1 if differ or not agree else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
