"""An ask: what a client wants drawn, in no API's terms. The server makes it, and an engine process answers it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from dsr.models.sampling import SamplingRequest
from runtime.base.errors import UsageError
from runtime.base.types import Message
from runtime.engine.grammar import Grammar
from runtime.engine.prompt_options import PromptOptions
from runtime.engine.tool_use import ToolUse
from runtime.strategies.strategy import find

if TYPE_CHECKING:
    from pydantic import TypeAdapter

MOST_TEXTS = 2048  # that are embedded at once, as in OpenAI's API
MOST_STOPS = 64  # each is looked for behind every token
MOST_SAMPLES = 64  # of one ask; a strategy may draw more in waves

# What an engine process is asked besides drawing; see `dsr.serve.process.queries`.
QueryKind = Literal["tokenize", "detokenize", "pieces", "ends", "prompt", "count", "embed", "props"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. Either `messages` are a conversation, or `prompt` is plain text or tokens that the model continues.

    `sampling` overrides the recommendation for the model. `samples` are drawn together, unless a `strategy` (its name
    and `settings` as for `dsr chat --strategy NAME --set KEY=VALUE`) draws and judges. `client` names who asks:
    clients take turns. Without `streams`, text is told at the end of a sample alone. `grammar` is the form of each
    answer, given in the field `form` of the request. After `seconds` the answer fails. Raises UsageError for what
    contradicts itself.
    """

    messages: tuple[Message, ...] = ()
    prompt: str | tuple[int, ...] | None = None
    sampling: SamplingRequest = field(default_factory=SamplingRequest)
    options: PromptOptions = field(default_factory=PromptOptions)
    samples: int = 1
    strategy: str = ""
    settings: tuple[str, ...] = ()
    tools: ToolUse | None = None
    grammar: Grammar | None = None
    form: str = ""
    client: str = ""
    streams: bool = True
    seconds: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= MOST_SAMPLES:
            raise UsageError(f"between 1 and {MOST_SAMPLES} answers can be drawn, not {self.samples}")
        if len(self.sampling.stop) > MOST_STOPS:
            raise UsageError(f"at most {MOST_STOPS} texts can end an answer, not {len(self.sampling.stop)}")
        if self.strategy and find(self.strategy).runs_commands:
            raise UsageError(
                f"{self.strategy} runs a command, which no client of a server may choose",
                hint="run it on that machine: dsr chat --strategy repeated-sampling",
            )
        local = find(self.strategy).local if self.strategy else ()
        for key in (setting.partition("=")[0].strip() for setting in self.settings):
            if key in local:
                raise UsageError(
                    f"{key} names a file or command of this machine, which no client of a server may choose",
                    hint=f"run it there: dsr chat --strategy {self.strategy}",
                )
        if self.strategy and self.samples > 1:
            raise UsageError("a strategy gives one answer: leave out the number of answers")
        if self.strategy and self.prompt is not None:
            raise UsageError("a strategy answers a conversation, not a plain prompt")
        if self.seconds is not None and not self.seconds > 0:
            raise UsageError(f"a time limit is above 0 seconds, not {self.seconds:g}")
        if self.prompt is None and not self.messages:
            raise UsageError("there is no message to answer")
        if self.strategy and self.tools is not None and self.tools.offered:
            raise UsageError("a strategy runs no tools: leave out the tools, or the strategy")

    def wire(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def ask_of(wire: Any) -> Ask:
    """The ask that `wire` wrote."""
    return _adapter().validate_python(wire)


@cache
def _adapter() -> TypeAdapter[Ask]:
    from pydantic import TypeAdapter

    return TypeAdapter(Ask)
