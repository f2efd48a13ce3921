"""Small templates of each kind, in words of our own: how thoughts are written differs, not who writes them."""

from __future__ import annotations

import pytest

from runtime.engine.chat_template import ChatTemplate
from runtime.engine.markers import HARMONY, Header, ThinkingMarkers
from runtime.engine.model_markers import thinking_markers

THINK = ThinkingMarkers("<think>", "</think>")


def turns(answer: str, prompt: str, before: str = "") -> str:
    """A template that writes an answer as `answer`, and ends a prompt with `prompt`."""
    return (
        "{% for m in messages %}{% if m.role == 'user' %}<user>{{ m.content }}</user>{% else %}"
        f"{before}{answer}{{% endif %}}{{% endfor %}}{{% if add_generation_prompt %}}{prompt}{{% endif %}}"
    )


def marks(source: str, has_token: tuple[str, ...] = ()) -> ThinkingMarkers | None:
    return thinking_markers(ChatTemplate(source, bos="", eos=""), lambda text: text in has_token)


FIELD = "{% if m.reasoning_content %}<ponder>\n{{ m.reasoning_content }}\n</ponder>\n\n{% endif %}{{ m.content }}"
KINDS = {
    "a field, and a prompt that opens nothing": (
        turns(FIELD, "<bot>", "<bot>"),
        ThinkingMarkers("<ponder>", "</ponder>"),
    ),
    "a prompt that opens the thought": (
        turns(FIELD, "<bot><ponder>\n", "<bot>"),
        ThinkingMarkers("<ponder>", "</ponder>"),
    ),
    "a line end before the thought": (
        turns("<bot>\n<ponder>{{ m.reasoning }}</ponder>\n{{ m.content }}", "<bot>"),
        ThinkingMarkers("<ponder>", "</ponder>", gap="", after="\n", lead="\n"),
    ),
    "a suffix in the name": (
        turns("<bot><think:free>{{ m.reasoning_content }}</think:free>{{ m.content }}", "<bot>"),
        ThinkingMarkers("<think:free>", "</think:free>", gap="", after=""),
    ),
    "parts of the content": (
        turns(
            "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
            "{% if part.type == 'thinking' %}[PONDER]{{ part.thinking }}[/PONDER]{% else %}{{ part.text }}{% endif %}"
            "{% endfor %}{% endif %}",
            "",
        ),
        ThinkingMarkers("[PONDER]", "[/PONDER]", gap="", after=""),
    ),
    "blocks of the content": (
        turns(
            "<bot>{% if m.content is string %}{{ m.content }}{% else %}{% for block in m.content.blocks %}"
            "{% if block.type == 'thoughts' %}<|inside|>{{ block.text }}<|outside|>{% else %}{{ block.text }}"
            "{% endif %}{% endfor %}{% endif %}",
            "<bot>",
        ),
        ThinkingMarkers("<|inside|>", "<|outside|>", gap="", after=""),
    ),
    "an empty thought where none is asked for": (
        turns("<bot>{{ m.content }}", "<bot>{% if not enable_thinking %}<|part>musing\n<part|>{% endif %}"),
        ThinkingMarkers("<|part>musing", "<part|>", after=""),
    ),
    "an empty thought behind the mark of the prompt": (
        turns("<bot>{{ m.content }}", "<bot><ponder>{% if not thinking %}</ponder>{% endif %}"),
        ThinkingMarkers("<ponder>", "</ponder>", gap="", after=""),
    ),
    "an empty thought in the history": (
        turns("<bot><ponder></ponder>{{ m.content }}", "<bot>"),
        ThinkingMarkers("<ponder>", "</ponder>", gap="", after=""),
    ),
    "a closing mark alone in the history": (
        turns(
            "<bot>{% if m.reasoning_content %}<ponder>{{ m.reasoning_content }}{% endif %}</ponder>{{ m.content }}",
            "<bot>{% if enable_thinking is false %}</ponder>{% else %}<ponder>{% endif %}",
        ),
        ThinkingMarkers("<ponder>", "</ponder>", gap="", after=""),
    ),
    "names between tags, and an answer in tags": (
        turns(
            "<|open|>note who=bot<|sep|><|open|>muse<|sep|>{{ m.reasoning_content }}<|close|>muse<|sep|>"
            "<|open|>reply<|sep|>{{ m.content }}<|close|>reply<|sep|>",
            "<|open|>note who=bot<|sep|><|open|>muse<|sep|>",
        ),
        ThinkingMarkers(
            "<|open|>muse<|sep|>",
            "<|close|>muse<|sep|>",
            gap="",
            after="",
            answer_open="<|open|>reply<|sep|>",
            dropped=("<|open|>reply<|sep|>", "<|close|>reply<|sep|>"),
        ),
    ),
    "a turn of its own for the thought": (
        turns(
            "{% if m.reasoning %}<|begin|>bot<|muse|>{{ m.reasoning }}<|end|>{% endif %}"
            "<|begin|>bot<|reply|>{{ m.content }}<|end|>",
            "<|begin|>bot",
        ),
        ThinkingMarkers(
            "<|muse|>",
            "<|end|>",
            gap="",
            after="",
            answer_open="<|begin|>bot<|reply|>",
            dropped=("<|begin|>bot", "<|reply|>"),
        ),
    ),
    "channels": (
        turns(
            "{% if m.thinking %}<|head|>bot<|way|>inner<|body|>{{ m.thinking }}<|end|>{% endif %}"
            "<|head|>bot<|way|>outer<|body|>{{ m.content }}<|end|>",
            "<|head|>bot",
        ),
        ThinkingMarkers(
            "<|way|>inner<|body|>",
            "<|end|>",
            gap="",
            after="",
            answer_open="<|head|>bot<|way|>outer<|body|>",
            header=Header(("<|head|>", "<|way|>"), "<|body|>", channel="<|way|>", thought="inner"),
        ),
    ),
    "recipients": (
        turns(
            "{% if m.reasoning_content %}<|head|>bot for=me<|body|>{{ m.reasoning_content }}<|next|>{% endif %}"
            "<|head|>bot for=you<|body|>{{ m.content }}<|end|>",
            "<|head|>bot",
        ),
        ThinkingMarkers(
            "for=me<|body|>",
            "<|next|>",
            gap="",
            after="",
            lead=" ",
            answer_open="<|head|>bot for=you<|body|>",
            header=Header(("<|head|>",), "<|body|>", channel=" for=", thought="me"),
        ),
    ),
    "words in the prompt, and a mark before the answer": (
        turns(
            "<bot>\n{% if m.reasoning_content %}{{ m.reasoning_content }}\n[MY ANSWER]\n{% endif %}{{ m.content }}",
            "<bot>\nI think aloud:\n",
        ),
        ThinkingMarkers("I think aloud:", "[MY ANSWER]", after="\n"),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_marks_are_read_off_what_the_template_writes(kind: str) -> None:
    source, expected = KINDS[kind]
    assert marks(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        turns("<bot>{{ m.content }}", "<bot>"),
        turns("<bot>{{ m.content }}{{ m.reasoning_content }}", "<bot>"),
        turns("<bot>{{ m.reasoning_content }}{{ m.content }}", "<bot>"),
        turns("<bot>{{ m | tojson }}", "<bot>"),
        turns("<bot>(thought: {{ m.thinking }}) {{ m.content }}", "<bot>"),
        "{{ raise_exception('no') }}",
    ],
    ids=["no thought", "after the answer", "unmarked", "dumped", "in words", "refused"],
)
def test_a_template_that_marks_no_thought_has_no_markers(source: str) -> None:
    assert marks(source) is None


def test_marks_known_by_name_are_found_in_the_template_before_the_vocabulary() -> None:
    both = ("<think>", "</think>")
    assert marks("{{ messages[0].content.split('</thinking>')[-1] }}", both) == ThinkingMarkers(
        "<thinking>", "</thinking>"
    )
    assert thinking_markers(None, lambda text: text in both) == THINK
    assert thinking_markers(None, lambda text: text == "<think>") is None
    assert thinking_markers(None, lambda text: text in ("<|channel|>", "<|message|>")) == HARMONY
    assert marks("{{ messages[0].content }}<|end|>") is None


def test_a_mark_that_is_a_token_is_known_as_one() -> None:
    found = marks(KINDS["names between tags, and an answer in tags"][0], ("<|open|>", "<|close|>", "<|sep|>"))
    assert found is not None
    assert found.tokens == {"<|open|>", "<|close|>", "<|sep|>"}


def test_tags_around_answers_count_if_the_prompt_asks_for_them_or_the_template_divides_answers_there() -> None:
    asked = marks(
        "{% if thinking %}Think between <think></think>, answer between <response></response>.{% endif %}"
        "{{ messages[0].content }}"
    )
    assert asked is not None and asked.wrapper == ("<response>", "</response>")
    divided = marks("{{ messages[0].content.split('</think>')[-1].split('<answer>')[-1].split('</answer>')[0] }}")
    assert divided is not None and divided.wrapper == ("<answer>", "</answer>")
    tool = marks(
        "<think></think>{% for m in messages %}{% if m.role == 'tool' %}<response>{{ m.content }}</response>"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    assert tool == THINK
