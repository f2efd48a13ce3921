"""What several samples of one question are up to, and how that looks in a given space. Pure: events in, lines out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from dsr.ui.console import Style, one_line
from dsr.ui.width import display_width, truncate, truncate_start
from runtime.base.events import Event, Progress, SampleFinished, SampleNoted, TallyChanged, TextDrawn
from runtime.base.types import Completion
from runtime.engine import confidence

# One line on a terminal: pieces of text with their styles.
Line = tuple[tuple[str, Style], ...]
State = Literal["drawing", "ended", "stopped"]

_KEPT = 400  # characters of a sample's text, of which the last words are shown
_SPEED_AFTER = 0.5  # seconds; before that a speed is no speed
_ANSWER_WIDTH = 24
_WITH_NUMBERS = 48  # columns from which on tokens and speed fit beside the words


@dataclass(slots=True)
class Lane:
    """One sample. `tokens` are counted by pieces of text until it has ended, when they are known."""

    sample: int
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
class Board:
    """The samples so far and the votes among those that ended. A number that is drawn again begins a new lane.

    Where they are no `voting` answers to the same question, only their words are shown.
    """

    title: str
    voting: bool = True
    lanes: dict[int, Lane] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)  # on samples that have not begun
    votes: tuple[tuple[str, int], ...] = ()
    without: int = 0
    earlier: int = 0  # tokens of lanes that gave way to new ones
    reading: Progress | None = None

    def take(self, event: Event, now: float) -> None:
        if isinstance(event, Progress):
            self.reading = None if event.finished else event
        elif isinstance(event, TextDrawn):
            self._lane(event.sample, now).draw(event.text, now)
        elif isinstance(event, SampleFinished) and event.completion.begun:
            self._lane(event.completion.sample, now).end(event.completion)
        elif isinstance(event, TallyChanged) and self.voting:
            self._lane(event.sample, now).answer = event.answer
            self.votes, self.without = event.votes, event.without
        elif isinstance(event, SampleNoted) and event.sample in self.lanes:
            self.lanes[event.sample].note = one_line(event.text)
        elif isinstance(event, SampleNoted):
            self.notes[event.sample] = one_line(event.text)

    @property
    def tokens(self) -> int:
        return self.earlier + sum(lane.tokens for lane in self.lanes.values())

    def _lane(self, sample: int, now: float) -> Lane:
        lane = self.lanes.get(sample)
        if lane is None or lane.state != "drawing":
            self.earlier += lane.tokens if lane else 0
            lane = self.lanes[sample] = Lane(sample, now, note=self.notes.pop(sample, ""))
        return lane

    def lines(self, columns: int, rows: int) -> list[Line]:
        """At most `rows` lines of at most `columns`: how far it is, a lane per sample, and the votes."""
        if rows < 1 or columns < 1:
            return []
        tally = self._tally(columns, max(min(rows // 3, 6), 1)) if rows > 1 else []
        lanes = self._lanes(columns, rows - 1 - len(tally))
        return [_clipped(line, columns) for line in (self._headline(columns), *lanes, *tally)]

    def _headline(self, columns: int) -> Line:
        if self.reading is not None:
            return (
                (truncate(f"reading the prompt: {self.reading.done} of {self.reading.total} tokens", columns), "dim"),
            )
        ended = sum(lane.state == "ended" for lane in self.lanes.values())
        facts = f"{ended} of {len(self.lanes)} ended, {self.tokens} tokens"
        whole = f"{self.title}: {facts}"
        return ((truncate(whole if display_width(whole) <= columns else facts, columns), "dim"),)

    def _lanes(self, columns: int, rows: int) -> list[Line]:
        """Those that are drawing first, then the latest; what does not fit is counted in the last line."""
        if rows < 1:
            return []
        everybody = sorted(self.lanes.values(), key=lambda lane: lane.sample)
        shown, hidden = everybody, list[Lane]()
        if len(everybody) > rows:
            wanted = sorted(everybody, key=lambda lane: (lane.state != "drawing", -lane.sample))
            shown, hidden = sorted(wanted[: rows - 1], key=lambda lane: lane.sample), wanted[rows - 1 :]
        widths = (
            max((len(str(lane.sample + 1)) for lane in shown), default=1),
            max((len(str(lane.tokens)) for lane in shown), default=1),
        )
        lines = [_lane_line(lane, columns, widths, self.voting) for lane in shown]
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
    """What must be said of a sample that did not come to its own end."""
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


def _lane_line(lane: Lane, columns: int, widths: tuple[int, int], voting: bool) -> Line:
    number = f"{lane.sample + 1:{widths[0]}}"
    begin = f"{number} {lane.tokens:{widths[1]}} "
    if columns >= _WITH_NUMBERS:
        begin = f"{number} {lane.tokens:{widths[1]}} tokens {_measure(lane):>6}  "
    room = columns - display_width(begin)
    if room < 1:
        return ((truncate(begin.rstrip(), columns), "plain"),)
    if lane.state == "drawing" or (lane.state == "ended" and not voting):
        note = truncate(f"{lane.note}: " if lane.note and lane.text else lane.note, room)
        return (
            (begin, "plain"),
            (note, "yellow"),
            (truncate_start(one_line(lane.text), room - display_width(note)), "dim"),
        )
    if lane.state == "stopped":
        return ((begin, "plain"), (truncate(lane.note, room), "yellow"))
    said = "no answer" if lane.answer is None else one_line(lane.answer)
    answer = truncate(said, room)
    note = truncate(f"  {lane.note}", room - display_width(answer)) if lane.note else ""
    return ((begin, "plain"), (answer, "yellow" if lane.answer is None else "green"), (note, "dim"))


def _measure(lane: Lane) -> str:
    """How fast it is being drawn, or how sure the model was of what it drew."""
    if lane.state == "ended" and lane.sure:
        return f"{100 * lane.sure:.0f} %"
    return f"{lane.tokens / lane.seconds:.0f}/s" if lane.seconds > _SPEED_AFTER else ""


def _summary(lanes: Sequence[Lane]) -> str:
    words = {"drawing": "drawing", "ended": "ended", "stopped": "stopped"}
    counts = [(sum(lane.state == state for lane in lanes), word) for state, word in words.items()]
    return f"and {len(lanes)} more: " + ", ".join(f"{count} {word}" for count, word in counts if count)
