from __future__ import annotations

from datetime import datetime, tzinfo
from pathlib import Path

import pytest

import prompts
from runtime.base.errors import Aborted, Incompatible, UsageError
from runtime.base.run import Stop
from runtime.base.types import Message
from runtime.engine.markers import HARMONY, ThinkingMarkers
from runtime.engine.sandbox import meter
from runtime.engine.template import ChatTemplate, Prompt, build_prompt, file_layout, prompt_is_thinking, template_of

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
THINK = ThinkingMarkers("<think>", "</think>")
HELLO = (Message("user", "hi"),)
TALK = (
    Message("system", "Be brief."),
    Message("user", "1+1?"),
    Message("assistant", "<think>\n1+1=2\n</think>\n\n2"),
    Message("user", "2+2?"),
)
R1_SENTENCE = "Okay, I think I have finished thinking."


def source(name: str) -> str:
    return (Path(__file__).parents[2] / "templates" / f"{name}.jinja").read_text(encoding="utf-8")


def template(text: str) -> ChatTemplate:
    return ChatTemplate(text, bos=BOS, eos=EOS)


def prompt(name: str, thinking: bool | None, no_think_text: str = "", markers: ThinkingMarkers | None = THINK) -> str:
    return build_prompt(template(source(name)), TALK, markers, thinking, no_think_text).text


NANO = f"{BOS}Be brief.<｜User｜>1+1?<｜Assistant｜>2{EOS}<｜User｜>2+2?<｜Assistant｜>"
CHATML = (
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+1?<|im_end|>\n"
    "<|im_start|>assistant\n2<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.mark.parametrize(
    ("name", "thinking", "expected"),
    [
        ("nano", None, NANO + "<think>\n"),
        ("nano", True, NANO + "<think>\n"),
        ("nano", False, NANO + "<think>\n\n</think>\n\n"),
        ("deepseek-r1-distill-qwen-7b", None, NANO),
        ("deepseek-r1-distill-qwen-7b", True, NANO + "<think>\n"),
        ("deepseek-r1-distill-qwen-7b", False, NANO + f"<think>\n{R1_SENTENCE}\n</think>\n\n"),
        ("qwen3-like", None, CHATML),
        ("qwen3-like", True, CHATML + "<think>\n"),
        ("qwen3-like", False, CHATML + "<think>\n\n</think>\n\n"),
    ],
)
def test_prompts_of_real_models(name: str, thinking: bool | None, expected: str) -> None:
    text = R1_SENTENCE if name.startswith("deepseek") else ""
    assert prompt(name, thinking, text) == expected


@pytest.mark.parametrize("thinking", [None, True, False])
def test_a_model_that_does_not_think_gets_its_plain_prompt(thinking: bool | None) -> None:
    built = build_prompt(template(source("smollm2")), HELLO, None, thinking, "")
    assert built.text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert not built.starts_in_thought


@pytest.mark.parametrize(("thinking", "starts"), [(None, True), (True, True), (False, False)])
def test_the_prompt_says_whether_a_thought_is_open(thinking: bool | None, starts: bool) -> None:
    built = build_prompt(template(source("nano")), HELLO, THINK, thinking, "")
    assert built.starts_in_thought is starts


def test_tags_in_a_question_do_not_open_a_thought() -> None:
    question = (Message("user", "What does <think> mean?"),)
    assert not build_prompt(template(source("qwen3-like")), question, THINK, None, "").starts_in_thought
    assert prompt_is_thinking("x<think>\n", THINK)
    assert not prompt_is_thinking("<think>x", THINK)


def test_without_a_switch_an_open_thought_is_closed_where_it_stands() -> None:
    opening = template("{{ messages[0].content }}|<think>\n\n{{ '' }}")
    assert build_prompt(opening, HELLO, THINK, False, "").text == "hi|<think>\n\n</think>\n\n"
    assert build_prompt(opening, HELLO, THINK, False, "Done.").text == "hi|<think>\nDone.\n</think>\n\n"


