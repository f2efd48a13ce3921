"""Progress in words, and bars that come late and go in time."""

from __future__ import annotations

import re

import pytest

from dsr.ui import progress
from dsr.ui.console import Console
from dsr.ui.progress import _Display, _name, amount, showing, speed, time_left
from runtime.base.events import Notice, Progress
from tests.dsr.chat.chatting import screens

GIB = 1 << 30


@pytest.mark.parametrize(
    ("unit", "done", "total", "words"),
    [
        ("bytes", GIB * 1.2, GIB * 4.4, "1.20 of 4.40 GiB"),
        ("bytes", 512 << 20, 2 * GIB, "512.0 MiB of 2.00 GiB"),
        ("bytes", 512 << 20, None, "512.0 MiB"),
        ("tokens", 512, 4096, "512 of 4096 tokens"),
        ("files", 2, None, "2 files"),
        ("percent", 37.2, 100, "37%"),
        ("steps", 0, None, ""),
    ],
)
def test_amounts(unit: str, done: float, total: float | None, words: str) -> None:
    assert amount(unit, done, total) == words


def test_speeds_and_times() -> None:
    assert speed("bytes", 12.3 * (1 << 20)) == "12.3 MiB/s"
    assert speed("tokens", 123.4) == "123 tokens/s"
    assert (speed("percent", 3), speed("bytes", None)) == ("", "")
    assert (time_left("bytes", 245), time_left("tokens", 3845.2)) == ("4:05", "1:04:05")
    assert (time_left("bytes", None), time_left("files", 3)) == ("", "")


@pytest.mark.parametrize(
    ("job", "item", "width", "name"),
    [
        ("trying", "mine.gguf", 16, "trying mine.gguf"),
        ("trying", "DeepSeek-R1-Distill-Qwen-1.5B-Q4_K_M.gguf", 22, "trying DeepS…_K_M.gguf"),
        ("watching the routers", "everyday", 22, "everyday"),
        ("reading the prompt", "", 22, "reading the prompt"),
        ("reading the prompt", "", 16, "readi…the prompt"),
        ("judging", "", 16, "judging"),
        ("trying", "日本語の模型の名前.gguf", 16, "trying 日….gguf"),
    ],
)
def test_names_that_fit_beside_a_bar(job: str, item: str, width: int, name: str) -> None:
    assert _name(Progress(job, item, 0, 0, "steps"), width) == name


def step(done: int, total: int = 100, job: str = "loading") -> Progress:
    return Progress(job, "x.gguf", done, total, "percent")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the bars are told, in order."""
    told: list[str] = []

    class Bars:
        console = type("Wide", (), {"width": 80})()

        def add_task(self, name: str, *, total: float | None, completed: float, unit: str) -> int:
            told.append(f"add {name} {completed}/{total}")
            return 1

        def update(self, task: int, *, completed: float, total: float | None) -> None:
            told.append(f"update {completed}/{total}")

        def remove_task(self, task: int) -> None:
            told.append("remove")

        def stop(self) -> None:
            told.append("stop")

    def start(self: _Display) -> Bars:
        self._bars = Bars()  # type: ignore[assignment]
        return Bars()

    monkeypatch.setattr(_Display, "_start", start)
    return told


def test_a_quick_job_gets_no_bar(drawn: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    screens(monkeypatch, out=True, err=True)
    now = 0.0
    with showing(Console(), lambda: now) as listen:
        listen(step(0))
        now = 0.3
        listen(step(50))
        listen(step(100))
    assert drawn == []


def test_a_slow_job_gets_a_bar_until_it_is_done(drawn: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    screens(monkeypatch, out=True, err=True)
    now = 0.0
    with showing(Console(), lambda: now) as listen:
        listen(step(0))
        now = 0.5
        listen(step(40))
        listen(step(60))
        listen(step(100))
        assert drawn == ["add loading x.gguf 40/100", "update 60/100", "remove", "stop"]


def test_a_job_that_is_silent_gets_its_bar_all_the_same(drawn: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    screens(monkeypatch, out=True, err=True)
    now = 0.0
    display = _Display(Console(), lambda: now)
    display(step(0))
    now = 0.5
    display.look()  # as the timer does
    assert drawn == ["add loading x.gguf 0/100"]
    display.close()
    assert drawn[-1] == "stop"
    display.look()
    assert drawn[-1] == "stop"


def test_an_unfinished_job_leaves_no_bar_behind(drawn: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    screens(monkeypatch, out=True, err=True)
    now = 0.0
    with pytest.raises(KeyboardInterrupt), showing(Console(), lambda: now) as listen:
        listen(step(0))
        now = 0.5
        listen(step(40))
        raise KeyboardInterrupt
    assert drawn == ["add loading x.gguf 40/100", "stop"]


def test_nobody_watches_no_bars(drawn: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = screens(monkeypatch, out=True, err=False)
    now = 0.0
    with showing(Console(), lambda: now) as listen:
        listen(step(0))
        now = 9.0
        listen(step(40))
        listen(Notice("a \x1b[1mnotice"))
    assert drawn == []
    assert err.getvalue() == "a [1mnotice\n"


def test_real_bars_are_drawn_on_stderr_and_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = screens(monkeypatch, out=True, err=True, columns=80)
    monkeypatch.setattr(progress, "_TOO_SHORT_TO_SHOW", 0.0)
    with showing(Console()) as listen:
        listen(step(40))
        listen(step(100))
    assert out.getvalue() == ""
    assert "loading x.gguf" in err.getvalue()


def test_a_notice_stands_above_the_bars_that_leave_room_for_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal shows "^C" at the cursor, behind the last bar; a line it had to break would not be erased."""
    _, err = screens(monkeypatch, out=True, err=True, columns=80)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(progress, "_TOO_SHORT_TO_SHOW", 0.0)
    with showing(Console()) as listen:
        listen(step(40))
        listen(Notice("the connection broke [1]"))
        listen(step(50))
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err.getvalue())
    lines = [line.split("\r")[-1] for line in plain.splitlines()]
    assert "the connection broke [1]" in lines
    assert 70 < max(len(line) for line in lines if "x.gguf" in line) <= 76


def test_without_a_terminal_long_work_tells_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    _, err = screens(monkeypatch, out=False, err=False)
    clock = [0.0]
    display = _Display(Console(), lambda: clock[0])
    for now, done in zip((0.0, 5.0, 10.0, 19.0, 20.5), (0, 10, 30, 60, 61), strict=True):
        clock[0] = now
        display(step(done))
    display(step(100))
    assert err.getvalue() == "loading x.gguf: 30%\nloading x.gguf: 61%\n"


@pytest.mark.parametrize("console", [Console(quiet=True), Console(json_mode=True)])
def test_quiet_work_tells_nothing(monkeypatch: pytest.MonkeyPatch, console: Console) -> None:
    _, err = screens(monkeypatch, out=False, err=False)
    clock = [0.0]
    display = _Display(console, lambda: clock[0])
    for now in (0.0, 50.0):
        clock[0] = now
        display(step(1))
    assert err.getvalue() == ""
