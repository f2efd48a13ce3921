"""Shows library events as progress bars on stderr, if that is a terminal; else as a line every ten seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dsr.ui.console import Console, printable
from dsr.ui.event_lines import EventLines
from dsr.ui.text import display_width, truncate_middle
from runtime.base.events import Event, Listener, Notice, Progress
from runtime.base.types import ByteCount

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import ProgressColumn, Task, TaskID

# What stands beside the name: a bar, "99.9 of 99.9 GiB", "99.9 MiB/s" and "99:59:59".
_BESIDE_THE_NAME = 58
_SHORTEST_NAME = 16
_SHORTEST_ITEM = 9  # "trying Dee…M.gguf"
_TOO_SHORT_TO_SHOW = 0.4  # seconds
_BETWEEN_LINES = 10.0  # seconds, where output is no terminal
_WIDTH_OF_LOG = 100
# Columns left free: a terminal shows "^C" where the cursor stands, and a line that it breaks would not be erased.
_FOR_CTRL_C = 4


def amount(unit: str, done: float, total: float | None) -> str:
    """The progress in words: '1.2 of 4.4 GiB', '512 of 4096 tokens', '37%'; '' where nothing is counted."""
    if not (done or total):
        return ""
    if unit == "percent":
        return f"{done:.0f}%"
    if unit != "bytes":
        return f"{done:.0f} of {total:.0f} {unit}" if total else f"{done:.0f} {unit}"
    if not total:
        return str(ByteCount(done))
    now, name = str(ByteCount(done)).split()
    whole, whole_name = str(ByteCount(total)).split()
    return f"{now} of {whole} {name}" if name == whole_name else f"{now} {name} of {whole} {whole_name}"


def speed(unit: str, per_second: float | None) -> str:
    """'12.3 MiB/s' for bytes, '123 tokens/s' for tokens, '' for other units."""
    if not per_second or unit not in ("bytes", "tokens"):
        return ""
    return f"{ByteCount(per_second)}/s" if unit == "bytes" else f"{per_second:.0f} tokens/s"


def time_left(unit: str, seconds: float | None) -> str:
    """'4:05' or '1:04:05' until a transfer, a prompt or a measurement ends; '' while unknown."""
    if seconds is None or unit not in ("bytes", "tokens", "steps", "questions"):
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _name(event: Progress, width: int) -> str:
    """The job and its item, which is shortened; the one that says more, the item, where there is no room for both."""
    job, item = printable(event.job), printable(event.item)
    for_item = width - display_width(job) - 1
    if not item or for_item < min(_SHORTEST_ITEM, display_width(item)):
        return truncate_middle(item or job, width)
    return f"{job} {truncate_middle(item, for_item)}"


class _Display:
    """Bars for `Progress` events, lines for `Notice`. A short job gets no bar. The bars disappear with the last job, so
    that the terminal is free for the next output.

    A timer starts the bar of a job without further events: one batch of a long prompt can take many seconds.
    """

    def __init__(self, console: Console, now: Callable[[], float]) -> None:
        self._console = console
        self._now = now
        self._lock = threading.Lock()
        self._begun: dict[tuple[str, str], float] = {}
        self._latest: dict[tuple[str, str], Progress] = {}
        self._timer: threading.Timer | None = None
        self._bars: Bars | None = None
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Notice):
            self._say(printable(event.text))
        elif isinstance(event, Progress) and self._console.live:
            with self._lock:
                self._move(event)
        elif isinstance(event, Progress) and self._console.human:
            with self._lock:
                self._tell(event)

    def _tell(self, event: Progress) -> None:
        """A line for a log, every ten seconds of a job."""
        key = (event.job, event.item)
        if event.finished:
            self._begun.pop(key, None)
        elif self._now() - self._begun.setdefault(key, self._now()) >= _BETWEEN_LINES:
            self._begun[key] = self._now()
            self._console.say(
                f"{_name(event, _WIDTH_OF_LOG)}: {amount(event.unit, event.done, event.total)}".rstrip(": ")
            )

    def _say(self, text: str) -> None:
        with self._lock:
            if self._bars:  # above the bars; a direct write would land between them
                self._bars.print(text, style="dim", markup=False, highlight=False)
            else:
                self._console.say(text)

    def look(self) -> None:
        """Draws bars for the jobs that have run long enough, even without a new event."""
        with self._lock:
            self._timer = None
            for event in tuple(self._latest.values()):
                self._draw(event)

    def _move(self, event: Progress) -> None:
        key = (event.job, event.item)
        if event.finished:
            self._begun.pop(key, None)
            self._latest.pop(key, None)
            if self._bars and key in self._tasks:
                self._bars.remove_task(self._tasks.pop(key))
            if not self._begun:
                self._stop()
            return
        self._begun.setdefault(key, self._now())
        self._latest[key] = event
        self._draw(event)

    def _draw(self, event: Progress) -> None:
        key = (event.job, event.item)
        if self._now() - self._begun[key] < _TOO_SHORT_TO_SHOW:
            self._look_later()
            return
        bars = self._bars or self._start()
        total = event.total or None
        if key in self._tasks:
            bars.update(self._tasks[key], completed=event.done, total=total)
        else:
            # The amount at the first event does not count for the speed: a resumed download starts there.
            name = _name(event, max(_SHORTEST_NAME, bars.console.width - _BESIDE_THE_NAME))
            self._tasks[key] = bars.add_task(name, total=total, completed=event.done, unit=event.unit)

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(_TOO_SHORT_TO_SHOW, self.look)
            self._timer.daemon = True
            self._timer.start()

    def _start(self) -> Bars:
        from rich.console import Console as RichConsole
        from rich.constrain import Constrain
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        terminal = RichConsole(stderr=True)

        class Narrower(Bars):
            def get_renderables(self) -> Iterator[Constrain]:
                yield Constrain(self.make_tasks_table(self.tasks), terminal.width - _FOR_CTRL_C)

        self._bars = Narrower(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            _column(lambda task: amount(task.fields["unit"], task.completed, task.total)),
            _column(lambda task: speed(task.fields["unit"], task.speed)),
            _column(lambda task: time_left(task.fields["unit"], task.time_remaining)),
            console=terminal,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._bars.start()
        return self._bars

    def close(self) -> None:
        with self._lock:
            self._begun.clear()
            self._latest.clear()
            self._stop()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
            self._tasks.clear()


def _column(words: Callable[[Task], str]) -> ProgressColumn:
    """A column of text without wrapping."""
    from rich.progress import ProgressColumn
    from rich.table import Column
    from rich.text import Text

    class Words(ProgressColumn):
        max_refresh = 0.5

        def render(self, task: Task) -> Text:
            return Text(words(task))

    return Words(table_column=Column(no_wrap=True, justify="right"))


@contextmanager
def showing(console: Console, now: Callable[[], float] = time.monotonic) -> Iterator[Listener]:
    """A listener that draws its events while the block runs, or writes them as lines of JSON."""
    if console.streams:
        yield EventLines(now)
        return
    display = _Display(console, now)
    try:
        yield display
    finally:
        display.close()