def test_a_switch_that_only_closes_is_trusted() -> None:
    # DeepSeek-V3.1 answers without a thought after a lone closing tag, and calls its switch `thinking`.
    v31 = template("{{ messages[0].content }}|{{ '<think>' if thinking is defined and thinking else '</think>' }}")
    assert build_prompt(v31, HELLO, THINK, False, "x").text == "hi|</think>"
    assert build_prompt(v31, HELLO, THINK, True, "x").text == "hi|<think>"


def test_gpt_oss_skips_its_thought_with_an_empty_analysis() -> None:
    harmony = template("<|start|>user<|message|>{{ messages[0].content }}<|end|><|start|>assistant")
    assert build_prompt(harmony, HELLO, HARMONY, False, "").text.endswith(
        "<|start|>assistant<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|>"
    )


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("<think>a</think>b</think>\n\nc", "b\n\nc"),
        ("<thinking>another model's</thinking>c", "c"),
        ("thought without an opening\n</think>\n\nc", "c"),
        ("the answer alone", "the answer alone"),
        ("Use `text.split('</think>')[1]`.", "Use `text.split('</think>')[1]`."),
        ("```\n</think>\n```", "```\n</think>\n```"),
    ],
)
def test_earlier_thoughts_are_left_out_even_by_careless_templates(said: str, kept: str) -> None:
    messages = (Message("user", "</think>q"), Message("assistant", said), Message("user", "r"))
    assert build_prompt(CARELESS, messages, THINK, None, "").text == f"[</think>q][{kept}][r]"


CARELESS = template("{% for m in messages %}[{{ m.content }}]{% endfor %}")


def test_a_template_that_divides_answers_at_a_mark_keeps_a_mark_in_code() -> None:
    divides = template("{% for m in messages %}[{{ m.content.split('</think>')[-1] }}]{% endfor %}")
    said = "Use `text.split('</think>')[1]`."
    messages = (Message("user", "q"), Message("assistant", said), Message("user", "r"))
    assert build_prompt(divides, messages, THINK, None, "").text == f"[q][{said}][r]"


@pytest.mark.parametrize("unanswered", ["", " \n", "<think>\ncut short"])
def test_a_question_without_an_answer_is_left_out(unanswered: str) -> None:
    strict = template(
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) or not m.content %}"
        "{{ raise_exception('no') }}{% endif %}[{{ m.content }}]{% endfor %}"
    )
    pair = (Message("user", "q"), Message("assistant", unanswered))
    kept = (Message("user", "a"), Message("assistant", "b"))
    last = Message("user", "r")
    assert build_prompt(strict, (*pair, last), THINK, None, "").text == "[r]"
    assert build_prompt(strict, (*pair, *kept, *pair, last), THINK, None, "").text == "[a][b][r]"
    assert build_prompt(strict, (*kept, pair[0], last), THINK, None, "").text == "[a][b][r]"
    assert build_prompt(strict, (kept[1], *kept, kept[1], last), THINK, None, "").text == "[a][b][r]"


@pytest.mark.parametrize(
    "sysless",
    [
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{% for m in messages %}[{{ m.content }}]{% endfor %}",
        "{% for m in messages if m.role != 'system' %}[{{ m.content }}]{% endfor %}",
    ],
    ids=["refused", "dropped"],
)
def test_a_system_prompt_that_the_template_does_not_take_joins_the_first_question(sysless: str) -> None:
    model = template(sysless)
    assert not model.takes_system
    assert build_prompt(model, TALK, THINK, None, "").text == "[Be brief.\n1+1?][2][2+2?]"
    assert template(source("qwen3-like")).takes_system


