"""What `--strategy evidence` finds in a text that is longer than the context, and what a cut text leaves.

Usage: evidence.py MODEL STATE [--context 2048] [--times 4] [--threads 1] [--only KIND...]

The text has `times` the tokens of the context. Questions are of four kinds. "filler": a pass key of five digits at five
depths of the text of "Landmark Attention" (arXiv 2305.16300, section 4.2). The text of the others are guides of dsr,
which no model knows by heart: "key" (a pass key again), "words" (questions in words of the text) and "meaning" (in
other words). Each is asked in two ways: with the beginning of the text that fits, as far as three quarters of the
context, and by evidence. An answer is right if it contains the fact. STATE keeps likelihoods and answers, so that a
stopped run goes on. All questions are scored while a paragraph is in the cache; each command would read it again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import common  # noqa: F401 - puts the repository on the path

from dsr import api
from dsr.api.opened import Answering
from runtime.base.events import Event, SampleFinished
from runtime.base.files import write_atomically
from runtime.base.types import Completion, TokenStatistics
from runtime.engine.likelihood import likelihoods
from runtime.engine.sequence import Request
from runtime.strategies import evidence
from runtime.strategies.paragraphs import Document, paragraphs

GUIDES = ("conversations", "several-machines", "tools", "larger-than-memory", "serving", "experts", "quantize")
WORDS = (
    ("How many tokens does a summary have at most?", "512"),
    ("With which factor did SmolLM2 find a key in 9,500 tokens?", r"1\.5"),
    ("How many nodes does dsr use at most?", r"\b16\b"),
    ("How much of the disk does the cache of a node leave free?", r"\b1 ?GiB"),
    ("Which status is the answer when too many requests wait?", "429"),
    ("What do you add to the name of the model to ask for a vote of eight?", "@vote8"),
)
MEANING = (
    ("After what time does an unused model get unloaded by the server?", r"ten minutes|10 minutes"),
    ("For how long can a helper machine stay silent before it counts as broken?", r"half a minute|30 seconds"),
    ("How large may the description of a tool be before it is dropped?", "32 ?KiB"),
    ("Which part of the free RAM does the planner use?", "90 ?%"),
)
KINDS = ("filler", "key", "words", "meaning")
DEPTHS = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Asked:
    kind: str
    question: str
    right: str
    text: str


class Memo:
    """A drawer that remembers likelihoods, by the digest of their tokens, and draws everything else."""

    def __init__(self, engine: Any, known: dict[str, list[float]]) -> None:
        self.engine, self.known = engine, known

    @property
    def slots(self) -> int:
        return int(self.engine.slots)

    def cancel(self, samples: Iterable[int]) -> None:
        self.engine.cancel(samples)

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        for request in requests:
            values = self.known.get(digest(request.prompt.tokens, request.given)) if request.given else None
            if values is None:
                yield from self.engine.stream([request])
            else:
                rows = tuple(TokenStatistics(each, 0.0, 0.0) for each in values)
                done = Completion(request.sample, "", "", request.given, 0, "stop", 0.0, statistics=rows)
                yield SampleFinished(done)


def digest(prompt: Sequence[int], given: Sequence[int]) -> str:
    return hashlib.sha1(repr((list(prompt), list(given))).encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("state", type=Path)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--times", type=float, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    given = parser.parse_args()
    state = json.loads(given.state.read_text()) if given.state.exists() else {"known": {}, "answers": {}}
    with api.load(given.model, ctx_size=given.context, samples=1, threads=given.threads) as model:
        answering = model._opened.for_answers()
        asked = [each for each in questions(model, round(given.context * given.times)) if each.kind in given.only]
        read_all(answering, asked, state, given.state)
        for each in asked:
            for how in ("cut", "evidence"):
                key = name(how, each)
                if key not in state["answers"]:
                    state["answers"][key] = answer(answering, each, how, state["known"])
                    save(state, given.state)
                found = re.search(each.right, state["answers"][key], re.IGNORECASE) is not None
                said = " ".join(state["answers"][key].split())[:90]
                print(
                    f"{each.kind:8} {how:9} {'found' if found else 'NOT':6} {each.question[:60]:60} {said}", flush=True
                )
        table(asked, state["answers"])


def name(how: str, asked: Asked) -> str:
    return f"{how} {asked.kind} {asked.question} {hashlib.sha1(asked.text.encode()).hexdigest()[:8]}"


def questions(model: api.Model, tokens: int) -> list[Asked]:
    text = ""
    root = Path(__file__).resolve().parents[2] / "docs" / "guides"
    for name in GUIDES:
        if model.count_tokens(text) < tokens:
            text += (root / f"{name}.md").read_text(encoding="utf-8") + "\n"
    line = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
    filler = [line] * (tokens // model.count_tokens(line + "\n"))
    blocks = text.split("\n\n")
    print(f"{model.count_tokens(text)} tokens, {model.context} of context", flush=True)
    asked = []
    for depth in DEPTHS:
        key = str(random.Random(f"{tokens} {depth}").randint(10000, 99999))
        said = f"The pass key is {key}. Remember it. {key} is the pass key."
        for kind, parts, between in (("filler", filler, "\n"), ("key", blocks, "\n\n")):
            at = round(depth * len(parts))
            asked.append(Asked(kind, "What is the pass key?", key, between.join([*parts[:at], said, *parts[at:]])))
    asked += [Asked("words", question, right, text) for question, right in WORDS]
    return asked + [Asked("meaning", question, right, text) for question, right in MEANING]


def read_all(answering: Answering, asked: Sequence[Asked], state: dict[str, Any], path: Path) -> None:
    """Score all questions of a text behind each of its paragraphs, as the strategy does it for one."""
    loaded, known = answering.loaded, state["known"]
    for text in dict.fromkeys(each.text for each in asked):
        said = [each.question for each in asked if each.text == text]
        parts = paragraphs([Document("guides.md", text)], lambda part: len(loaded.tokens(part)), 200)
        for number, part in enumerate({each.text: each for each in parts}.values()):
            prompt = loaded.tokens(f"{part.text}\n\nQuestion:", begins=True)
            missing = [
                tokens for tokens in (loaded.tokens(" " + each) for each in said) if digest(prompt, tokens) not in known
            ]
            if missing:
                for tokens, values in zip(missing, likelihoods(answering.engine, prompt, missing), strict=True):
                    known[digest(prompt, tokens)] = list(values)
                save(state, path)
                print(f"read {number + 1} of {len(parts)} paragraphs for {len(said)} questions", flush=True)


def answer(answering: Answering, asked: Asked, how: str, known: dict[str, list[float]]) -> str:
    options: api.AnswerOptions = {"temperature": 0.0, "max_tokens": 48}
    if how == "cut":
        loaded = answering.loaded
        room = loaded.backend.longest * 3 // 4
        lines: list[str] = []
        for line in asked.text.splitlines():
            if len(loaded.tokens("\n".join([*lines, line]))) > room:
                break
            lines.append(line)
        text = "\n".join(lines)
        return "".join(
            each.text
            for each in answering.draw(answering.request(layout(text, asked.question), options))
            if each.part == "answer"
        )
    task = answering.task(layout(asked.text, asked.question), options, long=True)
    running = evidence.run(replace(task, engine=Memo(answering.engine, known)), evidence.EvidenceSettings())
    while True:
        try:
            next(running)
        except StopIteration as end:
            return str(end.value.chosen.answer)


def layout(text: str, question: str) -> str:
    from runtime.engine.template import file_layout

    return file_layout("guides.md", text, question)


def table(asked: Sequence[Asked], answers: dict[str, str]) -> None:
    print("\n| questions | text cut to the context | evidence |\n|---|---|---|")
    for kind in dict.fromkeys(each.kind for each in asked):
        found = {"cut": 0, "evidence": 0}
        of = [(number, each) for number, each in enumerate(asked) if each.kind == kind]
        for number, each in of:
            for how in found:
                said = next(
                    value for key, value in answers.items() if key.startswith(f"{how} {number} {each.question}")
                )
                found[how] += re.search(each.right, said, re.IGNORECASE) is not None
        print(f"| {kind} | {found['cut']} of {len(of)} | {found['evidence']} of {len(of)} |")


def save(state: dict[str, Any], path: Path) -> None:
    write_atomically(path, json.dumps(state).encode())


main()
