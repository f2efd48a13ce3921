"""An answer from a text that is longer than the context: the paragraphs that matter are found by likelihood.

After the paragraph that answers a question, a model finds the question likelier than after others. So every paragraph
is read with the question behind it, and the log-probabilities of the question's tokens rank them: "Large Language Model
Programs" (arXiv 2305.05364, section 3.1.1). The paragraphs that share words with the question are read first, so that
a stop leaves the best ones: the answer is then drawn from what was read, and a second stop ends it.

With equal odds before, these likelihoods are the odds of the paragraphs given the question. The best paragraphs are
kept until they hold `share` of it all. If they fit into one prompt, the model answers from them. Otherwise they make a
tree: each leaf is a prompt with as many of them as fit, the model notes what they say, and the root answers from the
notes.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace

import prompts
from runtime.base.errors import Aborted, Lost, UsageError
from runtime.base.events import Event, Notice, Progress
from runtime.base.types import counted
from runtime.engine.likelihood import scoring
from runtime.engine.sequence import Request
from runtime.engine.template import file_layout
from runtime.strategies import direct
from runtime.strategies.paragraphs import Paragraph, by_words, paragraphs
from runtime.strategies.stages import Stages
from runtime.strategies.task import Task
from runtime.strategies.verdict import Evidence, Sample, Verdict

_NOTE_TOKENS = 200  # of one leaf: a few facts
_LEAST, _MOST = 20, 4000  # tokens of a paragraph
# Of a budget of time: the kept paragraphs are read again in one prompt, and tokens are drawn slower than read.
_FOR_ANSWER = 1 / 2


@dataclass(frozen=True, slots=True)
class EvidenceSettings:
    """`paragraph`: the most tokens of a paragraph. `keep`: the fewest paragraphs to answer from. `share`: of the odds,
    which the kept paragraphs hold together. `parts`: the most prompts with kept paragraphs, the leaves of the tree.
    """

    paragraph: int = 200
    keep: int = 3
    share: float = 0.95
    parts: int = 4

    def __post_init__(self) -> None:
        if not _LEAST <= self.paragraph <= _MOST:
            raise UsageError(f"a paragraph has between {_LEAST} and {_MOST} tokens, not {self.paragraph}")
        if self.keep < 1 or self.parts < 1:
            raise UsageError(f"at least 1 is kept and at least 1 part is read, not {min(self.keep, self.parts)}")
        if not 0 <= self.share <= 1:
            raise UsageError(f"a share is between 0 and 1, not {self.share:g}")


def run(task: Task, settings: EvidenceSettings) -> Generator[Event, None, Verdict]:
    if not task.documents:
        yield Notice("evidence: there is no text to look in, so the question is answered without")
        return replace((yield from direct.run(task, direct.DirectSettings())), strategy="evidence")
    found = paragraphs(task.documents, lambda text: len(task.tokens_of(text)), settings.paragraph)
    order = by_words(found, task.question)
    total = sum(found[number].tokens for number in order)
    yield Notice(f"evidence: looking in {counted(len(order), 'paragraph')} of {total:,} tokens")
    scores = yield from read(task, found, order)
    if len(scores) < len(order):
        yield Notice(
            f"evidence: stopped after {len(scores)} of {len(order)} paragraphs; answering from the best of them"
        )
    chosen = kept(scores, settings) or order[: settings.keep]
    leaves, left_out = in_parts(task, found, chosen, settings.parts)
    used = [number for number in chosen if any(number in leaf for leaf in leaves)]
    evidence = tuple(Evidence(found[number], scores.get(number)) for number in used)
    rule = f"{counted(len(used), 'paragraph')} of {len(order)} kept"
    if len(scores) < len(order):
        rule += f", {len(scores)} read"
    if left_out:
        rule += f", {left_out} more had no room"
    if len(leaves) > 1:
        rule += f", in {len(leaves)} parts"
    stages = Stages(task)
    samples = yield from _answered(task, stages, found, leaves)
    return _verdict(stages, samples, rule, evidence)


def read(task: Task, found: Sequence[Paragraph], order: Sequence[int]) -> Generator[Event, None, dict[int, float]]:
    """The log-probability of the question behind each paragraph, by its number, in this order.

    Some are missing after a stop of the user, or once half of the time is used up. Raises Lost, and DoesNotFit
    for a question that leaves no room for a paragraph.
    """
    scores: dict[int, float] = {}
    allowance = task.allowance
    for_answer = _FOR_ANSWER * ((allowance.seconds_left if allowance is not None else None) or 0.0)
    total, done = sum(found[number].tokens for number in order), 0
    asked = tuple(task.tokens_of(" " + task.question.strip()))
    together = max(task.engine.slots, 1)
    for start in range(0, len(order), together):
        yield Progress("looking for evidence", "", done, total, "tokens")
        left = allowance.seconds_left if allowance is not None else None
        if left is not None and left <= for_answer:
            break
        numbers = order[start : start + together]
        pairs = [
            (tuple(task.tokens_of(f"{found[number].text}\n\nQuestion:", begins=True)), asked) for number in numbers
        ]
        try:
            for number, values in zip(numbers, (yield from _quietly(scoring(task.engine, pairs))), strict=True):
                scores[number] = math.fsum(values)
        except Lost:
            raise
        except Aborted:
            break
        done += sum(found[number].tokens for number in numbers)
    yield Progress("looking for evidence", "", total, total, "tokens")
    return scores


def _quietly(
    running: Generator[Event, None, list[tuple[float, ...]]],
) -> Generator[Event, None, list[tuple[float, ...]]]:
    """Without the progress of each single prompt."""
    while True:
        try:
            event = next(running)
        except StopIteration as end:
            values: list[tuple[float, ...]] = end.value
            return values
        if not isinstance(event, Progress):
            yield event


def kept(scores: dict[int, float], settings: EvidenceSettings) -> list[int]:
    """The numbers of the best paragraphs, the best first: at least `keep`, and as many as hold `share` of the odds."""
    ordered = sorted(scores, key=lambda number: (-scores[number], number))
    if not ordered:
        return []
    odds = [math.exp(scores[number] - scores[ordered[0]]) for number in ordered]
    whole, held = math.fsum(odds), 0.0
    count = 0
    while count < len(ordered) and (count < settings.keep or held < settings.share * whole):
        held += odds[count]
        count += 1
    return ordered[:count]


def in_parts(task: Task, found: Sequence[Paragraph], chosen: Iterable[int], most: int) -> tuple[list[list[int]], int]:
    """The chosen paragraphs in prompts that leave a quarter of the context for an answer, the best ones first; and how
    many had no room. Each part is in the order of the text, and has at least one paragraph."""
    limit = task.longest - task.longest // 4
    leaves: list[list[int]] = []
    left_out = 0
    for number in chosen:
        wider = sorted([*leaves[-1], number]) if leaves else [number]
        if not leaves:
            leaves.append(wider)
        elif left_out or len(_prompt(task, found, wider).prompt.tokens) > limit:
            if left_out or len(leaves) == most:
                left_out += 1
            else:
                leaves.append([number])
        else:
            leaves[-1] = wider
    return leaves, left_out


def _prompt(task: Task, found: Sequence[Paragraph], numbers: Sequence[int], question: str | None = None) -> Request:
    """The request to answer the question, or another one, from these paragraphs."""
    text = task.question if question is None else question
    for first, last in reversed(runs(found, numbers)):
        joined = found[first] if first == last else _joined(found[first : last + 1])
        text = file_layout(joined.place, joined.text, text)
    request = task.request(question=text)
    return replace(request, grammar=task.grammar) if question is None else request


def runs(found: Sequence[Paragraph], numbers: Sequence[int]) -> list[tuple[int, int]]:
    """First and last number of each run of paragraphs that follow each other in one document."""
    made: list[tuple[int, int]] = []
    for number in numbers:
        if made and made[-1][1] == number - 1 and found[number].document == found[number - 1].document:
            made[-1] = (made[-1][0], number)
        else:
            made.append((number, number))
    return made


def _joined(parts: Sequence[Paragraph]) -> Paragraph:
    return replace(
        parts[0],
        last=parts[-1].last,
        text="\n\n".join(each.text for each in parts),
        tokens=sum(each.tokens for each in parts),
    )


def _answered(
    task: Task, stages: Stages, found: Sequence[Paragraph], leaves: Sequence[Sequence[int]]
) -> Generator[Event, None, list[Sample]]:
    """Draw the answer; with several leaves first a note on each. The last sample is the answer."""
    if len(leaves) == 1:
        [answer] = yield from stages.draw([_prompt(task, found, leaves[0])], "answer")
        return [Sample.of(answer, note="answer")]
    asked = prompts.read("evidence-note").format(question=task.question)
    limit = min(_NOTE_TOKENS, task.longest // (4 * len(leaves)))  # all notes together fit a quarter of the context
    requests = []
    for leaf in leaves:
        request = _prompt(task, found, leaf, asked)
        requests.append(replace(request, params=replace(request.params, max_tokens=limit)))
    notes = yield from stages.draw(requests, "note on a part")
    samples = [Sample.of(each, 0.0, f"part {number}") for number, each in enumerate(notes, 1)]
    if stages.stopped:
        return samples
    said = "\n\n".join(
        each.answer.strip() for each in notes if each.answer.strip().lower().rstrip(".") not in ("", "none")
    )
    text = prompts.read("evidence-root").format(notes=said or "(none)", question=task.question)
    [answer] = yield from stages.draw([replace(task.request(question=text), grammar=task.grammar)], "answer")
    return [*samples, Sample.of(answer, note="answer")]


def _verdict(stages: Stages, samples: Sequence[Sample], rule: str, evidence: tuple[Evidence, ...]) -> Verdict:
    begun = [each for each in samples if each.completion.begun] or samples
    return replace(stages.verdict("evidence", samples, rule, "turn", begun[-1].completion), evidence=evidence)