def test_a_template_gets_the_date_under_the_names_of_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    class Noon(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Noon:
            return cls(2026, 7, 4, 12)

    monkeypatch.setattr("runtime.engine.chat_template.datetime", Noon)
    assert template("{{ date_string }}; {{ datetime }}").render(TALK) == "04 Jul 2026; Jul 04 2026"


def test_a_refusal_names_what_to_leave_out() -> None:
    def hint(condition: str) -> str:
        refusing = "{% if " + condition + " %}{{ raise_exception('no') }}{% endif %}{{ messages[0].content }}"
        with pytest.raises(Incompatible, match="refuses this conversation: no") as caught:
            build_prompt(template(refusing), TALK, THINK, None, "")
        return caught.value.hint or ""

    assert "--system" in hint("messages[0].content == 'Be brief.'")
    assert "/clear" in hint("messages|length > 2")
    assert "--system" not in hint("true") and "--template" in hint("true")


def test_the_r1_prompts_are_the_published_ones() -> None:
    assert prompts.read("no-think-r1") == R1_SENTENCE
    assert file_layout("a.txt", "{x}\n{name}", "Why {y}?") == (
        "[file name]: a.txt\n[file content begin]\n{x}\n{name}\n[file content end]\nWhy {y}?"
    )


def test_what_chat_templates_expect_of_their_environment() -> None:
    text = template(
        "{% for m in messages %}\n"
        "    {% if m.role == 'system' %}{% continue %}{% endif %}\n"
        "    {%- generation %}{{ m['content'] | tojson }}{% endgeneration %}\n"
        "    {% break %}\n"
        "{% endfor %}\n"
        "{{ tools is defined }} {{ bos_token ~ 1 }} {{ strftime_now('%Y')|length }} {{ messages[1:]|length }}"
        " {{ ['a', 'b']|join('-') }} {{ {'a': [1, none]}|tojson }} {{ 'a.b'.split('.')[-1] }}"
        " {{ messages|map(attribute='role')|join(',') }} {{ 'x\ny'|indent(2) }}"
    ).render((Message("system", "s"), Message("user", "<é>")))
    assert text == f'"<é>"False {BOS}1 4 1 a-b {{"a": [1, null]}} b system,user x\n  y'


def test_a_template_may_refuse() -> None:
    with pytest.raises(Incompatible, match="refuses this conversation: no system prompt") as caught:
        template("{{ raise_exception('no system prompt') }}").render(HELLO)
    assert caught.value.hint is not None and "--template" in caught.value.hint


def test_a_model_without_a_template_needs_one() -> None:
    with pytest.raises(Incompatible, match="m has no chat template") as caught:
        template_of(None, None, name="m", bos="", eos="")
    assert caught.value.hint is not None and "--template FILE" in caught.value.hint
    assert template_of("model's", "user's", name="m", bos="", eos="").render(HELLO) == "user's"


@pytest.mark.parametrize(
    "broken",
    [
        "{{ .Prompt }}",
        "{% for m in messages %}",
        "{{ 'a'|center(9) }}",
        "{{ lipsum|pprint }}",
        "{{ " + "(" * 5000,
        "{{ " + "[" * 300 + "]" * 300 + " }}",
        "{{ " + "9" * 6000 + " }}",
        "x" * (meter.MAX_SOURCE + 1),
    ],
    ids=["go", "unclosed", "no filter", "no pprint", "parentheses", "lists", "digits", "long"],
)
def test_a_broken_template_is_refused_when_it_is_read(broken: str) -> None:
    with pytest.raises(Incompatible, match="chat template") as caught:
        template(broken)
    assert "\n" not in caught.value.message


GROW = "{% set ns = namespace(s='aa') %}{% for i in range(90) %}{% set ns.s = STEP %}{% endfor %}{{ ns.s }}"
GROW_BY_SET = "{% set ns = namespace(s='aa') %}{% for i in range(90) %}{% set x %}{{ ns.s }}{{ ns.s }}{% endset %}"


@pytest.mark.parametrize(
    "hostile",
    [
        "{{ 'a' * 10**10 }}",
        "{{ ['a'] * 10**10 }}",
        "{{ 10**10**10 }}",
        "{{ range(10**9) }}",
        "{{ 'a'.ljust(10**9) }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ strftime_now('%999999999d') }}",
        "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
        "{{ ('a' * 1000000)|replace('a', 'b' * 1000000) }}",
        "{{ (['a' * 10000] * 800)|join('b' * 1000000) }}",
        "{{ ('b' * 1000000).join('a' * 1000) }}",
        "{{ ('\\n' * 1000000)|indent(1000, blank=true) }}",
        "{{ (5).to_bytes(10**9) }}",
        GROW.replace("STEP", "ns.s + ns.s"),
        GROW.replace("STEP", "ns.s ~ ns.s"),
        GROW.replace("STEP", "[ns.s, ns.s]"),
        GROW.replace("STEP", "(ns.s, ns.s)"),
        GROW.replace("STEP", "{'a': ns.s, 'b': ns.s}"),
        GROW.replace("STEP", "dict(a=ns.s, b=ns.s)"),
        GROW.replace("STEP", "ns.s.replace('a', 'aa')"),
        GROW_BY_SET + "{% set ns.s = x %}{% endfor %}",
        "{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}" + GROW.replace("STEP", "twice(ns.s)"),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ [ns] }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__'] }}",
        "{{ [''.__class__] }}",
        "{{ ['']|map(attribute='__class__')|list }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(a=1) }}",
        "{% include 'x' %}",
        "{{ missing.attribute }}",
        "{{ 1 // 0 }}",
        "",
    ],
)
def test_a_hostile_template_ends_in_one_line(hostile: str) -> None:
    with pytest.raises(Incompatible, match="chat template") as caught:
        template(hostile).render(HELLO)
    assert "\n" not in caught.value.message


