"""Answers of the embedded model that are held to a grammar, and masked draws of every kind."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.base.errors import UsageError
from runtime.base.events import TokenDrawn
from runtime.base.types import Completion, EntropyMinimisation, SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.grammar import JSON_OBJECT, Grammar
from runtime.engine.speculation import NgramDrafter
from runtime.llama import LlamaBackend, OpenOptions
from runtime.llama.constraint import Constraints, check_grammar
from tests.runtime.native_engine import GREEDY, SUM, TAGS, THOUGHT_OF_SUM, batch, request, row_of

ANSWER = {
    "type": "object",
    "properties": {"answer": {"type": "integer", "minimum": 0, "maximum": 999}, "sure": {"type": "boolean"}},
    "required": ["answer", "sure"],
    "additionalProperties": False,
}


NOTHING = "nothing matches it, or no token of this model does"


@pytest.fixture(scope="module")
def backend(nano_path: Path) -> Iterator[LlamaBackend]:
    with LlamaBackend(nano_path, OpenOptions(context=512, slots=3, visible=TAGS.texts)) as opened:
        yield opened


def schema(value: object) -> Grammar:
    return Grammar("json_schema", json.dumps(value))


def drawn(backend: LlamaBackend, grammar: Grammar, params: SamplingParams = GREEDY) -> Completion:
    (completion,) = Engine(backend).generate([replace(request(backend, SUM, params), grammar=grammar)])
    return completion


def refusal(backend: LlamaBackend, kind: str, text: object) -> str:
    with pytest.raises(UsageError) as caught:
        backend.constraint(Grammar(kind, text if isinstance(text, str) else json.dumps(text)))  # type: ignore[arg-type]
    return caught.value.message


@pytest.mark.parametrize(
    "params",
    [
        replace(GREEDY, max_tokens=300),
        SamplingParams(temperature=1.5, top_k=2, seed=1, max_tokens=300),
        SamplingParams(temperature=2, top_k=0, top_p=1, seed=2, max_tokens=300),
        SamplingParams(temperature=1, typical_p=0.5, top_n_sigma=1, xtc_probability=1, seed=3, max_tokens=300),
        SamplingParams(temperature=1, repeat_penalty=2, dry_multiplier=5, seed=4, max_tokens=300),
        SamplingParams(temperature=1, logit_bias=(("9", -100.0), ("answer", -np.inf)), seed=5, max_tokens=300),
        SamplingParams(entropy=EntropyMinimisation(), seed=6, max_tokens=300),
    ],
)
def test_every_way_to_draw_keeps_to_the_schema(backend: LlamaBackend, params: SamplingParams) -> None:
    completion = drawn(backend, schema(ANSWER), params)
    assert completion.finish_reason == "stop"
    jsonschema.validate(json.loads(completion.answer), ANSWER)


def test_the_thought_is_what_it_is_without_a_grammar(backend: LlamaBackend) -> None:
    completion = drawn(backend, schema(ANSWER))
    assert completion.thinking == THOUGHT_OF_SUM
    assert completion.thought_closed_by == "model"


@pytest.mark.parametrize(
    ("kind", "text", "form"),
    [
        ("regex", r"[A-Z][a-z]{2,5}/\d{3}\.", r"[A-Z][a-z]{2,5}/\d{3}\."),
        ("lark", 'start: "the answer is " NUMBER\nNUMBER: /[0-9]{2,3}/', r"the answer is \d{2,3}"),
        ("gbnf", 'root ::= "a"{2,2} digit+ "!"\ndigit ::= [0-9]', r"aa\d+!"),
        ("gbnf", 'root ::= [a-c]{3} "\\u0058" [\\u0031-\\u0033]', r"[a-c]{3}X[1-3]"),
        ("gbnf", '# one of two\nroot ::= words "!"\nwords ::= ("yes" | "no") (" " words)?', r"(?:(?:yes|no) ?)+!"),
    ],
)
def test_grammars_of_other_kinds(backend: LlamaBackend, kind: str, text: str, form: str) -> None:
    completion = drawn(backend, Grammar(kind, text), replace(GREEDY, think_budget=3, logit_bias=(("!", 20.0),)))  # type: ignore[arg-type]
    assert re.fullmatch(form, completion.answer)


def test_json_alone_is_any_value_and_an_object_is_one(backend: LlamaBackend) -> None:
    for grammar, kinds in ((Grammar("json"), (dict, list, str, int, float, bool, type(None))), (JSON_OBJECT, (dict,))):
        for seed in range(6):
            params = SamplingParams(temperature=1, seed=seed, max_tokens=160, logit_bias=(("}", 5.0), ('"', 3.0)))
            completion = drawn(backend, grammar, params)
            if completion.finish_reason == "stop":
                assert isinstance(json.loads(completion.answer), kinds)


def test_a_masked_draw_has_the_distribution_of_the_allowed_tokens(backend: LlamaBackend) -> None:
    """Also with a top-k that keeps tokens which the grammar forbids."""
    tokens = backend.tokenize("What is")
    for slot in range(4):
        backend.trim(slot, 0)
    backend.decode(batch(tokens))
    row = len(tokens) - 1
    constraint = backend.constraint(Grammar("regex", "[0-9]x"))
    digits = [token for token in range(backend.vocab_size) if constraint.permits(token)]
    assert sorted(backend.piece(token) for token in digits) == [str(n).encode() for n in range(10)]
    logits = row_of(backend, row)[digits]
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    for top_k in (0, 10, 3):
        best = set(np.argsort(-logits)[: top_k or 10])
        kept = np.array([chance if index in best else 0 for index, chance in enumerate(expected)])
        draw = backend.sampler(SamplingParams(temperature=1, top_p=1, top_k=top_k), seed=7)
        counted = Counter(draw(row, (), constraint) for _ in range(4000))
        found = np.array([counted[token] / 4000 for token in digits])
        assert found == pytest.approx(kept / kept.sum(), abs=0.04)
    greedy = backend.sampler(SamplingParams(temperature=0), 0)
    assert greedy(row, (), constraint) == digits[int(logits.argmax())]


def test_tokens_besides_the_grammar_can_be_drawn_and_no_others(backend: LlamaBackend) -> None:
    tokens = backend.tokenize("What is")
    backend.trim(0, 0)
    backend.decode(batch(tokens))
    row, (think,) = len(tokens) - 1, backend.tokenize("<think>")
    constraint = backend.constraint(Grammar("regex", "[0-9]x"))
    params = SamplingParams(temperature=0, logit_bias=((think, 100.0),))
    assert backend.sampler(params, 0)(row, (), constraint, [think]) == think
    assert backend.sampler(params, 0)(row, (), constraint) != think


def test_every_token_that_ends_a_reply_is_allowed_where_the_grammar_may_end(backend: LlamaBackend) -> None:
    ends = [token for token in range(backend.vocab_size) if backend.ends(token)]
    constraint = backend.constraint(Grammar("regex", "a?b?"))
    assert ends and all(constraint.permits(end) for end in ends)
    constraint.accept(backend.tokenize("a")[0])
    assert not constraint.complete and all(constraint.permits(end) for end in ends)
    constraint.accept(backend.tokenize("b")[0])
    assert constraint.complete
    constraint = backend.constraint(Grammar("regex", "ab"))
    assert not any(constraint.permits(end) for end in ends)


def test_special_tokens_are_no_text(backend: LlamaBackend) -> None:
    constraint = backend.constraint(Grammar("regex", "(?s).*"))
    (think,) = backend.tokenize("<｜User｜>")
    assert not constraint.permits(think)
    assert constraint.permits(backend.tokenize("<")[0])
    named = backend.constraint(Grammar("lark", f'start: <[{think}]> "a"'))
    assert named.permits(think) and not named.permits(backend.tokenize("a")[0])


def test_drafts_are_checked_by_the_same_mask(backend: LlamaBackend) -> None:
    grammar = Grammar("regex", "(again and )+333")
    params = replace(GREEDY, max_tokens=150, logit_bias=(("again", 8.0),))
    alone = drawn(backend, grammar, params)
    engine = Engine(backend, drafter=NgramDrafter())
    (drafted,) = engine.generate([replace(request(backend, SUM, params), grammar=grammar)])
    statistics = engine.take_drafts()
    assert statistics is not None and statistics.steps
    assert drafted.answer == alone.answer


def test_samples_of_a_vote_have_constraints_of_their_own(backend: LlamaBackend) -> None:
    params = SamplingParams(temperature=1.5, max_tokens=300)
    wanted = [replace(request(backend, SUM, params, sample), grammar=schema(ANSWER)) for sample in range(6)]
    answers = [each.answer for each in Engine(backend).generate(wanted)]
    for answer in answers:
        jsonschema.validate(json.loads(answer), ANSWER)
    assert len(set(answers)) > 1


def test_an_answer_goes_on_behind_what_is_said(backend: LlamaBackend) -> None:
    constraint = backend.constraint(schema(ANSWER), '{"answer": 93')
    permitted = {backend.piece(token) for token in range(backend.vocab_size) if constraint.permits(token)}
    assert b"3" in permitted and b"," in permitted and b"}" not in permitted
    with pytest.raises(UsageError, match="the answer that is to go on is not in the grammar"):
        backend.constraint(schema(ANSWER), "It is")


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("json_schema", {"type": "foo"}, "the grammar cannot be used: Invalid type: foo"),
        (
            "json_schema",
            {"type": "object", "properties": {"a/b": {"items": {"type": "string", "pattern": "(("}}}},
            "the grammar cannot be used at /properties/a~1b/items: regex parse error: unclosed group",
        ),
        (
            "json_schema",
            {"anyOf": [{"type": "integer"}, {"not": {"const": 1}}]},
            'the grammar cannot be used at /anyOf/1: Unimplemented keys: ["not"]',
        ),
        (
            "json_schema",
            {"$defs": {"x": {"type": "array", "uniqueItems": True}}, "properties": {"a": {"$ref": "#/$defs/x"}}},
            'the grammar cannot be used at /$defs/x: Unimplemented keys: ["uniqueItems"]',
        ),
        (
            "json_schema",
            {"properties": {"a": {"$ref": "#/nowhere"}}},
            "the grammar cannot be used at /properties/a: Pointer '/nowhere' does not exist",
        ),
        ("json_schema", {"$ref": "#"}, f"the grammar cannot be used: {NOTHING}"),
        (
            "json_schema",
            {"oneOf": [{"type": "integer"}, {"type": "number"}]},
            "the grammar cannot be used: oneOf constraints are not supported. "
            "Enable 'coerce_one_of' option to approximate oneOf with anyOf",
        ),
        ("regex", "(?=a)b", "the grammar cannot be used: regex parse error: look-around, including look-ahead and "
         "look-behind, is not supported"),
        ("lark", 'start: "a"\n | zz', "the grammar cannot be used: line 1, column 8: unknown name: \"zz\""),
        ("gbnf", 'x ::= "a"', "the GBNF grammar cannot be read: No 'root' rule found"),
        ("gbnf", "root ::= " + "(" * 20_000, "the GBNF grammar is nested too deeply"),
    ],
)  # fmt: skip
def test_a_grammar_that_cannot_be_used_is_refused_with_its_place(
    backend: LlamaBackend, kind: str, text: object, message: str
) -> None:
    assert refusal(backend, kind, text) == message


@pytest.mark.parametrize(
    "wish",
    [
        Grammar("json_schema", json.dumps({"type": "array", "items": {"type": "null"}, "minItems": 1_000_000})),
        Grammar("json_schema", json.dumps({"type": "string", "pattern": "^(ab{1000}){1000}$"})),
        Grammar("regex", "(a|b)*a(a|b){60}"),
        Grammar("lark", "start: r0\n" + "\n".join(f'r{n}: "a" r{n + 1}' for n in range(4000)) + '\nr4000: "z"'),
        Grammar("lark", 'start: a\na: a a | "x" | "x" a'),
        Grammar("gbnf", 'root ::= ("a"{1000000} "b"){1000000}'),
        schema(
            {"$ref": "#/$defs/d0", "$defs": {f"d{n}": {"properties": {"a": {"$ref": f"#/$defs/d{n + 1}"}},
             "required": ["a"], "type": "object"} for n in range(1500)} | {"d1500": {}}}
        ),
    ],
)  # fmt: skip
def test_large_grammars_do_not_end_the_process(backend: LlamaBackend, wish: Grammar) -> None:
    completion = drawn(backend, wish, replace(GREEDY, think_budget=0, max_tokens=12))
    assert completion.finish_reason in ("length", "stop")


def test_what_a_schema_says_to_the_compiler_itself_has_no_effect(backend: LlamaBackend) -> None:
    wish = schema({"const": [1, 2], "x-guidance": {"item_separator": ";", "whitespace_pattern": "(("}})
    assert drawn(backend, wish).answer.replace(" ", "").replace("\n", "").replace("\t", "") == "[1,2]"


def test_the_logprobs_of_tokens_are_those_of_the_model(backend: LlamaBackend) -> None:
    params = replace(GREEDY, statistics=True, top_logprobs=3, max_tokens=20)
    told = [
        each
        for each in Engine(backend).stream([replace(request(backend, SUM, params), grammar=schema(ANSWER))])
        if isinstance(each, TokenDrawn) and each.part == "thinking"
    ]
    (completion,) = Engine(backend).generate([request(backend, SUM, params)])
    assert [each.token for each in told] == list(completion.tokens)
    assert [each.logprob for each in told] == pytest.approx([s.logprob for s in completion.statistics], abs=1e-4)
    for each in told:
        assert len(each.top) == 3 and each.top[0].logprob == pytest.approx(each.logprob, abs=1e-6)
        assert (each.top[0].token, each.top[0].piece) == (each.token, each.piece)
        assert [top.logprob for top in each.top] == sorted((top.logprob for top in each.top), reverse=True)


# Without a model: a vocabulary of bytes


def matches(grammar: Grammar, text: str) -> bool:
    """Whether a whole text is an answer that the grammar allows."""
    constraint = Constraints(257, lambda token: bytes([token]) if token < 256 else b"\xff", (256).__eq__).constraint(
        grammar
    )
    for token in text.encode():
        if not constraint.permits(token):
            return False
        constraint.accept(token)
    return constraint.permits(256)


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        ('root ::= word "x"\nword ::= [a-z]+', ["abx", "xx", "xxx"], ["x", "ab"]),
        ('root ::= ws "a" ws " b"\nws ::= [ \\n]*', [" a  b", "a b", "a\n b"], ["ab"]),
        ('root ::= item+\nitem ::= "- " [^\\r\\n]+ "\\n"', ["- a\n", '- a\n- b/c "x"\n'], ["- \n", "a"]),
        ('root ::= "a"{2,3} (B | "c")?\nB ::= "b" # "B" /B/\n', ["aa", "aaab", "aac"], ["a", "aaaa"]),
        ('root ::= [\\u0041-\\u005a]+ "\\u00e9" "\\U0001F600"', ["ABé😀"], ["abé😀"]),
        ('root ::= "\\"" ([^"\\\\] | "\\\\" ["\\\\/bn])* "\\""', ['"a"', '"\\n"', '""'], ['"a', '"\\x"']),
        ('root ::= fooBar-baz | "z"\nfooBar-baz ::= "A//B" [/] "/"', ["A//B//", "z"], ["A"]),
        ('root ::= ("0" | [1-9] [0-9]*) ("." [0-9]+)? [eE]?', ["0", "10.5", "3e"], ["01", ".5"]),
        ("root ::= [^a] .", ["bé", "é\t"], ["ax", "b"]),
        ("root ::= [a-z\\]-]+ [\\[]", ["a-][", "-["], ["["]),
    ],
)
def test_gbnf_means_what_it_means_to_llama_server(grammar: str, good: list[str], bad: list[str]) -> None:
    assert [matches(Grammar("gbnf", grammar), text) for text in good] == [True] * len(good)
    assert [matches(Grammar("gbnf", grammar), text) for text in bad] == [False] * len(bad)


def test_white_space_in_json_has_a_bound() -> None:
    wish = schema(ANSWER)
    for text in ('{"answer":1,"sure":true}', '{ "answer" : 1, "sure": true }', '{\n  "answer": 1,\n  "sure": true\n}'):
        assert matches(wish, text)
    for text in (' {"answer":1,"sure":true}', '{"answer":1,"sure":true} ', '{"answer":   1,"sure":true}'):
        assert not matches(wish, text)


KEYWORDS = (
    "type", "properties", "items", "anyOf", "allOf", "oneOf", "$ref", "$defs", "enum", "const", "pattern", "required",
    "minimum", "maxLength", "minItems", "maxItems", "format", "additionalProperties", "prefixItems", "multipleOf",
    "not",
)  # fmt: skip
LEAVES = (
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["string", "object", "array", "#", "#/$defs/a", "#/properties/type", "(a|b)*", "[", "date", "é"])
    | st.text(max_size=8)
)  # fmt: skip
SCHEMAS = st.recursive(
    LEAVES,
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inside, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(KEYWORDS), SCHEMAS, max_size=5))
@settings(deadline=None)
def test_whatever_a_schema_says_it_compiles_or_is_refused(wish: dict[str, object]) -> None:
    with contextlib.suppress(UsageError):
        check_grammar(schema(wish))


@given(st.text(max_size=60), st.sampled_from(["regex", "lark", "gbnf"]))
@settings(deadline=None)
def test_whatever_a_grammar_says_it_compiles_or_is_refused(text: str, kind: Literal["regex", "lark", "gbnf"]) -> None:
    with contextlib.suppress(UsageError):
        check_grammar(Grammar(kind, text))


def test_a_token_that_is_forbidden_is_drawn_where_the_grammar_leaves_no_other(backend: LlamaBackend) -> None:
    """The grammar comes first: an answer that keeps to it is worth more than a bias."""
    forbidden = tuple((token, -np.inf) for token in range(backend.vocab_size) if b"9" in backend.piece(token))
    params = SamplingParams(temperature=1, think_budget=0, max_tokens=20, logit_bias=forbidden)
    assert drawn(backend, Grammar("regex", "9{3}"), params).answer == "999"
    assert drawn(backend, Grammar("regex", "[89]{3}"), params).answer == "888"
