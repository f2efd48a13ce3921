"""Choose a strategy by question, model family, slots and budget. `choose` makes the whole decision.

Rules, the first that fits, and what they rest on:

1. A greeting, a short question of fact, a short sum, or a text to write -> `direct`. A vote needs answers that can be
   compared, and more samples mend slips of reasoning, not gaps of knowledge. A rule of thumb: nobody measured it.
2. Budget for less than three samples, or one slot and a limit of time -> `direct`, with what there is: two cannot
   outvote each other.
3. A family whose short replies are the worse ones (Qwen3; see `first_finish`) -> `short-m`, never `first-finish`,
   which took Qwen3-32B from 90.0 to 40.0 on AIME 2024 (arXiv 2505.18149); short-3 beats a majority at all budgets
   (2505.17813).
4. DeepSeek-R1 with a budget -> `first-finish`: the accuracy of a majority for less than half of the sequential tokens.
5. Else `vote`, which stops when it is clear (2203.11171, 2305.11860).

As many samples are drawn as slots fit into memory, up to 8; with a single slot 4, one after another. `budget` is of
tokens, "4000", all samples together, or of seconds, "30s". Tokens are divided by the samples, and three quarters of a
share are for the thought, so that an answer comes. Seconds are turned into tokens by the speed of the first 32 tokens
(halved where samples run together), and at the end whatever still runs is stopped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Literal

from runtime.base.errors import UsageError
from runtime.base.events import Event, Notice, TextDrawn
from runtime.base.types import SamplingParams
from runtime.strategies import direct, first_finish, short_m, vote
from runtime.strategies.task import MOST_SAMPLES, Task, was_stopped
from runtime.strategies.verdict import Verdict

Kind = Literal["greeting", "fact", "sum", "writing", "reasoning"]

_MOST = 8
_IN_TURN = 4
# What a sample may take, where nothing else is known: R1 distills think for thousands of tokens on contest problems
# and hundreds on everyday ones; models that do not think aloud answer with a few hundred.
_USUAL_THINKING, _USUAL = 1500, 300
_PROBE = 32
_LONGEST_SUM = 80  # characters; longer ones are no short sum, and would keep the pattern busy
_BUDGET = re.compile(r"(\d{1,9})|(\d{1,6}(?:\.\d{1,3})?)\s*s")

_WRITING = re.compile(
    r"\b(?:write|draft|compose|rewrite|rephrase|summari[sz]e|translate|brainstorm|describe|explain|tell me about|"
    r"essay|poem|haiku|story about|letter to|email)\b", re.IGNORECASE,
)  # fmt: skip
_SUM = re.compile(
    r"(?:(?:what\s+is|what's|calculate|compute|evaluate|how\s+much\s+is)\s+)?[-+*/×÷^().,\d\s]*\d[-+*/×÷^().,\d\s]*[=?.\s]*",
    re.IGNORECASE,
)
_FACT = re.compile(r"(?:who|whom|whose|when|where|which|what|name|is|are|was|were|does|did)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Budget:
    """Tokens of all samples together, or seconds; both None without a limit."""

    tokens: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """'4000' tokens or '30s' of time; '' is no limit. Raises UsageError."""
        if not text.strip():
            return cls()
        found = _BUDGET.fullmatch(text.strip().lower())
        if found is None or not float(found[1] or found[2]):
            raise UsageError(
                f"{text!r} is not a budget", hint="as in budget=4000 for tokens, or budget=30s for seconds"
            )
        return cls(tokens=int(found[1])) if found[1] else cls(seconds=float(found[2]))


@dataclass(frozen=True, slots=True)
class AutoSettings:
    """`budget`: see `Budget.parse`."""

    budget: str = ""

    def __post_init__(self) -> None:
        Budget.parse(self.budget)


@dataclass(frozen=True, slots=True)
class AutoPlan:
    """A strategy of `_RUNS` with its settings. `limit`: the most tokens of one sample. `why` is for a person."""

    strategy: str
    settings: Any
    limit: int | None
    why: str


_RUNS: dict[str, Callable[[Task, Any], Generator[Event, None, Verdict]]] = {
    "direct": direct.run,
    "vote": vote.run,
    "short-m": short_m.run,
    "first-finish": first_finish.run,
}


def run(
    task: Task, settings: AutoSettings, *, now: Callable[[], float] = time.monotonic
) -> Generator[Event, None, Verdict]:
    budget = Budget.parse(settings.budget)
    deadline = None if budget.seconds is None else now() + budget.seconds
    probed, speed = 0, None
    if deadline is not None:
        measured = yield from _speed(task, now)
        if isinstance(measured, Verdict):
            return measured
        probed, speed = measured
    left = None if deadline is None or speed is None else max(int((deadline - now()) * speed), 1)
    plan = choose(
        task.question, family=task.family, slots=task.engine.slots, thinks=task.markers is not None,
        tokens=budget.tokens, tokens_in_time=left,
    )  # fmt: skip
    yield Notice(plan.why)
    limited = replace(task, params=within(task.params, plan.limit, task.markers is not None))
    verdict = yield from _until(deadline, now, limited, _RUNS[plan.strategy](limited, plan.settings))
    return replace(
        verdict,
        strategy="auto",
        rule=f"{plan.strategy}: {verdict.rule}",
        spent=verdict.spent + probed,
        sequential=verdict.sequential + probed,
    )


def choose(
    question: str, *, family: str = "", slots: int = 1, thinks: bool = False, tokens: int | None = None,
    tokens_in_time: int | None = None,
) -> AutoPlan:  # fmt: skip
    """`tokens` may be spent in all; `tokens_in_time` are what one sample alone can draw in the time there is."""
    kind = kind_of(question)
    limit = tokens if tokens is not None else tokens_in_time
    if kind != "reasoning":
        what = {"greeting": "a few words", "fact": "a question of fact", "sum": "a short sum", "writing": "a text"}[
            kind
        ]
        return AutoPlan("direct", direct.DirectSettings(), limit, f"auto: {what} needs no vote, one sample answers it")
    n = min(_MOST, slots) if slots > 1 else _IN_TURN
    fits = f"{slots} slots fit" if slots > 1 else "one slot fits"
    if tokens is not None:
        n = min(n, tokens // (_USUAL_THINKING if thinks else _USUAL))
    if n < 3 or (slots == 1 and tokens_in_time is not None):
        reason = f"a budget of {limit} tokens" if limit is not None else fits
        return AutoPlan(
            "direct", direct.DirectSettings(), limit, f"auto: {reason} is not enough for a vote, one sample answers"
        )
    if tokens is not None:
        limit = tokens // n
    elif tokens_in_time is not None:
        limit = max(tokens_in_time // 2, 1)
    if family in first_finish.LONG_HORIZON:
        why = f"auto: short-m of {n} ({fits}); not first-finish, since the short replies of {family} are the worse ones"
        return AutoPlan("short-m", short_m.ShortMSettings(n=n, m=min(3, n)), limit, why)
    if limit is not None and family == "deepseek-r1":
        why = (
            f"auto: first-finish of {n} ({fits}), since {family}'s short replies are the better ones, within the budget"
        )
        return AutoPlan("first-finish", first_finish.FirstFinishSettings(n=n), limit, why)
    return AutoPlan(
        "vote", vote.VoteSettings(n=n), limit, f"auto: a vote of at most {n} ({fits}), stopped when it is clear"
    )


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


def within(params: SamplingParams, limit: int | None, thinks: bool) -> SamplingParams:
    """Sampling with at most `limit` tokens per sample; a lower limit of the user stays."""
    if limit is None:
        return params
    most = limit if params.max_tokens is None else min(limit, params.max_tokens)
    thought = most * 3 // 4
    if params.think_budget is not None:
        thought = min(thought, params.think_budget)
    return replace(params, max_tokens=most, think_budget=thought if thinks else params.think_budget)


def _speed(task: Task, now: Callable[[], float]) -> Generator[Event, None, tuple[int, float] | Verdict]:
    """Tokens drawn for the measurement, and tokens per second; the verdict where the reply ended or was stopped."""
    yield Notice(f"auto: measuring the speed with {_PROBE} tokens")
    before = task.params.max_tokens
    request = task.request(max_tokens=_PROBE if before is None else min(_PROBE, before))
    drawing = task.draw([request])
    first: float | None = None
    while True:
        try:
            event = next(drawing)
        except StopIteration as ended:
            drawn = ended.value
            break
        if first is None and isinstance(event, TextDrawn):
            first = now()
        yield event
    if was_stopped(drawn) or drawn[0].completion.finish_reason == "stop":
        return replace(direct.judge(drawn), strategy="auto")
    length = len(drawn[0].completion.tokens)
    took = now() - first if first is not None else 0.0
    return length, length / max(took, 1e-3)


def _until(
    deadline: float | None, now: Callable[[], float], task: Task, running: Generator[Event, None, Verdict]
) -> Generator[Event, None, Verdict]:
    """Run a strategy; when the time is over, the samples that still run are stopped, as by the user."""
    if deadline is None:
        return (yield from running)
    told = False
    while True:
        try:
            event = next(running)
        except StopIteration as ended:
            verdict: Verdict = ended.value
            return verdict
        yield event
        if now() >= deadline:
            task.engine.cancel(range(MOST_SAMPLES))
            if not told:
                told = True
                yield Notice("auto: the time is over")
