"""What chat templates may do, and that each of it is paid for before it runs."""
# ruff: noqa: E501

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import TemplateError
from jinja2.exceptions import SecurityError

from runtime.engine.sandbox import meter as prices
from runtime.engine.sandbox import texts
from runtime.engine.sandbox.environment import Refused, Sandbox
from runtime.engine.sandbox.meter import MAX_ITEMS, MAX_SIZE, MAX_WORK, LimitExceeded, Meter
from runtime.engine.sandbox.operations import FILTERS, GLOBALS, METHODS, OPERATORS, TESTS, Operation

LONG = "{% set s = 'a' * 4000000 %}"


def rendered(source: str, **variables: Any) -> str:
    return Sandbox().from_string(source).render(variables)


def test_every_operation_has_a_price() -> None:
    tables = [FILTERS, TESTS, OPERATORS, GLOBALS, *METHODS.values()]
    operations = [operation for table in tables for operation in table.values()]
    assert len(operations) > 100
    assert all(isinstance(each, Operation) and callable(each.price) and callable(each.run) for each in operations)


def test_nothing_without_a_price_can_be_reached() -> None:
    sandbox = Sandbox()
    assert sandbox.filters.keys() == FILTERS.keys()
    assert sandbox.tests.keys() == TESTS.keys()
    assert sandbox.globals.keys() == GLOBALS.keys()
    assert sandbox.intercepted_binops == sandbox.binop_table.keys() <= OPERATORS.keys()
    assert {"eq", "ne", "gt", "gteq", "lt", "lteq", "in", "notin"} <= OPERATORS.keys()  # all of jinja's comparisons
    for kind, names in METHODS.items():
        for name in (name for name in dir(kind) if not name.startswith("_")):
            assert sandbox.is_safe_attribute(kind(), name, None) is (name in names)


def test_a_function_that_has_no_row_is_not_called() -> None:
    with pytest.raises(SecurityError, match="it calls a builtin_function_or_method"):
        rendered("{{ f(1) }}", f=len)
    with pytest.raises(SecurityError, match="it calls a builtin_function_or_method"):
        rendered("{{ f(1) }}", f=[].reverse)


