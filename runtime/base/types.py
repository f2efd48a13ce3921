"""Basic types of all rooms: messages, sampling settings, completions, sizes; and counts and lists as text."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from runtime.base.errors import UsageError

# "tool" is what a tool returned, in answer to a call.
Role = Literal["system", "user", "assistant", "tool"]

# Why a sample ended. "length" is the token limit or the end of the context; "stop" an end-of-generation token
# or a stop string; "cut" a confidence below the threshold; "cancelled" that the caller stopped it.
FinishReason = Literal["stop", "length", "cut", "cancelled"]


# The names that OpenAI's API allows, and those of MCP servers (dots, colons and slashes between parts).
_TOOL_NAME = re.compile(r"[\w.:/-]{1,128}", re.ASCII)

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
class ToolCall:
    """A call of a tool in an answer. `arguments` is a JSON text: an object, unless the model made a mistake."""

    id: str
    name: str
    arguments: str

    @property
    def values(self) -> dict[str, Any]:
        """The arguments as an object; {} if they are none."""
        return self._values or {}

    @property
    def complete(self) -> bool:
        """Whether the arguments are a JSON object. A reply may end before they are."""
        return self._values is not None

    @property
    def _values(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self.arguments)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that a model may call. `parameters` is the JSON Schema of its arguments. Raises UsageError."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _TOOL_NAME.fullmatch(self.name):
            raise UsageError(
                f"a tool's name has 1 to 128 letters, digits or any of _ . : / -, unlike {self.name[:200]!r}"
            )
        if self.parameters and self.parameters.get("type", "object") != "object":
            raise UsageError(f"the parameters of the tool {self.name} must be an object")


@dataclass(frozen=True, slots=True)
class OneTool:
    """The choice of the one tool that an answer must call."""

    name: str


ToolChoice = Literal["auto", "none", "required"] | OneTool


@dataclass(frozen=True, slots=True)
class Message:
    """`thinking`: the thought before an answer, for templates that want earlier thoughts back; else "".

    `calls` are the calls of an answer. What a tool returned has the role "tool", the `call_id` of its call and perhaps
    the tool's `name`.
    """

    role: Role
    content: str
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    name: str = ""


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


class _Range(NamedTuple):
    """The values of a sampling setting, both ends included, and how messages call it."""

    name: str
    least: float
    most: float = math.inf


# Outside of these the engine's samplers do nothing, produce no number, or take memory without bound
# (src/llama-sampler.cpp). A penalty of 10 is far more than a model's best tokens lie apart.
_RANGES = {
    "temperature": _Range("temperature", 0, 10),
    "top_k": _Range("top-k", 0, 1_000_000),
    "min_p": _Range("min-p", 0, 1),
    "presence_penalty": _Range("presence-penalty", -10, 10),
    "frequency_penalty": _Range("frequency-penalty", -10, 10),
    "repeat_penalty": _Range("repeat-penalty", 0.1, 10),
    "penalty_last_n": _Range("penalty-last-n", -1, 1_000_000),
    "dry_multiplier": _Range("dry-multiplier", 0, 100),
    "dry_base": _Range("dry-base", 1, 10),
    "dry_allowed_length": _Range("dry-allowed-length", 1, 1000),
    "dry_penalty_last_n": _Range("dry-penalty-last-n", -1, 1_000_000),
    "xtc_probability": _Range("xtc-probability", 0, 1),
    "xtc_threshold": _Range("xtc-threshold", 0, 1),
    "top_n_sigma": _Range("top-n-sigma", 0, 100),
    "dynatemp_range": _Range("dynatemp-range", 0, 10),
    "dynatemp_exponent": _Range("dynatemp-exponent", 0, 10),
    "seed": _Range("the seed", 0, 2**32 - 1),
    "max_tokens": _Range("the token limit", 1),
    "think_budget": _Range("the thinking budget", 0),
    "top_logprobs": _Range("top-logprobs", 0, 100),  # five times as many as OpenAI's API gives
    "extensions": _Range("the number of extensions", 0),
}
_SHARES = {"top_p": "top-p", "typical_p": "typical-p"}  # above 0 and at most 1
_LONGEST_BREAKER = 40  # bytes; the engine cuts longer ones (llama_sampler_init_dry)
_MOST_BREAKERS = 64  # the engine reads the whole vocabulary for each
_MOST_BIASES = 1000
DRY_BREAKERS = ("\n", ":", '"', "*")  # llama.cpp's (common/common.h)


def out_of_range(setting: str, value: float) -> str | None:
    """'must be between 0 and 10, not 12' for a number that a field of `SamplingParams` does not take, else None."""
    if setting in _SHARES:
        return None if 0 < value <= 1 else f"must be above 0 and at most 1, not {value:.10g}"
    if setting not in _RANGES or _RANGES[setting].least <= value <= _RANGES[setting].most:
        return None
    _, least, most = _RANGES[setting]
    wanted = f"at least {least:,}" if most == math.inf else f"between {least:,} and {most:,}"
    return f"must be {wanted}, not {value:.10g}"


def range_text(setting: str) -> str:
    """'0 to 10', 'at least 1' or 'above 0, at most 1' for a field of `SamplingParams`; "" where any value will do."""
    if setting in _SHARES:
        return "above 0, at most 1"
    if setting not in _RANGES:
        return ""
    _, least, most = _RANGES[setting]
    return f"at least {least:,}" if most == math.inf else f"{least:,} to {most:,}"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to draw tokens. The defaults from `presence_penalty` on are neutral, as are `min_p`, `top_k` 0 and `top_p` 1.

    Temperature 0 is greedy. Names and meanings are those of llama.cpp (common_params_sampling in common/common.h):
    the penalties count the last `penalty_last_n` tokens of prompt and reply, -1 for all. `repeat_penalty` divides
    logits, the other two are subtracted, `frequency_penalty` once per occurrence. DRY makes a token that would prolong
    a repetition less likely, XTC removes the likeliest tokens, and a dynamic temperature follows the entropy.

    `logit_bias` adds to the logit of a token, or to those of all tokens that spell a text; -inf forbids them.
    `extensions`: how often the end of the thought is replaced by "Wait". `statistics` asks for `Completion.statistics`.
    `top_logprobs` asks for an event `TokenDrawn` for each token, with as many of the likeliest tokens. `entropy` takes
    the place of temperature, filters and penalties. `end_loops`: an answer that repeats itself without end is cut.
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
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_penalty: float = 1.0
    penalty_last_n: int = 64
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    dry_sequence_breakers: tuple[str, ...] = DRY_BREAKERS
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    typical_p: float = 1.0
    top_n_sigma: float = 0.0
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    logit_bias: tuple[tuple[int | str, float], ...] = ()
    top_logprobs: int | None = None
    end_loops: bool = False

    def __post_init__(self) -> None:
        for setting, name in ({key: each.name for key, each in _RANGES.items()} | _SHARES).items():
            value = getattr(self, setting)
            if value is not None and (complaint := out_of_range(setting, value)):
                raise UsageError(f"{name} {complaint}")
        if any(not text for text in self.stop):
            raise UsageError("a stop string cannot be empty")
        self._check_breakers()
        self._check_biases()

    @property
    def penalises(self) -> bool:
        """Whether a presence, frequency or repeat penalty changes anything."""
        return (self.presence_penalty, self.frequency_penalty, self.repeat_penalty) != (0, 0, 1)

    @property
    def remembered(self) -> int:
        """How many of the last tokens of the text matter for the next one; -1 for all."""
        windows = [self.penalty_last_n] if self.penalises else []
        windows += [self.dry_penalty_last_n] if self.dry_multiplier else []
        return -1 if -1 in windows else max(windows, default=0)

    def _check_breakers(self) -> None:
        if len(self.dry_sequence_breakers) > _MOST_BREAKERS:
            raise UsageError(f"at most {_MOST_BREAKERS} DRY sequence breakers, not {len(self.dry_sequence_breakers)}")
        for text in self.dry_sequence_breakers:
            if not 0 < len(text.encode("utf-8", "replace")) <= _LONGEST_BREAKER or "\0" in text:
                raise UsageError(f"a DRY sequence breaker has 1 to {_LONGEST_BREAKER} bytes, not {text!r}")

    def _check_biases(self) -> None:
        if len(self.logit_bias) > _MOST_BIASES:
            raise UsageError(f"at most {_MOST_BIASES} logit biases, not {len(self.logit_bias)}")
        for token, bias in self.logit_bias:
            if token == "" or (isinstance(token, int) and token < 0):
                raise UsageError(f"a logit bias is for a token or a text, not {token!r}")
            if not (-100 <= bias <= 100 or bias == -math.inf):
                raise UsageError(f"a logit bias must be between -100 and 100, or -inf, not {bias}")


class TokenStatistics(NamedTuple):
    """How sure a model was of one token, from the raw softmax p over its vocabulary of V tokens, in nats.

    `logprob`: log p of the token drawn. `confidence`: minus the mean log p of the 20 likeliest tokens (DeepConf, arXiv
    2508.15260). `certainty`: minus the mean log p of all tokens, less log V, which is the KL divergence of p from the
    uniform distribution (self-certainty, arXiv 2502.18581). All three are NaN for a token that was forced.
    """

    logprob: float
    confidence: float
    certainty: float


class TokenLogprob(NamedTuple):
    """A token, its bytes, and its log-probability in nats."""

    token: int
    piece: bytes
    logprob: float


class Logprobs(NamedTuple):
    """The log-probability of the token drawn, in nats, and the likeliest tokens, the likeliest first."""

    drawn: float
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished sample.

    `tokens` are all tokens of the reply in order, thought included, the end token not. `statistics`, when asked for,
    has an entry for each of them. `slots` is the number of sequences that were decoded together at most: the last bits,
    so sometimes the text, depend on it. `cached`: tokens of its prompt that were in the cache, so not decoded for it.
    `rivals`: log-probabilities in nats of `Request.rivals`, in the place of the reply's first token.
    `hidden`: the hidden state that `Request.hidden` asks for.
    `calls` are the calls of tools, which `answer` leaves out. `stop_string` is the one that ended it, which `answer`
    leaves out, too; empty for any other end. `first_token_seconds` and `latency` count from its turn in the engine,
    before its prompt is read, to its first token and to its end; `seconds` from the end of the prompt. `looped`: it was
    cut because its answer repeated itself; `finish_reason` is then "length".
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
    rivals: tuple[float, ...] = ()
    hidden: tuple[float, ...] = ()
    cached: int = 0
    calls: tuple[ToolCall, ...] = ()
    stop_string: str = ""
    first_token_seconds: float = 0.0
    latency: float = 0.0
    looped: bool = False

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
