"""One sample in flight: what was drawn so far, what must be decoded next, and how its text comes out."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from runtime.base.errors import Incompatible
from runtime.base.events import TextDrawn, TokenDrawn, ToolCallGrew
from runtime.base.types import Completion, FinishReason, Logprobs, SamplingParams, TokenStatistics, ToolCall
from runtime.engine.allowance import Allowance
from runtime.engine.backend import Draw
from runtime.engine.confidence import RunningMean
from runtime.engine.constrained_answer import ConstrainedAnswer
from runtime.engine.grammar import Grammar
from runtime.engine.loop_detector import LoopDetector
from runtime.engine.markers import EXTENSION, ThinkingMarkers
from runtime.engine.template import Prompt
from runtime.engine.text_streams import StopStrings, UTF8Pieces
from runtime.engine.thinking import Part, ThinkingSplitter
from runtime.engine.thought_end import grace, may_end
from runtime.engine.tool_calls import Calling, CallReader, Grown, call_reader, ids_of

Drawn = TextDrawn | ToolCallGrew | TokenDrawn


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
    of the prompt may be moved to other positions; see `runtime.engine.splice`. `grammar`: the form of the answer; the
    thought before it is free, and ends by force if the model ends its reply in it. `calling`: what it may call; its
    answer is then stripped at the end, too. `given`: the tokens of the reply, which are scored instead of drawn; the
    completion has their statistics and no text. `rivals`: other tokens that are scored in the place of the first one.
    `hidden`: nothing is drawn, and the completion has the hidden state of the last token of the prompt. `allowance`:
    what it may draw together with other samples.

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
    grammar: Grammar | None = None
    calling: Calling | None = None
    given: tuple[int, ...] = ()
    rivals: tuple[int, ...] = ()
    hidden: bool = False
    allowance: Allowance | None = None

    def __post_init__(self) -> None:
        if not self.prompt.tokens:
            raise Incompatible("the prompt came out empty: the model's vocabulary cannot spell it")

    @property
    def draws(self) -> bool:
        """Whether its tokens are drawn, and not scored or only read."""
        return not self.given and not self.hidden


class Sequence:
    """The single mutable type of the engine.

    `cached` positions of prompt + tokens are in the KV cache of `slot`; `pending` are the tokens to decode next, the
    last of which gives the logits to draw from. `tokens` is the reply so far, forced tokens included. `read` tokens
    were decoded before it began to draw. `taken`, `started` and `first_drawn` are times: it left the queue, its prompt
    was read, its first token was drawn.
    """

    __slots__ = (
        "_answer_loops",
        "_closing_at",
        "_constrained",
        "_draw",
        "_extensions_left",
        "_group",
        "_loops",
        "_pieces",
        "_reader",
        "_splitter",
        "_stops",
        "_texts",
        "_tokens_of",
        "cached",
        "closed_by",
        "finish_reason",
        "first_drawn",
        "hidden",
        "looped",
        "most_slots",
        "pending",
        "read",
        "request",
        "rivals",
        "slot",
        "started",
        "statistics",
        "taken",
        "thinking_tokens",
        "tokens",
    )

    def __init__(
        self,
        request: Request,
        draw: Draw,
        tokens_of: Callable[[str], list[int]],
        constrained: ConstrainedAnswer | None = None,
    ) -> None:
        """`tokens_of` returns the tokens of a text that is written by force, such as the end of a thought."""
        self.request = request
        self._draw = draw
        self._constrained = constrained
        self.slot = -1
        self.cached = 0
        self.pending: list[int] = []
        self.tokens: list[int] = []
        self.read = 0
        self.statistics: list[TokenStatistics] = []
        self.rivals: list[float] = []
        self.hidden: tuple[float, ...] = ()
        self.thinking_tokens = 0
        self.most_slots = 1
        self.taken: float | None = None
        self.started: float | None = None
        self.first_drawn: float | None = None
        self.finish_reason: FinishReason | None = None
        self.closed_by: Literal["model", "budget", "loop"] | None = None
        self._tokens_of = tokens_of
        self._extensions_left = request.params.extensions
        self._group = RunningMean(request.demand.window) if request.demand else None
        self._loops = LoopDetector()
        self._closing_at: int | None = None  # the length of the thought at which its allowance closes it
        self._answer_loops = LoopDetector() if request.params.end_loops else None
        self.looped = False
        self._pieces = UTF8Pieces()
        self._splitter = ThinkingSplitter(
            request.markers,
            request.prompt.starts_in_thought,
            open_header=request.prompt.open_header,
            plain=request.plain,
            continued=request.prompt.begun is not None,
            calls=request.calling.form.call_marks if request.calling else None,
        )
        self._reader = self._call_reader(request.calling) if request.calling else None
        self._stops = StopStrings(request.params.stop)
        self._texts: dict[str, list[str]] = {"thinking": [], "answer": []}

    def _call_reader(self, calling: Calling) -> CallReader:
        prompt = self.request.prompt
        begun = prompt.begun is None and calling.begun_by(prompt.text)
        if begun:
            self._splitter.begin_calls()
        seed = (self.request.params.seed, self.request.sample, prompt.tokens)
        return call_reader(calling, ids_of(calling.form.ids, seed), begun=begun)

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
        # Of a given reply the last token need not be decoded: nothing comes after it.
        self.pending = [*self.text[cached:], *self.request.given[len(self.tokens) : -1]]
        if not self.tokens and self._splitter.in_thought and self.request.params.think_budget == 0:
            self._force_close("budget")

    @property
    def outputs(self) -> int:
        """How many of the pending tokens have a row of logits that is needed: the last one, or all of a given reply."""
        return len(self.request.given) - len(self.tokens) if self.request.given else 1

    @property
    def before_answer(self) -> bool:
        """Whether the reply is in its thought, or in the header of a message."""
        return self._splitter.in_thought or self._splitter.in_header

    def draw(self, row: int) -> int:
        """The next token, from a row of logits of the last decode. Raises OutOfGrammar."""
        constrained = self._constrained
        if constrained is None or self.before_answer:
            return self._draw(row, self.tokens)
        return self._draw(row, self.tokens, constrained.constraint, constrained.also)

    def take_hidden(self, hidden: tuple[float, ...]) -> None:
        """The prompt was read: this is the hidden state of its last token."""
        self.hidden = hidden
        self.finish_reason = "stop"

    def take_given(self, statistics: TokenStatistics) -> None:
        """The next given token was scored. Sets `finish_reason` behind the last one."""
        given = self.request.given
        self.tokens.append(given[len(self.tokens)])
        self.statistics.append(statistics)
        if len(self.tokens) == len(given):
            self.finish_reason = "stop"

    def accept(
        self, token: int, piece: bytes, statistics: TokenStatistics | None, logprobs: Logprobs | None = None
    ) -> list[Drawn]:
        """Take a drawn token. Sets `pending`, or `finish_reason` when this was the last one, or one too many."""
        was_thinking = self._splitter.in_thought
        if self._extensions_left and was_thinking and self._closes(piece):
            return [*self._prolong()]
        if self.request.allowance is not None and not self.request.allowance.take(1):
            self.finish_reason = "cancelled"
            return []
        constrained = None if self.before_answer else self._constrained
        self.tokens.append(token)
        self.pending = [token]
        if statistics is not None:
            self.statistics.append(statistics)
        text = self._pieces.feed(piece)
        if constrained is not None and constrained.take(token):
            drawn = self._emit([("answer" if self._reader is None else "calls", text)])
            if self.finish_reason is None and constrained.constraint.complete:
                self.finish_reason = "stop"
        else:
            drawn = self._emit(self._splitter.feed_token(text))
            if constrained is not None:
                self._open_thought(constrained.opens_with(token))
            elif self._constrained is not None:
                drawn += self._emit(self._splitter.decide())
        if self._splitter.in_thought:
            self.thinking_tokens += 1
            drawn += self._govern(token, text)
        elif was_thinking:
            self.closed_by = "model"
            if self._constrained is not None:
                self._constrained.thought_ended(by_force=False)
                self._write_header()
        elif constrained is None and self._answer_loops is not None and self._answer_loops.feed(token):
            self.looped = True
            self.finish_reason = self.finish_reason or "length"
        limit = self.request.params.max_tokens
        if self.finish_reason is None and limit is not None and len(self.tokens) >= limit:
            self.finish_reason = "length"
        if self.finish_reason is None and statistics is not None and self._below_demand(statistics.confidence):
            self.finish_reason = "cut"
        if logprobs is None:
            return [*drawn]
        markers = self._splitter.markers
        mark = markers is not None and piece.decode("utf-8", "replace") in markers.texts  # no part of an answer's text
        part: Literal["thinking", "answer"] = (
            "thinking" if was_thinking or self._splitter.in_thought or mark else "answer"
        )
        return [TokenDrawn(self.request.sample, part, token, piece, *logprobs), *drawn]

    def answer_now(self) -> list[TextDrawn | ToolCallGrew] | None:
        """The model ends its reply before the answer that a grammar asks for: end its thought or header by force.

        Returns the text that this completes; None if the reply may end.
        """
        if self._constrained is None or not self.before_answer:
            return None
        if self._splitter.in_thought:
            return self._force_close("model")
        drawn = self._emit(self._splitter.close())
        self._write_header()
        return drawn

    def _open_thought(self, rest: tuple[int, ...]) -> None:
        """Write the rest of the mark that opens a thought."""
        if rest:
            self._splitter.open()
            self._force([*rest])

    def _write_header(self) -> None:
        """Write what stands between a thought and the answer, so that the grammar begins where it should."""
        markers = self._splitter.markers
        if markers is not None and markers.header is not None:
            self._force(self._tokens_of(markers.answer_open))

    def _closes(self, piece: bytes) -> bool:
        budget = self.request.params.think_budget
        within = budget is None or self.thinking_tokens < budget
        return within and self._splitter.ends_thought(piece.decode("utf-8", "replace"))

    def _prolong(self) -> list[TextDrawn | ToolCallGrew]:
        """Replace the end of the thought by the extension, and go on thinking."""
        extension = self._tokens_of(EXTENSION)
        self._extensions_left -= 1
        self.pending = []
        before = len(self.tokens)
        self._force(extension)
        self.thinking_tokens += len(self.tokens) - before
        return self._emit(self._splitter.feed(EXTENSION))

    def _below_demand(self, confidence: float) -> bool:
        demand, mean = self.request.demand, self._group.add(confidence) if self._group else None
        return demand is not None and mean is not None and mean < demand.confidence

    def _govern(self, token: int, text: str) -> list[TextDrawn | ToolCallGrew]:
        """Close the thought when it is over budget or repeats itself; never inside a character.

        Over budget, a mark that may have closed it already is decided first.
        """
        if self._loops.feed(token):
            return self._force_close("loop")
        if self._over_budget(text) and self._pieces.at_boundary and not self._splitter.may_have_ended:
            return self._force_close("budget")
        return []

    def _over_budget(self, text: str) -> bool:
        """Whether the thought, which just grew by `text`, must end for its budget or for the allowance."""
        budget, allowance = self.request.params.think_budget, self.request.allowance
        if self._closing_at is None and allowance is not None and allowance.closing:
            self._closing_at = self.thinking_tokens + grace(self.thinking_tokens)
        limits = [each for each in (budget, self._closing_at) if each is not None]
        return bool(limits) and may_end(self.thinking_tokens, min(limits), text)

    def _force_close(self, reason: Literal["model", "budget", "loop"]) -> list[TextDrawn | ToolCallGrew]:
        self.closed_by = reason
        drawn = self._emit(self._splitter.close())
        markers = self._splitter.markers
        if markers is not None:
            conclusion = f"\n\n{markers.conclusion}" if markers.conclusion and reason != "model" else ""
            if conclusion and self.thinking_tokens:
                before = len(self.tokens)
                self._force(self._tokens_of(conclusion))
                self.thinking_tokens += len(self.tokens) - before
                drawn += self._emit([("thinking", conclusion)])
            if self.finish_reason is None:
                self._force(self._tokens_of(markers.forced_close))
        if self._constrained is not None:
            self._constrained.thought_ended(by_force=True)
        return drawn

    def _force(self, tokens: list[int]) -> None:
        """Go on with tokens that nobody drew."""
        if self.request.allowance is not None and not self.request.allowance.take(len(tokens)):
            self.finish_reason = "cancelled"
            return
        self.tokens += tokens
        self.pending = [*self.pending, *tokens]
        if self.request.params.statistics:
            # They have no probability.
            self.statistics += [TokenStatistics(math.nan, math.nan, math.nan)] * len(tokens)

    def _emit(self, parts: list[tuple[Part, str]]) -> list[TextDrawn | ToolCallGrew]:
        drawn: list[TextDrawn | ToolCallGrew] = []
        for part, text in parts:
            read: list[str | Grown] = [text] if part != "calls" or self._reader is None else self._reader.feed(text)
            self._tell("thinking" if part == "thinking" else "answer", read, drawn)
            if self.finish_reason is not None:
                break
        return drawn

    def _tell(
        self, part: Literal["thinking", "answer"], read: list[str | Grown], drawn: list[TextDrawn | ToolCallGrew]
    ) -> None:
        """Add text and calls to `drawn`, up to a stop string in the answer, or the end of the only call."""
        for text in read:
            if isinstance(text, Grown):
                if text.index == 0 or (self.request.calling and self.request.calling.parallel):
                    drawn.append(ToolCallGrew(self.request.sample, text.index, text.id, text.name, text.arguments))
                continue
            if part == "answer":
                text, stopped = self._stops.feed(text)
                if stopped:
                    self.finish_reason = "stop"
            if text:
                self._texts[part].append(text)
                drawn.append(TextDrawn(self.request.sample, part, text))
            if self.finish_reason is not None:
                return
        calling, reader = self.request.calling, self._reader
        if calling and reader and not calling.parallel and reader.calls and reader.calls[0].state == "complete":
            self.finish_reason = "stop"

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls of the reply so far."""
        if self._reader is None or self.request.calling is None:
            return ()
        calls = self._reader.calls if self.request.calling.parallel else self._reader.calls[:1]
        return tuple(call.done() for call in calls)

    def finish(self, reason: FinishReason) -> list[TextDrawn | ToolCallGrew]:
        """End the sample; returns the text that was held back, which a stop string leaves behind."""
        drawn: list[TextDrawn | ToolCallGrew] = []
        if not self._stops.met:
            self.finish_reason = None
            last = self._pieces.finish()
            if self._constrained is not None and self._constrained.begun:
                drawn = self._emit([("answer" if self._reader is None else "calls", last)])
            else:
                ended = self._splitter.feed(last) + self._splitter.finish(complete=reason == "stop")
                drawn = self._emit(ended)
            if self._reader is not None:
                self._tell("answer", self._reader.finish(), drawn)
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
            rivals=tuple(self.rivals),
            hidden=self.hidden,
            cached=max(0, len(self.request.prompt.tokens) - 1 - self.read) if self.started is not None else 0,
            stop_string=self._stops.met,
            first_token_seconds=self._since_taken(self.first_drawn if self.first_drawn is not None else now),
            latency=self._since_taken(now),
            calls=self.calls,
            looped=self.looped,
        )

    def _since_taken(self, now: float) -> float:
        return now - self.taken if self.taken is not None else 0.0