@pytest.mark.parametrize(
    ("operation", "operands"),
    [
        (METHODS[str]["rfind"], ("a" * MAX_SIZE, "b")),
        (METHODS[str]["upper"], ("é" * MAX_SIZE,)),
        (METHODS[str]["strip"], ("a" * MAX_SIZE, "bcdefa")),
        (METHODS[str]["split"], ("a" * MAX_SIZE, "b")),
        (METHODS[str]["replace"], ("a" * MAX_SIZE, "b", "c")),
        (METHODS[str]["isalnum"], ("a" * MAX_SIZE,)),
        (METHODS[list]["count"], (["a" * 1000] * 4000, "a")),
        (FILTERS["sort"], (["a" * 1000] * 4000,)),
        (FILTERS["groupby"], (["a" * 1000] * 4000, "x")),
        (FILTERS["tojson"], (["a" * 1000] * 4000,)),
        (OPERATORS["eq"], ("a" * MAX_SIZE, "a" * MAX_SIZE)),
        (OPERATORS["in"], ("a" * 1000, "a" * MAX_SIZE)),
        (OPERATORS["+"], ("a" * (MAX_SIZE // 2), "a" * (MAX_SIZE // 2))),
    ],
)
def test_prices_grow_with_the_operands(operation: Operation, operands: tuple[Any, ...]) -> None:
    assert 4_000_000 <= operation.price(Meter(), *operands) <= MAX_WORK


@pytest.mark.parametrize(
    ("operation", "operands"),
    [
        (METHODS[str]["strip"], ("a", "b" * 1001)),
        (METHODS[str]["split"], ("a" * MAX_SIZE, "a")),
        (METHODS[str]["split"], (" a" * (MAX_SIZE // 2),)),
        (METHODS[str]["splitlines"], ("\n" * MAX_SIZE,)),
        (METHODS[str]["replace"], ("a" * MAX_SIZE, "a", "bb")),
        (METHODS[str]["replace"], ("a" * MAX_SIZE, "", "b")),
        (FILTERS["title"], ("a" * MAX_SIZE,)),
        (FILTERS["escape"], ("<" * MAX_SIZE,)),
        (FILTERS["batch"], ([], MAX_ITEMS + 1, "x")),
        (FILTERS["slice"], ([], 10**12)),
        (FILTERS["round"], (1.5, 10**9)),
        (FILTERS["int"], ("9" * 1001,)),
    ],
)
def test_operands_that_would_cost_too_much_are_refused_before(
    operation: Operation, operands: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LimitExceeded):
        operation.price(Meter(), *operands)


HOSTILE = {
    "rfind": LONG + "{% set p = 'ab' + 'a' * 2000000 %}{{ s.rfind(p) }}",
    "rsplit": LONG + "{% set p = 'ab' + 'a' * 2000000 %}{{ s.rsplit(p)|length }}",
    "rpartition": LONG + "{% set p = 'ab' + 'a' * 2000000 %}{{ s.rpartition(p)|length }}",
}


@pytest.mark.parametrize(("name", "right"), [("rfind", "-1"), ("rsplit", "1"), ("rpartition", "3")])
def test_a_search_from_the_right_is_linear(name: str, right: str) -> None:
    assert rendered(HOSTILE[name]) == right


# Operands from a list, each of its characters a text of its own.
SPREAD = tuple(
    call.replace("LONG", "*('😀' * 4000000)")
    for call in ("f(LONG)", "'x'.format(LONG)", "'x'|default(LONG)", "'x' is eq(LONG)", "cycler(LONG)", "range(LONG)")
)
BY_ATTRIBUTE = (
    *("sort(attribute=path)", "sort(false, false, path)", "unique(attribute=path)|list", "groupby(path)"),
    *("max(attribute=path)", "sum(path)", "map(attribute=path)|list", "selectattr(path)|list", "rejectattr(path)|list"),
)


@pytest.mark.parametrize("call", SPREAD)
def test_operands_from_a_list_are_counted_before_they_are_handed_over(call: str) -> None:
    with pytest.raises(LimitExceeded):
        rendered("{% macro f() %}{% endmacro %}{{ " + call + " }}")


@pytest.mark.parametrize("by", BY_ATTRIBUTE)
def test_names_of_attributes_are_short(by: str) -> None:
    with pytest.raises(LimitExceeded):
        rendered("{% set path = ',.' * 2000000 %}{{ [[1]]|" + by + " }}")


@pytest.mark.parametrize(
    ("expression", "right"),
    [
        ("'a\\nb'|indent(width=2, first=true, blank=true)", "  a\n  b"),
        ("'a\\nb'|indent(width='>')", "a\n>b"),
        ("'xax'|trim(chars='x')", "a"),
        ("[1, 2, 3]|batch(linecount=2)|list", "[[1, 2], [3]]"),
        ("[1, 2, 3]|slice(slices=2, fill_with=0)|list", "[[1, 2], [3, 0]]"),
        ("'a,b'.split(sep=',', maxsplit=1)", "['a', 'b']"),
        ("'a,b,c'.rsplit(sep=',', maxsplit=1)", "['a,b', 'c']"),
        ("'a\\nb'.splitlines(keepends=true)", "['a\\n', 'b']"),
        ("'a-a'|replace(old='a', new='b', count=1)", "b-a"),
        ("4 is divisibleby(num=2)", "True"),
        ("[2, 1]|sort(reverse=false, case_sensitive=true, attribute=none)", "[1, 2]"),
        ("[{'a': 2, 'b': 1}, {'a': 1, 'b': 2}]|sort(attribute='a,b')|map(attribute='a')|list", "[1, 2]"),
        ("'%(text)s %(context)s'|format(text=1, context=2)", "1 2"),
        ("'{text} {self} {meter} {context}'.format(text=1, self=2, meter=3, context=4)", "1 2 3 4"),
        ("namespace(self=1, context=2, text=3, meter=4).context", "2"),
        ("dict(self=1, context=2, pairs=3, meter=4)|length", "4"),
        ("f(*[1, 2])", "12"),
        ("'{}{}'.format(*'ab')", "ab"),
        ("'b' is in(*['abc'])", "True"),
    ],
)
def test_operands_have_the_names_of_jinja_and_python(expression: str, right: str) -> None:
    assert rendered("{% macro f(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ " + expression + " }}") == right


@pytest.mark.parametrize(
    "hostile",
    [
        LONG + "{{ s.strip('b' * 3999999 + 'a') }}",
        LONG + "{{ s|trim('b' * 3999999 + 'a') }}",
        "{{ ('𐀀' * 4000000)|sort|length }}",
        "{{ ('𐀀' * 4000000)|list|length }}",
        "{{ ('𐀀' * 4000000)|unique|list|length }}",
        "{{ ('a ' * 2000000).split()|length }}",
        LONG + "{{ (s[:300000]|list|map('list')|list)|sum(start=[])|length }}",
        "{{ [1]|batch(10**9, 'x')|list }}",
        "{{ [1]|slice(10**12)|list }}",
        "{{ 1.5|round(10**9, 'floor') }}",
        "{{ ('1' * 4000)|int }}",
        "{{ ('%s' * 4000)|format(1) }}",
        LONG + "{{ '%(a)s%(a)s%(a)s' % {'a': s} }}",
        LONG + "{{ '{0}{0}{0}'.format(s) }}",
        "{{ '{:9999}'.format(1) }}",
        "{{ '{:{}}'.format(1, 9999) }}",
        "{{ '%*d' % (999999, 1) }}",
        "{{ '%(a)9999d' % {'a': 1} }}",
        "{{ '%9999d' is even }}",
        "{{ '%9999d' is divisibleby(1) }}",
        "{{ '{0.__class__}'.format('') }}",
        "{{ '{0[__class__]}'.format('') }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(200) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x|tojson }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x == ns.x }}",
        "{% for x in [1] recursive %}{{ loop(range(100000)) }}{% endfor %}",
        "{{ [1]|tojson(separators=('a' * 1000000, 'b')) }}",
        *(f"{{% macro f() %}}{{% endmacro %}}{{{{ {call} }}}}" for call in SPREAD),
        *(f"{{% set path = ',.' * 2000000 %}}{{{{ [[1]]|{by} }}}}" for by in BY_ATTRIBUTE),
        "{{ (['a' * 1000] * 1000)|sort(attribute='upper' ~ ',upper' * 100)|length }}",
    ],
)
def test_a_costly_operation_is_refused(hostile: str) -> None:
    with pytest.raises((TemplateError, TypeError, RecursionError)):
        rendered(hostile)


@pytest.mark.parametrize(
    "source",
    [
        "{{ a }}" * 8000,
        "{% macro f() %}" * 25 + "{% endmacro %}" * 25,
        "{% block a %}{% endblock %}",
        "{% include 'a' ignore missing %}",
        "{% import 'a' as b %}",
        "{% extends 'a' %}",
        "{% autoescape 'a'|length %}{% endautoescape %}",
    ],
)
def test_a_source_that_would_cost_too_much_is_refused_while_it_is_read(source: str) -> None:
    with pytest.raises(SecurityError):
        Sandbox().from_string(source)


def test_generated_code_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.engine.sandbox.environment.MAX_CODE", 5000)
    with pytest.raises(LimitExceeded, match="more than 5000 characters of code"):
        Sandbox().from_string("{{ a }}" * 200)


def test_reading_a_template_is_work_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "MAX_WORK", 100 * prices.STEP)
    with pytest.raises(LimitExceeded, match="too much work"):
        Sandbox().from_string("{{ a }}" * 200)


def test_the_clock_is_asked_between_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter()
    began = time.thread_time()
    late = time.monotonic() + 1000
    monkeypatch.setattr(time, "monotonic", lambda: late)
    meter.spend()  # the seconds went to other programs
    monkeypatch.setattr(time, "monotonic", lambda: late + 1000)
    monkeypatch.setattr(time, "thread_time", lambda: began + 6)
    with pytest.raises(LimitExceeded, match="takes longer than 5 seconds"):
        meter.spend()


def test_a_text_that_comes_again_is_paid_once() -> None:
    meter, text = Meter(), "a" * (1 << 20)
    for _ in range(1000):
        assert meter.made(text) is text


def test_texts_that_were_dropped_make_room_and_kept_ones_do_not() -> None:
    meter = Meter()
    for number in range(1000):
        meter.made(str(number % 10) * (1 << 20))
    kept = []
    with pytest.raises(LimitExceeded, match="makes more than 160 MiB"):
        for _ in range(1000):
            kept.append(meter.made("a" * (1 << 20)))
    assert len(kept) >= 158


@pytest.mark.parametrize(
    ("source", "right"),
    [
        ("{{ '<x{}>'.format(1) }}", "<x1>"),
        ("{{ '{0}-{1}-{0}'.format('a', 2) }}", "a-2-a"),
        ("{{ '{a:>5}|{b:.2f}'.format(a='x', b=1.239) }}", "    x|1.24"),
        ("{{ '{0.role}: {0[content]}'.format(m) }}", "user: hi"),
        ("{{ '{{}} {!r}'.format('a') }}", "{} 'a'"),
        ("{{ 'a' + missing + none + 'b' }} {{ missing + 'c' }}", "ab c"),
        ("{{ '%s is %5.1f%%' % ('a', 12.34) }}", "a is  12.3%"),
        ("{{ '%(a)s' % {'a': 1} }}", "1"),
        ("{{ '%s-%s'|format('a', 1) }} {{ '%(a)s'|format(a=2) }}", "a-1 2"),
        ("{{ 2.567|round(1) }} {{ 2.1|round(0, 'ceil')|int }}", "2.6 3"),
        ("{{ [1, 2, 3]|sum }} {{ [[1], [2]]|sum(start=[]) }}", "6 [1, 2]"),
        ("{{ [m, m]|map(attribute='role')|unique|list }}", "['user']"),
        ("{% for g, l in [m, m]|groupby('role') %}{{ g }}{{ l|length }}{% endfor %}", "user2"),
        ("{{ ([m]|groupby('role'))[0].grouper }}", "user"),
        ("{{ 'a b c'|wordcount }} {{ [1, 2, 3]|batch(2)|list }} {{ [1, 2, 3]|slice(2)|list }}", "3 [[1, 2], [3]] [[1, 2], [3]]"),
        ("{{ none|default('x', true) }} {{ none|selectattr('a')|list }}", "x []"),
        ("{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 'a' not in 'abc' }} {{ 1 in [1] }} {{ 'role' in m }}", "True False False True True"),
        ("{{ -1 }} {{ 7 // 2 }} {{ 7 % 4 }} {{ 2 ** 3 }} {{ 'ab' * 2 }}", "-1 3 3 8 abab"),
        ("{{ 'a.b'.rsplit('.', 1) }} {{ 'a/b'.rpartition('/')[0] }} {{ 'aba'.rfind('a') }}", "['a', 'b'] a 2"),
        ("{{ m.items()|list }} {{ m.keys()|list }}", "[('role', 'user'), ('content', 'hi')] ['role', 'content']"),
        ("{{ m|dictsort }} {{ m|items|list|length }}", "[('content', 'hi'), ('role', 'user')] 2"),
        ("{{ '<a>'|e }} {{ '<'|safe ~ '<' }} {{ 'ab'|reverse }} {{ [1, 2]|reverse|list }}", "&lt;a&gt; << ba [2, 1]"),
        ("{{ [3, 1]|sort }} {{ [3, 1]|max }} {{ [3, 1]|first }} {{ [3, 1]|last }} {{ 'hi there'|title }}", "[1, 3] 3 3 1 Hi There"),
        ("{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{{ loop.cycle('a', 'b') }} {% endfor %}", "Truea Falseb Truea "),
        ("{% for x in [1, [2]] recursive %}{{ loop(x) if x is iterable else x }}{% endfor %}", "12"),
        ("{% set c = cycler(1, 2) %}{{ c.next() }}{{ c.next() }}{% set j = joiner('-') %}{{ j() }}a{{ j() }}b", "12a-b"),
        ("{% macro f(a) %}{{ a }}{{ varargs|length }}{{ caller() }}{% endmacro %}{% call f(1, 2) %}x{% endcall %}", "11x"),
        ("{{ dict([['a', 1]], b=2) }} {{ range(3)|list }} {{ 'abc'[::-1] }} {{ [1, 2, 3][1:] }}", "{'a': 1, 'b': 2} [0, 1, 2] cba [2, 3]"),
        ("{{ [1, {'a': 'é'}]|tojson }} {{ {'b': 1, 'a': 2}|tojson(indent=1, sort_keys=true) }}", '[1, {"a": "é"}] {\n "a": 2,\n "b": 1\n}'),
        ("{% filter upper %}a{% endfilter %}{% with b = 1 %}{{ b }}{% endwith %}", "A1"),
        ("{% set f = 'ab'.upper %}{{ f() }}", "AB"),
    ],
)  # fmt: skip
def test_what_templates_use(source: str, right: str) -> None:
    assert rendered(source, m={"role": "user", "content": "hi"}) == right


def test_a_refusal_is_short() -> None:
    with pytest.raises(Refused) as caught:
        rendered("{{ raise_exception('no' * 2000000) }}")
    assert len(str(caught.value)) == 1000


TEXT = st.text("ab é", max_size=12)
PART = st.text("ab é", max_size=3)
BOUND = st.none() | st.integers(-15, 15)


def outcome(function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:
        return type(error)


@given(TEXT, PART, BOUND, BOUND)
def test_rfind_is_that_of_python(text: str, part: str, start: int | None, end: int | None) -> None:
    assert texts.rfind(text, part, start, end) == text.rfind(part, start, end)


@given(TEXT, PART, st.integers(-1, 4))
def test_rsplit_and_rpartition_are_those_of_python(text: str, part: str, most: int) -> None:
    assert outcome(texts.rpartition, text, part) == outcome(text.rpartition, part)
    assert outcome(texts.rsplit, text, part, most) == outcome(text.rsplit, part, most)
    assert texts.rsplit(text, None, most) == text.rsplit(None, most)


@given(st.text("%sdr5.()a {", max_size=8), st.lists(st.text("a%", max_size=3) | st.integers(-9, 9), max_size=3))
def test_formatting_with_percent_is_that_of_python_or_refused(form: str, values: list[Any]) -> None:
    ours = outcome(texts.format_percent, Meter(), form, tuple(values))
    assert ours == outcome(lambda: form % tuple(values)) or ours is SecurityError


@given(st.text(" a\n\t\x1c\u2028é", max_size=20), st.none() | st.integers(-1, 3), st.sampled_from([None, "a", " "]))
def test_pieces_are_never_more_than_were_paid_for(text: str, most: int | None, part: str | None) -> None:
    limit = -1 if most is None else most
    assert prices.split_up(Meter(), text, part, limit) >= 128 * len(text.split(part, limit))
    assert prices.lines_of(Meter(), text) >= 128 * len(text.splitlines())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("aé中", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=12,
)


@given(VALUES)
def test_a_size_counts_every_character_that_is_printed_of_texts(value: Any) -> None:
    def characters(value: Any) -> int:
        if isinstance(value, dict):
            return sum(map(characters, [*value.keys(), *value.values()]))
        if isinstance(value, list):
            return sum(map(characters, value))
        return len(value) if isinstance(value, str) else 0

    assert Meter().size(value).characters == characters(value)


def test_shared_parts_count_as_often_as_they_are_printed() -> None:
    meter, part = Meter(), ["ab", "c"]
    assert meter.size([part, part]).characters == 6
    assert meter.size([part, part]).items == 7
    assert meter.size([part, part]).nesting == 2
