"""Choose a strategy by question, model and budget. `choose` makes the whole decision.

Rules, the first that fits, and what they rest on:

1. A greeting, a short question of fact, a short sum, or a text to write -> `direct`. A vote needs answers that can be
   compared, and more samples mend slips of reasoning, not gaps of knowledge. A rule of thumb: nobody measured it.
2. Budget for less than three samples, or one slot and a limit of time -> `direct`, with what there is: two cannot
   outvote each other.
3. A vote of so many samples gained nothing on the measured model that is nearest in size, and thinks or does not as
   this one (`measured`) -> `direct`.
4. A family whose short replies are the worse ones (Qwen3; see `first_finish`) -> `short-m`, never `first-finish`,
   which took Qwen3-32B from 90.0 to 40.0 on AIME 2024 (arXiv 2505.18149); short-3 beats a majority at all budgets
   (2505.17813). Not if it was measured to be worse than the vote.
5. DeepSeek-R1 with a budget -> `first-finish`: the accuracy of a majority for less than half of the sequential tokens.
   Not if it was measured to be worse than the vote.
6. Else `vote`, which stops when it is clear (2203.11171, 2305.11860).

One sample is drawn greedily where that was measured to be better. As many samples are drawn as slots fit into memory,
up to 8; with a single slot 4, one after another. A budget of tokens is for all samples together. One of seconds is
turned into tokens by the speed of the first 32 tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Literal

from runtime.base.events import Event, Notice
from runtime.strategies import direct, first_finish, short_m, vote
from runtime.strategies.measured import GREEDY, ONE, Measured, Row, nearest
from runtime.strategies.task import Task, was_stopped
from runtime.strategies.verdict import Verdict

Kind = Literal["greeting", "fact", "sum", "writing", "reasoning"]

_MOST = 8
_IN_TURN = 4
# What a sample may take, where nothing else is known: R1 distills think for thousands of tokens on contest problems
# and hundreds on everyday ones; models that do not think aloud answer with a few hundred.
_USUAL_THINKING, _USUAL = 1500, 300
_PROBE = 32
_LONGEST_SUM = 80  # characters; longer ones are no short sum, and would keep the pattern busy

_WRITING = re.compile(
    r"\b(?:write|draft|compose|rewrite|rephrase|summari[sz]e|translate|brainstorm|describe|explain|tell me about|"
    r"essay|poem|haiku|story about|letter to|email)\b", re.IGNORECASE,
)  # fmt: skip
_SUM = re.compile(
    r"(?:(?:what\s+is|what's|calculate|compute|evaluate|how\s+much\s+is)\s+)?[-+*/×÷^().,\d\s]*\d[-+*/×÷^().,\d\s]*[=?.\s]*",
    re.IGNORECASE,
)
_FACT = re.compile(r"(?:who|whom|whose|when|where|which|what|name|is|are|was|were|does|did)\b", re.IGNORECASE)


_KINDS = {"greeting": "a few words", "fact": "a question of fact", "sum": "a short sum", "writing": "a text"}
_PLAIN_VOTE = re.compile(r"vote n=(\d+) stop=none")


@dataclass(frozen=True, slots=True)
class AutoSettings:
    """No settings."""


@dataclass(frozen=True, slots=True)
class AutoPlan:
    """A strategy of `_RUNS` with its settings. `why` is for a person. `greedy`: whether to draw at temperature 0."""

    strategy: str
    settings: Any
    why: str
    greedy: bool = False


_RUNS: dict[str, Callable[[Task, Any], Generator[Event, None, Verdict]]] = {
    "direct": direct.run,
    "vote": vote.run,
    "short-m": short_m.run,
    "first-finish": first_finish.run,
}


def run(task: Task, settings: AutoSettings) -> Generator[Event, None, Verdict]:
    allowance = task.allowance
    probed, in_time = 0, None
    if allowance is not None and allowance.seconds_left is not None:
        measured = yield from _speed(task)
        if isinstance(measured, Verdict):
            return measured
        probed, speed = measured
        in_time = int(allowance.seconds_left * speed)
    plan = choose(
        task.question, family=task.family, slots=task.engine.slots, thinks=task.markers is not None,
        tokens=allowance.tokens_left if allowance is not None else None, tokens_in_time=in_time,
        measured=nearest(task.parameters, task.markers is not None),
    )  # fmt: skip
    yield Notice(plan.why)
    if plan.greedy:
        task = replace(task, params=replace(task.params, temperature=0.0))
    verdict = yield from _RUNS[plan.strategy](task, plan.settings)
    return replace(
        verdict,
        strategy="auto",
        rule=f"{plan.strategy}: {verdict.rule}",
        spent=verdict.spent + probed,
        sequential=verdict.sequential + probed,
    )


def choose(
    question: str, *, family: str = "", slots: int = 1, thinks: bool = False, tokens: int | None = None,
    tokens_in_time: int | None = None, measured: Measured | None = None,
) -> AutoPlan:  # fmt: skip
    """`tokens` may be spent in all; `tokens_in_time` are what one sample alone can draw in the time there is.

    `measured`: the figures of the model that is most like this one.
    """
    kind = kind_of(question)
    if kind != "reasoning":
        return _one(f"{_KINDS[kind]} needs no vote, one sample answers it", None)
    n = min(_MOST, slots) if slots > 1 else _IN_TURN
    fits = f"{slots} slots fit" if slots > 1 else "one slot fits"
    usual = _USUAL_THINKING if thinks else _USUAL
    if tokens is not None:
        n = min(n, tokens // usual)
    # Samples that run together are drawn at half the pace.
    hurried = tokens_in_time is not None and (slots == 1 or tokens_in_time < 2 * usual)
    if n < 3 or hurried:
        limit = tokens if tokens is not None else tokens_in_time
        reason = f"a budget of {limit} tokens" if limit is not None else fits
        return _one(f"{reason} is not enough for a vote, one sample answers", measured)
    voted, plain = _vote_of(n, measured), measured.plain if measured is not None else None
    if measured is not None and voted is not None and plain is not None and voted.right <= plain.right:
        why = f"a vote of {n} gained nothing on {measured.model}, the measured model most like this one"
        return _one(f"{why}, one sample answers", measured)

    def loses(strategy: str) -> bool:
        row = measured.best(strategy) if measured is not None else None
        return row is not None and voted is not None and row.right < voted.right

    if family in first_finish.LONG_HORIZON and not loses("short-m"):
        why = f"auto: short-m of {n} ({fits}); not first-finish, since the short replies of {family} are the worse ones"
        return AutoPlan("short-m", short_m.ShortMSettings(n=n, m=min(3, n)), why)
    limited = tokens is not None or tokens_in_time is not None
    if family == "deepseek-r1" and limited and not loses("first-finish"):
        why = (
            f"auto: first-finish of {n} ({fits}), since {family}'s short replies are the better ones, within the budget"
        )
        return AutoPlan("first-finish", first_finish.FirstFinishSettings(n=n), why)
    return AutoPlan("vote", vote.VoteSettings(n=n), f"auto: a vote of at most {n} ({fits}), stopped when it is clear")


def _one(why: str, measured: Measured | None) -> AutoPlan:
    """One sample, greedy where that was better."""
    greedy, one = (measured.row(GREEDY), measured.row(ONE)) if measured is not None else (None, None)
    if measured is not None and greedy is not None and one is not None and greedy.right > one.right:
        better = f", greedily: {greedy.right:.0f} % right instead of {one.right:.0f} on {measured.model}"
        return AutoPlan("direct", direct.DirectSettings(), f"auto: {why}{better}", greedy=True)
    return AutoPlan("direct", direct.DirectSettings(), f"auto: {why}")


def _vote_of(n: int, measured: Measured | None) -> Row | None:
    """The measured vote of the most samples that are at most `n`."""
    if measured is None:
        return None
    rows = [(int(found[1]), row) for row in measured.rows if (found := _PLAIN_VOTE.fullmatch(row.label))]
    return max((each for each in rows if each[0] <= n), key=lambda each: each[0], default=(0, None))[1]


def kind_of(question: str) -> Kind:
    """By simple signs, in English; a question without such a sign is reasoning."""
    text = question.strip()
    words = len(text.split())
    has_digit = any(character.isdigit() for character in text)
    if len(text) <= _LONGEST_SUM and _SUM.fullmatch(text):
        return "sum" if len(re.findall(r"\d+", text)) <= 3 else "reasoning"
    if _WRITING.search(text):
        return "writing"
    if words <= 3 and not has_digit and not text.endswith("?"):
        return "greeting"
    return "fact" if words <= 9 and not has_digit and _FACT.match(text) else "reasoning"


def _speed(task: Task) -> Generator[Event, None, tuple[int, float] | Verdict]:
    """Tokens drawn for the measurement, and tokens per second; the verdict where the reply ended or was stopped."""
    yield Notice(f"auto: measuring the speed with {_PROBE} tokens")
    before = task.params.max_tokens
    drawn = yield from task.draw([task.request(max_tokens=_PROBE if before is None else min(_PROBE, before))])
    if was_stopped(drawn) or drawn[0].completion.finish_reason == "stop":
        return replace(direct.judge(drawn), strategy="auto")
    length = len(drawn[0].completion.tokens)
    return length, length / max(drawn[0].completion.seconds, 1e-3)
