"""Basic types of all rooms: messages, sampling settings, completions, sizes; and counts and lists as text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from runtime.base.errors import UsageError

Role = Literal["system", "user", "assistant"]

# Why a sample ended. "length" is the token limit or the end of the context; "stop" an end-of-generation token
# or a stop string; "cut" a confidence below the threshold; "cancelled" that the caller stopped it.
FinishReason = Literal["stop", "length", "cut", "cancelled"]


# "G" alone means GiB, as usual for memory.
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*(?:([kmgt]?)(i?)b?)", re.IGNORECASE)


class ByteCount(int):
    """A number of bytes that prints itself for people: 'ByteCount(4 << 30)' reads '4.00 GiB'."""

    @classmethod
    def parse(cls, text: str) -> ByteCount:
        """'4GiB', '4.5 G', '500MB' (of 1000 x 1000 bytes), '123'. Raises UsageError."""
        found = _SIZE.fullmatch(text.strip())
        if found is None:
            raise UsageError(f"{text!r} is not a size", hint="write it like 4GiB, 500MiB or 4000000000")
        number, unit, binary = found.groups()
        decimal = text.strip()[-1:] in "bB" and not binary
        step = 1000 if decimal else 1024
        return cls(Fraction(number) * step ** " kmgt".index(unit.lower() or " "))

    def __str__(self) -> str:
        size = float(self)
        for unit in ("B", "KiB", "MiB", "GiB"):
            if abs(size) < 1024 or unit == "GiB":
                return f"{int(size)} B" if unit == "B" else f"{size:.{2 if abs(size) < 10 else 1}f} {unit}"
            size /= 1024
        raise AssertionError("unreachable")

    def __format__(self, spec: str) -> str:
        return format(str(self), spec) if not spec or spec[-1] not in "dnxX" else format(int(self), spec)


@dataclass(frozen=True, slots=True)
class Message:
    """`thinking`: the thought before an answer, for templates that want earlier thoughts back; else ""."""

    role: Role
    content: str
    thinking: str = ""


@dataclass(frozen=True, slots=True)
class EntropyMinimisation:
    """EM-INF: before a token is drawn, Adam steps on its logits lower their entropy (arXiv 2505.15134).

    The defaults are those of the authors' scripts: github.com/shivamag125/EM_PT, eval/utils/em_inf_utils.py.
    """

    threshold: float = 0.3
    kl_weight: float = 0.05
    learning_rate: float = 0.1
    steps: int = 3
    temperature: float = 0.1


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to draw tokens. Temperature 0 is greedy; `min_p`, `top_k` 0 and `top_p` 1 switch that filter off.

    `extensions`: how often the end of the thought is replaced by "Wait". `statistics` asks for `Completion.statistics`.
    `entropy` takes the place of temperature and filters.
    """

    temperature: float = 0.6
    top_p: float = 0.95
    min_p: float = 0.0
    top_k: int = 40
    seed: int = 0
    max_tokens: int | None = None
    think_budget: int | None = None
    stop: tuple[str, ...] = ()
    extensions: int = 0
    statistics: bool = False
    entropy: EntropyMinimisation | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 10:
            raise UsageError(f"temperature must be between 0 and 10, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top-p must be above 0 and at most 1, not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise UsageError(f"min-p must be between 0 and 1, not {self.min_p}")
        if not 0 <= self.top_k <= 1_000_000:
            raise UsageError(f"top-k must be 0 or a positive number, not {self.top_k}")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UsageError(f"the token limit must be at least 1, not {self.max_tokens}")
        if self.think_budget is not None and self.think_budget < 0:
            raise UsageError(f"the thinking budget must be at least 0, not {self.think_budget}")
        if self.extensions < 0:
            raise UsageError(f"the number of extensions must be at least 0, not {self.extensions}")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"the seed must be between 0 and 4294967295, not {self.seed}")
        if any(not text for text in self.stop):
            raise UsageError("a stop string cannot be empty")


class TokenStatistics(NamedTuple):
    """How sure a model was of one token, from the raw softmax p over its vocabulary of V tokens, in nats.

    `logprob`: log p of the token drawn. `confidence`: minus the mean log p of the 20 likeliest tokens (DeepConf, arXiv
    2508.15260). `certainty`: minus the mean log p of all tokens, less log V, which is the KL divergence of p from the
    uniform distribution (self-certainty, arXiv 2502.18581). All three are NaN for a token that was forced.
    """

    logprob: float
    confidence: float
    certainty: float


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished sample.

    `tokens` are all tokens of the reply in order, thought included, the end token not. `statistics`, when asked for,
    has an entry for each of them. `slots` is the number of sequences that were decoded together at most: the last bits,
    so sometimes the text, depend on it. `cached`: tokens of its prompt that were in the cache, so not decoded for it.
    """

    sample: int
    thinking: str
    answer: str
    tokens: tuple[int, ...]
    thinking_tokens: int
    finish_reason: FinishReason
    seconds: float
    slots: int = 1
    thought_closed_by: Literal["model", "budget", "loop"] | None = None
    statistics: tuple[TokenStatistics, ...] = ()
    cached: int = 0

    @property
    def answer_tokens(self) -> int:
        return len(self.tokens) - self.thinking_tokens

    @property
    def begun(self) -> bool:
        """Whether at least one token was drawn."""
        return self.finish_reason != "cancelled" or bool(self.tokens)


def counted(count: int, one: str, many: str = "") -> str:
    """'1 tensor', '3 tensors'. `many` is the plural if it is not `one` with an s: "tensor is", "tensors are"."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def listed(names: Sequence[str], separator: str = ", ", most: int = 12) -> str:
    """The names in a row, 'a, b, c', and after `most` of them 'and 7 more'."""
    more = f"{separator}and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more
