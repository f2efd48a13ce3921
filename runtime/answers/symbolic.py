"""Whether two formulas are equal, by math-verify, in a child process.

A formula can ask for any amount of time and memory (10^{10^{10}}), and math-verify's own time limit is a signal,
which works in the main thread only. So it runs in a child that is killed when it takes too long; one child serves
the whole life of the program. What cannot be decided in time counts as different.
"""

from __future__ import annotations

import atexit
import json
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from runtime.answers.notation import bare, simple
from runtime.base.errors import Incompatible

_MAX_LENGTH = 300  # characters; published keys stay below 200
_SECONDS = 5.0  # an honest question takes a tenth, more while an engine keeps every core busy
_SECONDS_TO_START = 60.0  # importing takes one second, on a cold disk many more
_MEMORY = 2 << 30

_TEXT = re.compile(r"\\(?:text|mathrm|textrm|mbox)\s*\{[^{}]*\}")
_MARK = re.compile(r"[\\^_=+*/<>()\[\]{}|√π∞≤≥≠-]|\d\s*[A-Za-z,]")
_WORD = re.compile(r"[^\W\d_]{3,}")
_NAMES = re.compile(r"(?<![\\A-Za-z])(sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|exp|pi|theta|infty)(?![a-z])")
_SYMBOLS = {"π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "×": r"\cdot ", "·": r"\cdot "}


def are_formulas(a: str, b: str) -> bool:
    """Whether both may be formulas and one looks like more than a name: words are never taken for products."""
    a, b = as_latex(a), as_latex(b)
    if not (0 < len(a) <= _MAX_LENGTH and 0 < len(b) <= _MAX_LENGTH):
        return False
    return bool(_MARK.search(a) or _MARK.search(b)) and not (_has_words(a) or _has_words(b))


def equal(a: str, b: str) -> bool:
    """Whether two formulas are equal, in either order: math-verify treats key and answer differently.

    Raises Incompatible when math-verify cannot be started.
    """
    return _checker.ask(*sorted((as_latex(a), as_latex(b))))


def as_latex(text: str) -> str:
    """LaTeX of what is written half in LaTeX, half as in a calculator: sqrt(2), 2**3, x and y."""
    text = simple(bare(text)).replace("$", " ").replace("**", "^")
    text = re.sub(r"(?<![\\A-Za-z])sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"√\s*(?:\(([^()]*)\)|(\w+))", r"\\sqrt{\1\2}", text)
    text = _NAMES.sub(r"\\\1 ", text)
    text = re.sub(
        r",?\s*(?:\\(?:text|mathrm)\s*\{\s*(?:and|or)\s*\}|(?<![\\A-Za-z])(?:and|or)(?![A-Za-z]))\s*", ", ", text
    )
    for symbol, command in _SYMBOLS.items():
        text = text.replace(symbol, command)
    return " ".join(text.split())


def _has_words(latex: str) -> bool:
    return bool(_WORD.search(re.sub(r"\\[A-Za-z]+(?:\s*\{[a-z]*matrix\*?\})?", " ", _TEXT.sub(" ", latex))))


class _Checker:
    """The child, started at the first question and again after it had to be killed. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None

    def ask(self, a: str, b: str) -> bool:
        with self._lock:
            try:
                reply, too_late = self._reply(a, b)
                if not reply and not too_late:  # it died, perhaps before the question
                    reply, _ = self._reply(a, b)
            except BaseException:  # Ctrl-C: its reply would be taken for that of the next question
                self._stop()
                raise
            return reply == "equal"

    def _reply(self, a: str, b: str) -> tuple[str, bool]:
        child = self._child or self._start()
        reply, too_late = _within(_SECONDS, child, lambda: _exchange(child, json.dumps([a, b])))
        if too_late or not reply:
            self._stop()
        return reply, too_late

    def stop(self) -> None:
        with self._lock:
            self._stop()

    def _start(self) -> subprocess.Popen[str]:
        self._child = child = subprocess.Popen(
            [sys.executable, "-c", "from runtime.answers.symbolic import main; main()"],
            cwd=Path(__file__).resolve().parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="ascii",
            start_new_session=True,  # Ctrl-C at the terminal is for the parent alone
        )
        greeting, _ = _within(_SECONDS_TO_START, child, lambda: _exchange(child, None))
        if greeting != "ready":
            reason = greeting or "it died while it was loaded"
            raise Incompatible(f"formulas cannot be compared: math-verify: {reason}", hint="reinstall dsr")
        return child

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            with suppress(OSError):  # what was not sent cannot be flushed any more
                assert pipe is not None
                pipe.close()


def _exchange(child: subprocess.Popen[str], question: str | None) -> str:
    """The next line of the child after a question; nothing when it has died."""
    assert child.stdin is not None and child.stdout is not None
    try:
        if question is not None:
            child.stdin.write(question + "\n")
            child.stdin.flush()
        return child.stdout.readline().strip()
    except OSError:
        return ""


def _within(seconds: float, child: subprocess.Popen[str], talk: Callable[[], str]) -> tuple[str, bool]:
    """What `talk` returns, and whether the child was killed because it took too long."""
    late = threading.Event()

    def kill() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        said = talk()
    finally:
        timer.cancel()
        timer.join()  # else it could still kill the child during the next question
    return said, late.is_set()


_checker = _Checker()
atexit.register(_checker.stop)


def main() -> None:
    """The child: two formulas a line in, one word a line out."""
    out, sys.stdout = sys.stdout, sys.stderr  # nothing else may speak on the line
    logging.disable(logging.CRITICAL)
    try:
        import math_verify
    except Exception as error:
        _say(out, ascii(str(error)))
        return
    config = [math_verify.LatexExtractionConfig(boxed_match_priority=-1)]

    def parsed(latex: str) -> Any:
        return math_verify.parse(f"${latex}$", config, fallback_mode="no_fallback", parsing_timeout=None)

    _say(out, "ready")
    for line in sys.stdin:
        _limit()
        try:
            a, b = map(parsed, json.loads(line))
            same = any(math_verify.verify(x, y, timeout_seconds=None) for x, y in ((a, b), (b, a)))
        except Exception:  # recursion, memory, or a bug on a formula nobody thought of
            same = False
        _say(out, "equal" if same else "different")


def _say(out: TextIO, word: str) -> None:
    out.write(word + "\n")
    out.flush()


def _limit() -> None:
    """Memory for good; processor time for one question, for a child whose parent was killed."""
    try:
        import resource
    except ImportError:  # Windows
        return
    spent = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(spent.ru_utime + spent.ru_stime + 2 * _SECONDS) + 1
    for limit, value in ((resource.RLIMIT_AS, _MEMORY), (resource.RLIMIT_CPU, seconds)):
        _, hard = resource.getrlimit(limit)
        with suppress(ValueError, OSError):  # a lower limit of the system stays
            resource.setrlimit(limit, (value, hard))
