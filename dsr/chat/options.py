"""The words of a command line become the options of a chat: model and question, strategy, how to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal, cast, get_args

from dsr.loading.context import MIN_SLOT_TOKENS
from dsr.models.sampling import SamplingRequest
from dsr.store.settings import OnFull, Thinking
from dsr.ui.answer import Form
from dsr.ui.console import Console
from runtime.base.errors import UsageError
from runtime.base.texts import decode_text
from runtime.base.types import SamplingParams
from runtime.engine.backend import Backend
from runtime.engine.grammar import Grammar
from runtime.engine.prompt_options import PromptOptions
from runtime.strategies.measured import clause
from runtime.strategies.strategy import BUDGET, STRATEGIES, Strategy, find

# "exact": a file that is given again is part of the new question, as any file. "fast": it takes the place of its
# earlier version, and only the part that changed is read. What stands behind it is moved, and so is what stands behind
# forgotten exchanges.
Edit = Literal["exact", "fast"]

NAME_WIDTH = max(map(len, STRATEGIES))


@dataclass(slots=True)
class ChatOptions:
    """The options of a chat that stay when the model changes; None leaves the choice to the model.

    `asked`: how prompts ask for an answer. `shown`: what of a thought is shown. `stats`: whether tokens and speed are
    shown after each answer. `on_full`: how dsr answers when the conversation outgrows the context. `edit`: how dsr
    reads a prompt that changed in the middle. `grammar`: the form of the answers. `raw`: a terminal shows them as the
    model wrote them.
    """

    sampling: SamplingRequest = field(default_factory=SamplingRequest)
    asked: PromptOptions = field(default_factory=PromptOptions)
    shown: Thinking = "show"
    stats: bool = False
    strategy: Strategy | None = None
    on_full: OnFull = "forget"
    edit: Edit = "exact"
    grammar: Grammar | None = None
    raw: bool = False

    @property
    def form(self) -> Form:
        """How a terminal shows an answer. JSON is no Markdown, and a line break inside of it would be an error."""
        return "exact" if self.grammar is not None else "wrapped" if self.raw else "rendered"


def on_full_of(option: str, value: str) -> OnFull:
    """The value of `--on-full` or `/on-full`. Raises UsageError."""
    if value in get_args(OnFull):
        return cast(OnFull, value)
    raise UsageError(f"{option} must be stop, forget or summary, not {value!r}")


def ends_loops(value: str) -> bool:
    """The value of `--loops`. Raises UsageError."""
    if value not in ("end", "keep"):
        raise UsageError(f"--loops must be end or keep, not {value!r}")
    return value == "end"


def edit_of(value: str) -> Edit:
    """The value of `--edit`. Raises UsageError."""
    if value in get_args(Edit):
        return cast(Edit, value)
    raise UsageError(f"--edit must be exact or fast, not {value!r}")


def strategy_of(
    vote: int | None, name: str | None, settings: Sequence[str], budget: str | None = None
) -> Strategy | None:
    """The strategy of `--vote N`, `--strategy NAME`, `--set KEY=VALUE` and `--budget`; None without one.

    A budget alone is that of one sample. Raises UsageError.
    """
    if budget is not None:
        settings = [*settings, f"{BUDGET}={budget}"]
        name = name or (None if vote is not None else "direct")
    if vote is not None:
        if name not in (None, "vote"):
            raise UsageError(
                f"--vote {vote} means --strategy vote, and --strategy {name} is another", hint="name one of them"
            )
        return find("vote").configured(settings, n=vote)
    if name is None:
        if settings:
            raise UsageError("--set changes a strategy, and none was named", hint="dsr chat --list-strategies")
        return None
    return find(name).configured(settings)


def strategy_notes(strategy: Strategy | None, backend: Backend, params: SamplingParams) -> list[str]:
    """Lines for a person before the samples are drawn."""
    if strategy is None or strategy.voters < 2:
        return []
    notes = []
    if backend.slots < strategy.voters:
        full = backend.context // MIN_SLOT_TOKENS <= backend.slots
        why = f": memory for {backend.context} tokens of context" if full else ""
        notes.append(f"{strategy.voters} samples in waves of {backend.slots}{why}")
    if params.temperature == 0:
        notes.append("at temperature 0 all samples are the same; try --temp 0.6")
    return notes


@dataclass(frozen=True, slots=True)
class ListedStrategy:
    """`settings` with their defaults. `measured`: what it gained; "" if there is nothing to tell."""

    name: str
    summary: str
    settings: str
    measured: str


def table() -> list[ListedStrategy]:
    """Every strategy."""
    return [
        ListedStrategy(
            each.name, each.summary, " ".join(each.defaults()), "" if each.runs_commands else clause(each.name)
        )
        for each in STRATEGIES.values()
    ]


def show_strategies(console: Console) -> None:
    """Show each strategy: its name, its summary, what it gained, and its settings."""
    for each in table():
        console.data(f"{each.name:{NAME_WIDTH}} {each.summary}")
        for line in filter(None, (each.measured, each.settings)):
            console.data(f"{'':{NAME_WIDTH}} {line}", style="dim")
    console.say("every strategy takes --budget 4000 (tokens) or --budget 30s")
    rows = [asdict(each) for each in table()]
    console.json("dsr.chat.strategies/1", {"strategies": rows})


def with_piped_text(piped: bytes | None, prompt: str | None) -> str | None:
    """The question: the piped text, then the prompt; None when both are empty.

    Raises UsageError for bytes that are no text.
    """
    text = decode_text(piped or b"", "standard input").strip()
    return "\n\n".join(part for part in (text, (prompt or "").strip()) if part) or None
