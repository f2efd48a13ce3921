"""The state of several samples of one question, and its lines in a given space. Pure: events in, lines out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from dsr.ui.console import Style, one_line
from dsr.ui.text import display_width, truncate, truncate_start
from runtime.base.events import Event, Progress, SampleFinished, SampleNoted, TallyChanged, TextDrawn
from runtime.base.types import Completion
from runtime.engine import confidence
from runtime.strategies.bounds import Budget

# One line on a terminal: pieces of text with their styles.
Line = tuple[tuple[str, Style], ...]
State = Literal["drawing", "ended", "stopped"]

_KEPT = 400  # characters of a sample's text, of which the last words are shown
_SPEED_AFTER = 0.5  # seconds; before that a speed is no speed
_ANSWER_WIDTH = 24
_WITH_NUMBERS = 48  # columns; a wider panel also shows tokens and speed


@dataclass(slots=True)
class SampleState:
    """One sample. `tokens` counts pieces of text while the sample is drawn, and its tokens once it has ended.

    `sure`: the geometric mean of the probabilities of its tokens.
    """

    number: int
    started: float
    state: State = "drawing"
    tokens: int = 0
    text: str = ""
    answer: str | None = None
    note: str = ""
    sure: float = 0.0
    seconds: float = 0.0

    def draw(self, text: str, now: float) -> None:
        self.tokens += 1
        self.text = (self.text + text)[-_KEPT:]
        self.seconds = now - self.started

    def end(self, done: Completion) -> None:
        self.tokens, self.seconds = len(done.tokens), done.seconds
        self.sure = confidence.probability(done.statistics)
        self.state = "ended" if done.finish_reason in ("stop", "length") else "stopped"
        self.note = self.note or how_it_ended(done)


@dataclass(slots=True)
class LiveState:
    """The samples so far, and the strategy's tally. A number that is drawn again begins a new sample.

    Samples that are not `voting` answer other questions: only their text is shown. A `budget` counts from `started`, a
    time in seconds.
    """

    title: str
    voting: bool = True
    budget: Budget | None = None
    started: float = 0.0
    samples: dict[int, SampleState] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)  # on samples that have not begun
    votes: tuple[tuple[str, int], ...] = ()
    without: int = 0
    earlier: int = 0  # tokens of samples whose number was drawn again
    reading: Progress | None = None
    now: float = 0.0  # of the last event

    def take(self, event: Event, now: float) -> None:
        self.now = now
        if isinstance(event, Progress):
            self.reading = None if event.finished else event
        elif isinstance(event, TextDrawn):
            self._drawing(event.sample, now).draw(event.text, now)
        elif isinstance(event, SampleFinished) and event.completion.begun:
            self._drawing(event.completion.sample, now).end(event.completion)
        elif isinstance(event, TallyChanged) and self.voting:
            self._drawing(event.sample, now).answer = event.answer
            self.votes, self.without = event.votes, event.without
        elif isinstance(event, SampleNoted) and event.sample in self.samples:
            self.samples[event.sample].note = one_line(event.text)
        elif isinstance(event, SampleNoted):
            self.notes[event.sample] = one_line(event.text)

    @property
    def tokens(self) -> int:
        return self.earlier + sum(sample.tokens for sample in self.samples.values())

    def spent(self, now: float) -> str:
        """'1,200 of 4,000 tokens', '12 of 30 s', '1200 tokens' without a budget."""
        if self.budget is None:
            return f"{self.tokens} tokens"
        if self.budget.seconds is not None:
            return f"{now - self.started:.0f} of {self.budget}"
        return f"{self.tokens:,} of {self.budget}"

    def _drawing(self, number: int, now: float) -> SampleState:
        """The state of the sample that is being drawn under this number."""
        state = self.samples.get(number)
        if state is None or state.state != "drawing":
            self.earlier += state.tokens if state else 0
            state = self.samples[number] = SampleState(number, now, note=self.notes.pop(number, ""))
        return state

    def lines(self, columns: int, rows: int) -> list[Line]:
        """At most `rows` lines of at most `columns`: a headline, a line per sample, and the votes."""
        if rows < 1 or columns < 1:
            return []
        tally = self._tally(columns, max(min(rows // 3, 6), 1)) if rows > 1 else []
        samples = self._sample_lines(columns, rows - 1 - len(tally))
        return [_clipped(line, columns) for line in (self._headline(columns), *samples, *tally)]

    def _headline(self, columns: int) -> Line:
        if self.reading is not None:
            return (
                (truncate(f"{self.reading.job}: {self.reading.done} of {self.reading.total} tokens", columns), "dim"),
            )
        ended = sum(sample.state == "ended" for sample in self.samples.values())
        facts = f"{ended} of {len(self.samples)} ended, {self.spent(self.now)}"
        whole = f"{self.title}: {facts}"
        return ((truncate(whole if display_width(whole) <= columns else facts, columns), "dim"),)

    def _sample_lines(self, columns: int, rows: int) -> list[Line]:
        """Samples that are being drawn first, then the latest; the last line counts the samples that do not fit."""
        if rows < 1:
            return []
        everybody = sorted(self.samples.values(), key=lambda sample: sample.number)
        shown, hidden = everybody, list[SampleState]()
        if len(everybody) > rows:
            wanted = sorted(everybody, key=lambda sample: (sample.state != "drawing", -sample.number))
            shown, hidden = sorted(wanted[: rows - 1], key=lambda sample: sample.number), wanted[rows - 1 :]
        widths = (
            max((len(str(sample.number + 1)) for sample in shown), default=1),
            max((len(str(sample.tokens)) for sample in shown), default=1),
        )
        lines = [_sample_line(sample, columns, widths, self.voting) for sample in shown]
        return [*lines, ((truncate(_summary(hidden), columns), "dim"),)] if hidden else lines

    def _tally(self, columns: int, rows: int) -> list[Line]:
        counted = sorted(self.votes, key=lambda vote: -vote[1])
        bars = [(answer, votes) for answer, votes in counted[:rows]]
        if self.without and len(bars) < rows:
            bars.append(("no answer", self.without))
        names = [truncate(one_line(answer), min(_ANSWER_WIDTH, max(columns // 3, 1))) for answer, _ in bars]
        width = max(map(display_width, names), default=0)
        most = max((votes for _, votes in bars), default=0)
        room = max(columns - width - len(str(most)) - 2, 0)
        unit = min(room / most, 4.0) if most else 0.0
        return [
            (
                (
                    name + " " * (width - display_width(name)),
                    "bold" if index == 0 and answer != "no answer" else "plain",
                ),
                (" " + "█" * max(int(votes * unit), 1 if room else 0), "dim" if answer == "no answer" else "cyan"),
                (f" {votes}", "plain"),
            )
            for index, ((answer, votes), name) in enumerate(zip(bars, names, strict=True))
        ]


def how_it_ended(done: Completion) -> str:
    """A note on a sample that did not come to its own end."""
    if done.looped:
        return "cut: it repeats itself"
    return {"stop": "", "length": "cut at the limit", "cut": "cut: not sure enough", "cancelled": "stopped"}[
        done.finish_reason
    ]


def _clipped(line: Line, columns: int) -> Line:
    """`line` as far as it fits; only a terminal that is too small for anything needs it."""
    kept = []
    for text, style in line:
        text = truncate(text, columns)
        columns -= display_width(text)
        kept.append((text, style))
    return tuple(kept)


def _sample_line(sample: SampleState, columns: int, widths: tuple[int, int], voting: bool) -> Line:
    number = f"{sample.number + 1:{widths[0]}}"
    begin = f"{number} {sample.tokens:{widths[1]}} "
    if columns >= _WITH_NUMBERS:
        begin = f"{number} {sample.tokens:{widths[1]}} tokens {_measure(sample):>6}  "
    room = columns - display_width(begin)
    if room < 1:
        return ((truncate(begin.rstrip(), columns), "plain"),)
    if sample.state == "drawing" or (sample.state == "ended" and not voting):
        note = truncate(f"{sample.note}: " if sample.note and sample.text else sample.note, room)
        return (
            (begin, "plain"),
            (note, "yellow"),
            (truncate_start(one_line(sample.text), room - display_width(note)), "dim"),
        )
    if sample.state == "stopped":
        return ((begin, "plain"), (truncate(sample.note, room), "yellow"))
    said = "no answer" if sample.answer is None else one_line(sample.answer)
    answer = truncate(said, room)
    note = truncate(f"  {sample.note}", room - display_width(answer)) if sample.note else ""
    return ((begin, "plain"), (answer, "yellow" if sample.answer is None else "green"), (note, "dim"))


def _measure(sample: SampleState) -> str:
    """How fast it is being drawn, or how sure the model was of what it drew."""
    if sample.state == "ended" and sample.sure:
        return f"{100 * sample.sure:.0f} %"
    return f"{sample.tokens / sample.seconds:.0f}/s" if sample.seconds > _SPEED_AFTER else ""


def _summary(samples: Sequence[SampleState]) -> str:
    words = {"drawing": "drawing", "ended": "ended", "stopped": "stopped"}
    counts = [(sum(sample.state == state for sample in samples), word) for state, word in words.items()]
    return f"and {len(samples)} more: " + ", ".join(f"{count} {word}" for count, word in counts if count)