LOOP = "{% for i in range(100000) %}"


@pytest.mark.parametrize(
    "endless",
    [
        LOOP * 3 + "{% endfor %}" * 3,
        "{% set r = range(100000) %}{% for i in r %}{% for j in r %}{% for k in r %}{{ k }}" + "{% endfor %}" * 3,
        "{% for a in range(9) recursive %}{% if loop.depth < 90 %}{{ loop(range(9)) }}{% endif %}{% endfor %}",
        "{% set r = range(100000)|list %}{{ r|select('in', r)|list }}",
        "{% set r = range(100000)|list %}" + LOOP + "{{ r|reject('none')|map('string')|join }}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}",
        "{% set s = 'a' * 4000000 %}{% set t = s ~ '' %}" + LOOP + "{% if s == t %}{% endif %}{% endfor %}",
    ],
)
def test_an_endless_template_is_stopped(endless: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "MAX_SECONDS", 0.05)
    with pytest.raises(Incompatible, match=r"it takes longer than 0\.05 seconds|it does too much work"):
        template(endless).render(HELLO)


def test_small_steps_add_up() -> None:
    with pytest.raises(Incompatible, match="too much work"):
        template("{% set s = 'a' * 4000000 %}" + "{% if s is upper %}{% endif %}" * 99).render(HELLO)


def test_small_values_add_up() -> None:
    with pytest.raises(Incompatible, match="makes more than 160 MiB"):
        kept = "".join(f"{{% set s{number} = s[1:] %}}" for number in range(99))
        template("{% set s = 'a' * 4000000 %}" + kept).render(HELLO)


@pytest.mark.parametrize(
    "added",
    [
        "{% set ns.all = ns.all + message.content %}",
        "{% set ns.all = ns.all ~ message.content %}",
        "{% set ns.all = (ns.all ~ message.content)|trim %}",
    ],
)
def test_a_conversation_may_be_put_together_message_by_message(added: str) -> None:
    """Reka Edge's template does it. 80 texts of 4 MiB are made, and all but one are dropped."""
    pasted = Message("user", "😀" + "a" * 1_000_000)
    said = [Message("user", "and then?"), Message("assistant", "nothing")] * 40
    source = "{% set ns = namespace(all='') %}{% for message in messages %}" + added + "{% endfor %}{{ ns.all }}"
    assert template(source).render([pasted, *said]) == pasted.content + "and then?nothing" * 40


def test_the_work_of_one_rendering_is_not_held_against_the_next() -> None:
    long = (Message("user", "a" * 3_000_000),)
    model = template(source("qwen3-like"))
    lengths = {len(model.render(long)) for _ in range(12)}
    assert lengths == {3_000_000 + len("<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n")}


