"""One sample in flight: what was drawn so far, what must be decoded next, and how its text comes out."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from runtime.base.errors import Incompatible
from runtime.base.events import TextDrawn
from runtime.base.types import Completion, FinishReason, SamplingParams, TokenStatistics
from runtime.engine.backend import Draw
from runtime.engine.confidence import RunningMean
from runtime.engine.markers import EXTENSION, ThinkingMarkers
from runtime.engine.template import Prompt
from runtime.engine.text_streams import StopStrings, UTF8Pieces
from runtime.engine.thinking import Part, ThinkingSplitter

# A loop: the tail repeats with one period this many times, the first time included, and fills at least MIN_SPAN
# tokens. Ordinary text repeats too: rows of a table, dashes, zeros of a matrix, a line said twice. It rarely
# does so four times word for word over 320 tokens; a sampled model that did seldom finds its way out.
MIN_COPIES = 4
MIN_SPAN = 320
MAX_PERIOD = 256  # about two paragraphs; longer loops exist, and cost at most the thinking budget

_LOOP_STEP = 16  # tokens between two looks
# The n-gram that suggests a period. In any loop as defined above, at least this many tokens at the end occurred
# one period before: `span - period` is smallest where MIN_COPIES * period reaches MIN_SPAN.
_LOOP_NGRAM = MIN_SPAN - MIN_SPAN // MIN_COPIES
_LOOP_WINDOW = MIN_COPIES * MAX_PERIOD + _LOOP_STEP


@dataclass(frozen=True, slots=True)
class Demand:
    """The least confidence, as a mean over the last `window` tokens, below which a sample is cut."""

    confidence: float
    window: int


@dataclass(frozen=True, slots=True)
class Request:
    """One sample to draw. `sample` is its number, which is added to the seed. A `demand` needs `params.statistics`.
    `plain`: thought and answer are not told apart, everything is the answer. `keep_reply`: a later prompt may contain
    the reply, so it stays cached, unless it has a thought, which later prompts leave out. `approximate`: cached parts
    of the prompt may be moved to other positions; see `runtime.engine.splice`.

    Raises Incompatible for a prompt without tokens.
    """

    prompt: Prompt
    params: SamplingParams
    markers: ThinkingMarkers | None = None
    sample: int = 0
    demand: Demand | None = None
    plain: bool = False
    keep_reply: bool = False
    approximate: bool = False

    def __post_init__(self) -> None:
        if not self.prompt.tokens:
            raise Incompatible("the prompt came out empty: the model's vocabulary cannot spell it")


class Sequence:
    """The single mutable type of the engine.

    `cached` positions of prompt + tokens are in the KV cache of `slot`; `pending` are the tokens to decode next, the
    last of which gives the logits to draw from. `tokens` is the reply so far, forced tokens included. `read` tokens
    were decoded before it began to draw.
    """

    __slots__ = (
        "_closing",
        "_extension",
        "_extensions_left",
        "_group",
        "_loops",
        "_pieces",
        "_splitter",
        "_stops",
        "_texts",
        "cached",
        "closed_by",
        "draw",
        "finish_reason",
        "most_slots",
        "pending",
        "read",
        "request",
        "slot",
        "started",
        "statistics",
        "thinking_tokens",
        "tokens",
    )

    def __init__(
        self, request: Request, draw: Draw, closing: Callable[[ThinkingMarkers], list[int]], extension: list[int]
    ) -> None:
        """`closing` returns the tokens that end a thought by force, `extension` are those that prolong it."""
        self.request = request
        self.draw = draw
        self.slot = -1
        self.cached = 0
        self.pending: list[int] = []
        self.tokens: list[int] = []
        self.read = 0
        self.statistics: list[TokenStatistics] = []
        self.thinking_tokens = 0
        self.most_slots = 1
        self.started: float | None = None
        self.finish_reason: FinishReason | None = None
        self.closed_by: Literal["model", "budget", "loop"] | None = None
        self._closing = closing
        self._extension = extension
        self._extensions_left = request.params.extensions
        self._group = RunningMean(request.demand.window) if request.demand else None
        self._loops = LoopDetector()
        self._pieces = UTF8Pieces()
        self._splitter = ThinkingSplitter(
            request.markers,
            request.prompt.starts_in_thought,
            open_header=request.prompt.open_header,
            plain=request.plain,
        )
        self._stops = StopStrings(request.params.stop)
        self._texts: dict[str, list[str]] = {"thinking": [], "answer": []}

    @property
    def most_left(self) -> int:
        """How many tokens may still be drawn: at least 1, and a large number where nothing limits them."""
        limit = self.request.params.max_tokens
        return max(1, limit - len(self.tokens)) if limit is not None else sys.maxsize

    @property
    def text(self) -> tuple[int, ...]:
        """The prompt and the reply so far."""
        return (*self.request.prompt.tokens, *self.tokens)

    def enter(self, slot: int, cached: int) -> None:
        """Take a slot that already holds the first `cached` tokens of the text; everything else is pending."""
        self.slot = slot
        self.cached = cached
        self.pending = [*self.text[cached:]]
        if not self.tokens and self._splitter.in_thought and self.request.params.think_budget == 0:
            self._force_close("budget")

    def accept(self, token: int, piece: bytes, statistics: TokenStatistics | None) -> list[TextDrawn]:
        """Take a drawn token. Sets `pending`, or `finish_reason` when this was the last one."""
        was_thinking = self._splitter.in_thought
        if self._extensions_left and was_thinking and self._closes(piece):
            return self._prolong()
        self.tokens.append(token)
        self.pending = [token]
        if statistics is not None:
            self.statistics.append(statistics)
        drawn = self._emit(self._splitter.feed_token(self._pieces.feed(piece)))
        if self._splitter.in_thought:
            self.thinking_tokens += 1
            drawn += self._govern(token)
        elif was_thinking:
            self.closed_by = "model"
        limit = self.request.params.max_tokens
        if self.finish_reason is None and limit is not None and len(self.tokens) >= limit:
            self.finish_reason = "length"
        if self.finish_reason is None and statistics is not None and self._below_demand(statistics.confidence):
            self.finish_reason = "cut"
        return drawn

    def _closes(self, piece: bytes) -> bool:
        budget = self.request.params.think_budget
        within = budget is None or self.thinking_tokens < budget
        return within and self._splitter.ends_thought(piece.decode("utf-8", "replace"))

    def _prolong(self) -> list[TextDrawn]:
        """Replace the end of the thought by the extension, and go on thinking."""
        self._extensions_left -= 1
        self.thinking_tokens += len(self._extension)
        self._force(self._extension)
        self.pending = [*self._extension]
        return self._emit(self._splitter.feed(EXTENSION))

    def _below_demand(self, confidence: float) -> bool:
        demand, mean = self.request.demand, self._group.add(confidence) if self._group else None
        return demand is not None and mean is not None and mean < demand.confidence

    def _govern(self, token: int) -> list[TextDrawn]:
        """Close the thought when it is over budget or repeats itself; never inside a character.

        Over budget, a mark that may have closed it already is decided first.
        """
        budget = self.request.params.think_budget
        if self._loops.feed(token):
            return self._force_close("loop")
        over = budget is not None and self.thinking_tokens >= budget
        if over and self._pieces.at_boundary and not self._splitter.may_have_ended:
            return self._force_close("budget")
        return []

    def _force_close(self, reason: Literal["budget", "loop"]) -> list[TextDrawn]:
        self.closed_by = reason
        drawn = self._emit(self._splitter.close())
        closing = self._closing(self._splitter.markers) if self._splitter.markers else []
        self._force(closing)
        self.pending = [*self.pending, *closing]
        return drawn

    def _force(self, tokens: list[int]) -> None:
        self.tokens += tokens
        if self.request.params.statistics:
            # Nobody drew these tokens, so they have no probability.
            self.statistics += [TokenStatistics(math.nan, math.nan, math.nan)] * len(tokens)

    def _emit(self, parts: list[tuple[Part, str]]) -> list[TextDrawn]:
        drawn = []
        for part, text in parts:
            if part == "answer":
                text, stopped = self._stops.feed(text)
                if stopped:
                    self.finish_reason = "stop"
            if text:
                self._texts[part].append(text)
                drawn.append(TextDrawn(self.request.sample, part, text))
            if self.finish_reason is not None:
                break
        return drawn

    def finish(self, reason: FinishReason) -> list[TextDrawn]:
        """End the sample; returns the text that was held back, which a stop string leaves behind."""
        drawn = []
        if self.finish_reason != "stop":
            self.finish_reason = None
            last = self._splitter.feed(self._pieces.finish())
            drawn = self._emit(last + self._splitter.finish(complete=reason == "stop"))
            if self._splitter.thought_end is not None:
                self.closed_by = "model"
            held = self._stops.finish()
            if held:
                self._texts["answer"].append(held)
                drawn.append(TextDrawn(self.request.sample, "answer", held))
        self.finish_reason = reason
        return drawn

    def completion(self, now: float) -> Completion:
        return Completion(
            sample=self.request.sample,
            thinking="".join(self._texts["thinking"])[: self._splitter.thought_end],
            answer="".join(self._texts["answer"]),
            tokens=tuple(self.tokens),
            thinking_tokens=self.thinking_tokens,
            finish_reason=self.finish_reason or "cancelled",
            seconds=now - self.started if self.started is not None else 0.0,
            slots=self.most_slots,
            thought_closed_by=self.closed_by,
            statistics=tuple(self.statistics),
            cached=max(0, len(self.request.prompt.tokens) - 1 - self.read) if self.started is not None else 0,
        )


class LoopDetector:
    """Fed with token ids, says when their tail repeats itself. About half a microsecond per token; near a loop a few.

    Tokens are kept as characters of a string, so that searching and comparing run in native code.
    """

    __slots__ = ("_fresh", "_tail")

    def __init__(self) -> None:
        self._tail = ""
        self._fresh: list[str] = []

    def feed(self, token: int) -> bool:
        """Whether the tokens so far end in a loop; answered at every 16th token, False in between."""
        self._fresh.append(chr(token))
        if len(self._fresh) < _LOOP_STEP:
            return False
        self._tail = (self._tail + "".join(self._fresh))[-_LOOP_WINDOW:]
        self._fresh.clear()
        return _loops(self._tail)


def _loops(tail: str) -> bool:
    """Try every period at which the last n-gram occurred before, the shortest first."""
    last = tail[-_LOOP_NGRAM:]
    earliest = max(0, len(tail) - _LOOP_NGRAM - MAX_PERIOD)
    start = tail.rfind(last, earliest, -1)
    while start >= 0:
        period = len(tail) - _LOOP_NGRAM - start
        span = max(MIN_SPAN, MIN_COPIES * period)
        if len(tail) < span:
            return False
        # A tail of `span` tokens has the period when it equals itself moved by it.
        if tail[period - span :] == tail[-span:-period]:
            return True
        start = tail.rfind(last, earliest, start + _LOOP_NGRAM - 1)
    return False
