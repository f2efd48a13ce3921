"""How hostile chat templates end: each is made by chance from every operation of the sandbox, with large operands.

    python tests/peers/hostile_templates.py [--count N] [--seed S] [--show]

Each template is read and rendered in a process of its own. It is handled when it ends by itself, with a prompt or with
one line of error, within limits: seconds of processor time, memory, and the time in which no Ctrl-C would be heard.
Exit code 1 where a template was not. `--show` prints every template and its end.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import select
import signal
import sys
import time
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runtime.base.errors import Incompatible
from runtime.base.types import Message
from runtime.engine.sandbox import meter
from runtime.engine.sandbox.operations import FILTERS, GLOBALS, METHODS, TESTS
from runtime.engine.template import ChatTemplate

MAX_CPU = meter.MAX_SECONDS + 1  # seconds
MAX_MEMORY = 300  # MiB above what the process had before
MAX_DEAF = 1.0  # seconds of processor time between two moments in which Python could run a signal handler
MAX_WALL = 60.0

_LETTERS = (
    "a",
    "A",
    "é",
    "ŉ",
    "中",
    "😀",
    " ",
    r"\n",
    "%",
    "{",
    "{}",
    "%s",
    "<",
    "'",
    "ab",
    "a b ",
    r"\x1c",
    "1",
    "%(a)s",
    "aab",
)
_NUMBERS = ("0", "1", "-1", "7", "1000", "10**9", "10**18", "2**63", "1.5", "-(10**12)", "1e308", "64")
_SIZES = (1, 3, 40, 1000, 30_000, 400_000, 1_000_000, 2_000_000, 4_000_000, 4_190_000, 5_000_000, 10**10)
_BINARY = ("+", "-", "*", "/", "//", "%", "**", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "~", "and", "or")
_UNARY = ("capitalize", "lower", "splitlines", "strip", "title", "upper", "split", "rstrip", "lstrip")


class Grammar:
    """Templates by chance. `names` are variables that the template has set already."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._names: list[str] = []

    def template(self) -> str:
        kind = self._chance.choice(("values", "values", "values", "growth", "loops", "source"))
        return {"values": self._values, "growth": self._growth, "loops": self._loops, "source": self._source}[kind]()

    def _pick(self, *options: str) -> str:
        return self._chance.choice(options)

    def text(self) -> str:
        letters, size = self._chance.choice(_LETTERS), self._chance.choice(_SIZES)
        text = f"('{letters.replace(chr(39), chr(92) + chr(39))}' * {max(1, size // max(1, len(letters)))})"
        return (
            text if self._chance.random() < 0.6 else f"({text} ~ '{self._chance.choice(('b', 'é', '😀', '%', '{'))}')"
        )

    def items(self) -> str:
        size = self._chance.choice((1, 10, 1000, 100_000, 500_000))
        part = self._pick("'a'", "1", "[1, 2]", "('a' * 1000)", "{'a': 1}", "none", "(1, 'b')", "'😀'")
        return self._pick(
            f"(range({min(size, 100_000)})|list)",
            f"([{part}] * {size})",
            f"(('a', 1, {part}) * {size})",
            f"({self.text()}|list)",
            f"({self.text()}.split({self._pick('', repr('a'), repr(' '))}))",
            f"(range({min(size, 100_000)})|map('string')|list)",
            f"dict(({self._pick('range(100000)|list', '[1, 2]')})|batch(2))",
            "{'a': " + self.text() + "}",
            "messages",
        )

    def number(self) -> str:
        return self._chance.choice(_NUMBERS)

    def value(self, depth: int = 0) -> str:
        choice = self._chance.random()
        if self._names and choice < 0.35:
            return self._chance.choice(self._names)
        if choice < 0.55:
            return self.text()
        if choice < 0.7:
            return self.items()
        if choice < 0.8 or depth > 2:
            return self.number()
        return f"({self.operation(depth + 1)})"

    def arguments(self, most: int, depth: int) -> str:
        given = [self.value(depth) for _ in range(self._chance.choice((0, 1, 1, 2, most)))]
        if self._chance.random() < 0.1:
            name = self._pick("attribute", "start", "width", "reverse", "sort_keys", "indent", "fill_with", "by", "d")
            given.append(f"{name}={self.value(depth)}")
        return ", ".join(given)

    def operation(self, depth: int = 0) -> str:
        value = self.value(depth)
        if self._chance.random() < 0.6:
            return self._well_typed(depth)
        kind = self._pick(
            "method", "filter", "test", "operator", "operator", "global", "slice", "format", "display", "other"
        )
        if kind == "method":
            own = self._chance.choice(list(METHODS))
            return f"{value}.{self._chance.choice(list(METHODS[own]))}({self.arguments(3, depth)})"
        if kind == "filter":
            return f"{value}|{self._chance.choice(list(FILTERS))}({self.arguments(3, depth)})"
        if kind == "test":
            names = [name for name in TESTS if name.isalpha() and name not in ("true", "false", "none", "in")] + ["in"]
            return f"{value} is {self._chance.choice(names)}({self.arguments(1, depth)})"
        if kind == "operator":
            return f"{value} {self._chance.choice(_BINARY)} {self.value(depth)}"
        if kind == "global":
            return f"{self._chance.choice(list(GLOBALS))}({self.arguments(2, depth)})"
        if kind == "slice":
            return f"{value}[{self.number()}:{self.number()}:{self._pick('', '2', '-1', '10**9')}]"
        if kind == "format":
            width = self._pick(
                "", ":9", ":999999999", ":.999999999f", "!r", ":{}", "[0]", "[a]", ".upper", ".__class__"
            )
            form = self._pick("{%s}", "{0%s}{0%s}", "{a%s}").replace("%s", width)
            percent = self._pick("%s", "%r", "%999999999d", "%.999999999f", "%*d", "%(a)s%(a)s", "%%", "%a", "%5s")
            return self._pick(
                f"'{form}'.format({self.arguments(3, depth)})",
                f"('{form}' * {self._chance.choice(_SIZES[:7])}).format({self.arguments(3, depth)})",
                f"('{percent}' * {self._chance.choice(_SIZES[:7])}) % {value}",
                f"'{percent}' % ({value}, {self.value(depth)})",
                f"('{percent}' * {self._chance.choice(_SIZES[:5])}) % {{'a': {value}}}",
                f"'{percent}'|format({self.arguments(3, depth)})",
            )
        if kind == "display":
            return self._pick(
                f"[{value}, {self.value(depth)}]", f"({value}, 1)", "{" + f"{value}: {self.value(depth)}" + "}"
            )
        which = self._pick(
            "map('NAME')", "select('TEST', V)", "map(attribute=V)", "sort(attribute=V)", "groupby(V)", "sum(start=[])"
        )
        which = which.replace("NAME", self._chance.choice(list(FILTERS))).replace("V", value)
        return f"{self.items()}|{which.replace('TEST', self._chance.choice(list(TESTS)))}|list"

    def _well_typed(self, depth: int) -> str:
        """An operation whose operands have the types that it expects, so that it does not end at once."""
        text, other, third, items, number = self.text(), self.text(), self.text(), self.items(), self.number()
        if depth < 2 and self._chance.random() < 0.4:
            text = f"({self._well_typed(depth + 1)})"
        same = self._pick(
            other, text, f"{text}[1:]", f"{text}[:-1]", f"('b' ~ {text}[:2000000])", "'aab'", "'a'", "none"
        )
        plain = [name for name in METHODS[str] if name.startswith("is") or name in _UNARY]
        searches = [name for name in METHODS[str] if name not in plain and name not in ("join", "format", "replace")]
        return self._pick(
            f"{text}.{self._chance.choice(plain)}()",
            f"{text}.{self._chance.choice(searches)}({same})",
            f"{text}.{self._chance.choice(searches)}({same})",
            f"{text}.{self._pick('split', 'rsplit')}({same}, {number})",
            f"{text}.replace({same}, {third})",
            f"{text}.join({items})",
            f"{text}.format({other}, {third}, a={other})",
            f"{text} % ({other}, {third})",
            f"{text}|{self._chance.choice(list(FILTERS))}",
            f"{items}|{self._chance.choice(list(FILTERS))}",
            f"{items}|{self._pick('batch', 'slice', 'join', 'sort', 'sum', 'indent', 'round', 'default')}({number})",
            f"{items}|{self._pick('batch', 'slice')}({number}, {other})",
            f"{items}|map('{self._chance.choice(list(FILTERS))}')|{self._chance.choice(list(FILTERS))}",
            f"{items}|tojson(indent={self._pick('none', '1', '16', '10**9')}, sort_keys={self._pick('true', 'false')})",
            f"{text}|indent({self._pick(number, other)}, true, true)",
            f"{text}|trim({same})",
            f"{same} in {self._pick(text, items)}",
            f"{items}.{self._pick('count', 'index')}({self._pick(items, text, number)})",
            f"{items} {self._pick('==', '<', '+', 'in')} {items}",
            f"{text} {self._pick('==', '<', '+', '~', 'in')} {same}",
            f"[{items}] * {self._pick('2', '1000', '100000')}",
            f"{number} {self._chance.choice(_BINARY[:7])} {self.number()}",
            f"dict({items}|map('list')|list)",
            f"(({items}), ({items}))|{self._pick('unique', 'sort', 'max', 'tojson', 'string', 'groupby(0)')}",
        )

    def _values(self) -> str:
        lines = []
        for number in range(self._chance.randint(1, 5)):
            lines.append(f"{{% set v{number} = {self.value() if number == 0 else self.operation()} %}}")
            self._names.append(f"v{number}")
        lines.append("{{ " + self.operation() + " }}")
        if self._chance.random() < 0.3:
            lines.append("{% for i in range(100000) %}{% set x = " + self.operation() + " %}{% endfor %}")
        return "".join(lines)

    def _growth(self) -> str:
        self._names += ["ns.s"] * 4
        begin = self._pick("'aa'", "'😀'", "['a']", "(1, 2)", "{'a': 1}", "'<&'", "'{}'", "2", self.text())
        steps = "".join(f"{{% set ns.s = {self.operation(1)} %}}" for _ in range(self._chance.randint(1, 3)))
        keep = self._pick("", "{% set ns.all = [ns.all, ns.s] %}", "{% set ns.all = ns.all + [ns.s] %}")
        return (
            f"{{% set ns = namespace(s={begin}, all=[]) %}}{{% for i in range(100000) %}}{keep}{steps}{{% endfor %}}"
            "{{ ns.s }}"
        )

    def _loops(self) -> str:
        self._names.append("x")
        body = self._pick(
            "{{ " + self.operation(1) + " }}",
            "{% set y %}{{ x }}{{ x }}{% endset %}{{ y }}",
            "{{ loop.changed(x) }}{{ loop.cycle(x, 1) }}{{ loop.length }}{{ loop.nextitem }}",
            "{{ f(x, x) }}",
            "{% call f(x) %}{{ x }}{% endcall %}",
            "{% filter upper %}{{ x }}{% endfilter %}",
        )
        macro = "{% macro f(a, b) %}{{ a }}{{ b }}{{ caller() if caller else '' }}{{ varargs }}{% endmacro %}"
        recursive = self._pick("", " recursive")
        again = "{{ loop([x, x]) }}" if recursive and self._chance.random() < 0.7 else ""
        over = self._pick(self.items(), self.text(), "range(100000)")
        return f"{macro}{{% for x in {over}{recursive} %}}{body}{again}{{% endfor %}}"

    def _source(self) -> str:
        room = self._chance.choice((2000, 20_000, 100_000, meter.MAX_SOURCE - 100))
        part = self._pick(
            "{{ a }}", "{% set aNUMBER = 1 %}", "{% if a %}{% endif %}", "{% for i in a %}{% endfor %}", 
            "{{ a ~ 'x' }}",
            "{% macro fNUMBER(a, b=1) %}{{ a }}{% endmacro %}", "{{ f(1, 2, 3) }}", "{{ a|upper|lower }}", "{# x #}",
            "{% raw %}{% endraw %}", "text\n", "   \n", "{{ '\\u00e9' }}", "{% set aNUMBER, bNUMBER = 1, 2 %}",
            "{% with aNUMBER = 1 %}{% endwith %}", "{% call f() %}{% endcall %}", "{% filter upper %}x{% endfilter %}",
            "{%   ", "{{ '", "{#", "{% raw %}", "{{ (", "{{ [", "{{ -", "{% if a %}", "{% for i in a %}",
            "{% macro f() %}",
            "{% set x %}", "{% block bNUMBER scoped %}{% endblock %}", "{% include 'a' ignore missing %}",
        )  # fmt: skip
        inner = self._pick(
            "a.", "a|upper|", "a + ", "a, ", "1_1", "9", "not ", "- ", "(", "[", "{1:", "a[", "a if b else ", "'a' "
        )
        count = room // max(len(part), len(inner))
        whole = self._pick(
            "".join(part.replace("NUMBER", str(number)) for number in range(min(count, room // (len(part) + 4) + 1))),
            "{{ " + inner * (room // len(inner)) + "a }}",
            "{% set x = [" + inner * (room // len(inner)) + "a] %}",
            "{% if " + inner * (room // len(inner)) + "a %}{% endif %}",
            "{% for a in b %}" * 19 + "{{ a }}" * ((room - 600) // 7) + "{% endfor %}" * 19,
            "".join(f"{{%set a{n}=1%}}" for n in range(room // 40)) + "{%if x%}{%set a1=2%}{%endif%}" * (room // 60),
        )
        return whole[: meter.MAX_SOURCE]


def rendered(source: str, longest_gap: list[float]) -> str:
    """How a template ends, in this process."""

    def tick(_: int, __: FrameType | None) -> None:
        now = time.process_time()
        longest_gap[0], longest_gap[1] = max(longest_gap[0], now - longest_gap[1]), now

    longest_gap[1] = time.process_time()
    signal.signal(signal.SIGPROF, tick)
    signal.setitimer(signal.ITIMER_PROF, 0.05, 0.05)
    try:
        text = ChatTemplate(source, bos="<s>", eos="</s>").render((Message("user", "What is 2 + 2?" * 100),))
        end = f"a prompt of {len(text)} characters"
    except Incompatible as error:
        end = f"refused: {error.message}" if "\n" not in error.message and len(error.message) < 500 else "NOT ONE LINE"
    except BaseException as error:
        end = f"FAILED with {type(error).__name__}: {str(error)[:200]}"
    signal.setitimer(signal.ITIMER_PROF, 0)
    tick(0, None)
    return end


def run(source: str) -> tuple[str, float, float, float]:
    """How it ended, seconds of processor time, MiB of memory above the start, seconds deaf to signals."""
    read, write = os.pipe()
    begin = _resident()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        gap = [0.0, 0.0]
        end = rendered(source, gap)
        os.write(write, f"{gap[0]:.3f} {end}"[:1000].encode("utf-8", "replace"))
        os._exit(0)
    os.close(write)
    said, wall = b"", time.monotonic() + MAX_WALL
    if select.select([read], [], [], max(0.0, wall - time.monotonic()))[0]:
        said = os.read(read, 4000)
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(read)
    _, status, usage = os.wait4(pid, 0)
    gap_text, _, end = said.decode("utf-8", "replace").partition(" ")
    cpu, memory = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024 - begin
    if not end:
        return f"ENDED BY SIGNAL {status & 127}", cpu, memory, cpu
    return end, cpu, memory, float(gap_text)


def _resident() -> float:
    """MiB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    ChatTemplate("{{ 1 }}", bos="", eos="").render(())  # loads all modules
    failed, ends = 0, collections.Counter[str]()
    worst_cpu = worst_memory = worst_gap = 0.0
    for number in range(options.count):
        source = Grammar(random.Random(f"{options.seed}-{number}")).template()
        end, cpu, memory, gap = run(source)
        handled = end.startswith(("a prompt", "refused")) and cpu < MAX_CPU and memory < MAX_MEMORY and gap < MAX_DEAF
        failed += not handled
        ends[end.partition(":")[2].strip()[:60] or "rendered"] += 1
        worst_cpu, worst_memory, worst_gap = max(worst_cpu, cpu), max(worst_memory, memory), max(worst_gap, gap)
        if options.show or not handled:
            state = "handled" if handled else "FAILED"
            print(
                f"{state} {number}: {cpu:.1f} s, {memory:.0f} MiB, deaf {gap:.2f} s: {end}\n    {source[:600]}",
                flush=True,
            )
    for end, count in ends.most_common(12):
        print(f"{count:6} {end}")
    print(f"at most {worst_cpu:.1f} s of processor time, {worst_memory:.0f} MiB, {worst_gap:.2f} s deaf to Ctrl-C")
    print(f"{options.count} tried, {options.count - failed} handled, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