def test_nothing_is_computed_while_a_template_is_read() -> None:
    costly = "{% if false %}{{ 'a' * 10**10 }}{{ 'a'|upper }}{{ range(10**9)|list }}{% endif %}ok"
    assert template(costly).render(HELLO) == "ok"


def test_a_stop_ends_a_rendering_and_is_taken() -> None:
    stop = Stop()
    template = ChatTemplate("{% for i in range(9) %}x{% endfor %}", bos="", eos="", stop=stop)
    stop.set()
    with pytest.raises(Aborted):
        template.render([Message("user", "hi")])
    assert template.render([Message("user", "hi")]) == "x" * 9


# An answer that goes on


ASKED = (Message("user", "hi"),)


def going_on(
    name: str, content: str, thought: str = "", thinking: bool | None = None, markers: ThinkingMarkers | None = THINK
) -> Prompt:
    talk = (*ASKED, Message("assistant", content, thought))
    return build_prompt(template(source(name)), talk, markers, thinking, R1_SENTENCE, continues=True)


NANO_HI, QWEN_HI = f"{BOS}<｜User｜>hi<｜Assistant｜>", "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("name", "content", "thought", "text"),
    [
        ("nano", "Hello, ", "A greeting.", NANO_HI + "<think>\nA greeting.\n</think>\n\nHello, "),
        ("nano", "Hello, ", "", NANO_HI + f"<think>\n{R1_SENTENCE}\n</think>\n\nHello, "),
        ("nano", "", "A gree", NANO_HI + "<think>\nA gree"),
        ("qwen3-like", "Hello, ", "A greeting.", QWEN_HI + "<think>\nA greeting.\n</think>\n\nHello, "),
        ("qwen3-like", "Hello, ", "", QWEN_HI + "Hello, "),
        ("qwen3-like", "", "A gree", QWEN_HI + "<think>\nA gree"),
    ],
)
def test_a_prompt_ends_inside_the_answer_that_goes_on(name: str, content: str, thought: str, text: str) -> None:
    prompt = going_on(name, content, thought)
    assert prompt.text == text
    assert (prompt.begun, prompt.starts_in_thought) == (content, not content)


def test_the_thought_of_an_answer_that_goes_on_may_stand_in_its_content() -> None:
    prompt = going_on("qwen3-like", "<think>\nA greeting.\n</think>\n\nHello")
    assert prompt.text == QWEN_HI + "<think>\nA greeting.\n</think>\n\nHello"
    assert prompt.begun == "Hello"


def test_an_answer_that_goes_on_has_its_channel() -> None:
    plain = (
        "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}<|start|>assistant"
    )
    talk = (*ASKED, Message("assistant", "Hel", "A greeting."))
    asked = "<|start|>user<|message|>hi<|end|><|start|>assistant"
    prompt = build_prompt(template(plain), talk, HARMONY, None, "", continues=True)
    final = "<|channel|>final<|message|>Hel"
    thought = "<|channel|>analysis<|message|>A greeting.<|end|><|start|>assistant"
    assert (prompt.text, prompt.open_header) == (asked + thought + final, "")
    talk = (*ASKED, Message("assistant", "Hel"))
    assert build_prompt(template(plain), talk, HARMONY, None, "", continues=True).text == asked + final


def test_special_tokens_in_an_answer_that_goes_on_are_text() -> None:
    made = template_of(source("nano"), None, name="nano", bos=BOS, eos=EOS, special_texts=(["<｜User｜>"], []))
    talk = (*ASKED, Message("assistant", "so <｜User｜> is"))
    prompt = build_prompt(made, talk, THINK, None, "", continues=True)
    assert prompt.text.endswith("</think>\n\nso <｜User｜> is")
    assert prompt.literal == (prompt.text.rindex("<｜User｜>"),)


def test_an_empty_answer_begins() -> None:
    assert going_on("nano", "").text == NANO_HI + "<think>\n"
    assert going_on("nano", "").begun is None


def test_only_an_answer_goes_on() -> None:
    for talk in ((), HELLO):
        with pytest.raises(UsageError, match="only an answer can go on, and the last message is none"):
            build_prompt(template(source("nano")), talk, THINK, None, "", continues=True)
