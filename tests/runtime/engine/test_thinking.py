from __future__ import annotations

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from runtime.engine.chat_template import ChatTemplate
from runtime.engine.markers import PAIRS, Header, ThinkingMarkers
from runtime.engine.model_markers import thinking_markers
from runtime.engine.thinking import ThinkingSplitter

THINK = ThinkingMarkers("<think>", "</think>")


def known(template: str) -> ThinkingMarkers:
    markers = thinking_markers(ChatTemplate(template, bos="", eos=""), lambda _: False)
    assert markers is not None
    return markers


HARMONY = known("<|channel|>analysis<|message|>")


def split(
    pieces: list[str], markers: ThinkingMarkers | None = THINK, *, inside: bool = False, complete: bool = True
) -> dict[str, str]:
    splitter = ThinkingSplitter(markers, inside)
    parts = {"thinking": "", "answer": ""}
    for piece in pieces:
        for part, text in splitter.feed(piece):
            assert text
            parts[part] += text
    for part, text in splitter.finish(complete=complete):
        parts[part] += text
    parts["thinking"] = parts["thinking"][: splitter.thought_end]
    return parts


@pytest.mark.parametrize(
    ("text", "inside", "thinking", "answer"),
    [
        ("<think>\n1+1=2\n</think>\n\n2", False, "1+1=2", "2"),
        ("1+1=2\n</think>\n\n2", True, "1+1=2", "2"),
        ("<think>\n\n</think>\n\n2", False, "", "2"),
        ("never closed\n", True, "never closed", ""),
        ("no thought at all", False, "", "no thought at all"),
        ("a</think>b</think>c", True, "a", "bc"),
        ("</think>\n\n2", False, "", "2"),
        ("<think>again</think>x", True, "again", "x"),
        ("a</think>b<think>c</think>d", True, "a", "b<think>c</think>d"),
        ("a</think>b\n<think>c</think>d", True, "a\n\nc", "b\nd"),
        ("a</think>b\n\n<think>c</think>\n\nd", True, "a\n\nc", "b\n\nd"),
        ("a  b\n\nc </think> d  e ", True, "a  b\n\nc", "d  e "),
        ("1 < 2 and </ is no tag</think>3 <", True, "1 < 2 and </ is no tag", "3 <"),
        ("cut short </thi", True, "cut short", ""),
        ("if a <", True, "if a <", ""),
        ("answer <thi", False, "", "answer <thi"),
        ("<<think>x</think>y", False, "", "<<think>x</think>y"),
    ],
)
def test_text_is_told_apart(text: str, inside: bool, thinking: str, answer: str) -> None:
    assert split([text], inside=inside) == {"thinking": thinking, "answer": answer}
    assert split(list(text), inside=inside) == {"thinking": thinking, "answer": answer}


FENCED = "```html\n<think>\n</think>\n```\nIt opens."


@pytest.mark.parametrize(
    "answer",
    [
        "Use `text.split('</think>')[1]` to drop it.",
        "Write `<think>` first.",
        "Write ``a ` <think>`` first.",
        "Both `<think>` and `</think>`.",
        FENCED,
        "~~~~\n```\n<think>~~~~\n~~~~\nend",
        "It never closes:\n```\n</think>\n",
        'The mark is "</think>".',
        "The mark is “</think>”, not '<think>'.",
        "re.sub(r'<think>.*?</think>', '', text)",
        "> <think>\n> quoted\n> </think>\n\nEnd.",
        "So:\n\n    text.split(</think>)\n",
    ],
)
def test_a_mark_that_an_answer_quotes_comes_out_as_it_was_written(answer: str) -> None:
    assert split([answer]) == split(list(answer)) == {"thinking": "", "answer": answer}
    assert split(["a</think>" + answer], inside=True) == {"thinking": "a", "answer": answer}


@pytest.mark.parametrize(
    "thought",
    [
        "It tests for `</think>` so I say yes.",
        "It tests for `a</think>b</think>c` so I say yes.",
        "It tests for \"</think>\", and for r'\\s*</think>'.",
        "Code:\n```python\nx.split(</think>)\n```\nSo yes.",
        "Code:\n```\n<think>\nhm\n</think>\n\nanswer\n```\nSo yes.",
        "> It ends with </think> there.\nSo yes.",
        "`<think>` opens, `</think>` closes.",
        "Code:\n```\nhm\n</think>\nanswer\n```\nSo yes.",
        "Code:\n```\nfoo </think> bar\n```",
        "> ```\n> </think>\n> ```\nSo yes.",
        "以「</think>」结束，或“</think>”。",
        "The tag (</think>) ends it, and [</think>] does not.",
    ],
)
def test_a_thought_that_quotes_its_closing_mark_goes_on(thought: str) -> None:
    for end in ("</think>Yes.", "\n</think>\n\nYes."):
        text = thought + end
        assert split([text], inside=True) == split(list(text), inside=True) == {"thinking": thought, "answer": "Yes."}


@pytest.mark.parametrize(
    ("thought", "answer"),
    [
        ("A stray ` here", "Yes."),
        ("A stray ` here", "Use `x` now, or `y`."),
        ("A stray ` here\nand more", "Use ` now."),
        ("Code:\n```python\nx = 1", "Yes."),
        ("Code:\n```python\nx = 1\n", "So:\n```python\nx = 2\n```\nDone."),
        ("Code:\n```\nx = 1\n```", "Yes."),
        ('She asks "Really?"', '"Yes," he said.'),
        ('It is 5" long', 'It is 5" long.'),
        ("> quoted", "\nYes."),
        ("So “yes”", "“Yes”, he said."),
        ("Donc «oui»", "«Oui»."),
        ("所以「是」", "「是」。"),
        ("It calls f(", "7)."),
    ],
)
def test_what_a_thought_forgot_to_close_does_not_swallow_its_end(thought: str, answer: str) -> None:
    text = f"{thought}</think>{answer}"
    expected = {"thinking": thought.strip(), "answer": answer.lstrip()}
    assert split([text], inside=True) == split(list(text), inside=True) == expected


@pytest.mark.parametrize(
    "thought",
    [
        "Code:\n```\nx = 1",
        "Code:\n```python\nx = 1",
        "Code:\n```\nx\n``` done",
        "1. Code:\n   ```\n   x",
        "A\n```\nx\n```\nB\n```\ny",
        "Code:\n````\n```\nx\n```",
        "~~~\nx",
    ],
)
@pytest.mark.parametrize(
    "answer",
    ["Yes.", "So:\n```\nx = 2\n```\nDone.", "```\nx = 2\n```", "~~~\nx\n~~~", "A:\n```\nx\n```\nB:\n```\ny\n```"],
)
def test_a_block_that_a_thought_forgot_to_close_does_not_take_the_blocks_of_the_answer(
    thought: str, answer: str
) -> None:
    for before in ("", "\n", "\n\n"):
        text = f"{thought}{before}</think>\n\n{answer}"
        expected = {"thinking": thought, "answer": answer}
        assert split([text], inside=True) == split(list(text), inside=True) == expected


def test_a_closing_mark_that_is_a_paragraph_counts_before_the_block_is_closed() -> None:
    splitter = ThinkingSplitter(THINK, True)
    splitter.feed("Code:\n```\nx = 1\n</think>\n")
    assert splitter.in_thought and splitter.may_have_ended
    splitter.feed("\n")
    assert not splitter.in_thought


def test_an_answer_directly_behind_a_block_or_a_block_quote_is_found() -> None:
    block = "Code:\n```\nx\n```"
    assert split([block + "</think>```\ny\n```"], inside=True) == {"thinking": block, "answer": "```\ny\n```"}
    assert split(["> So he says.</think>Yes."], inside=True) == {"thinking": "> So he says.", "answer": "Yes."}


def test_a_reply_that_is_cut_inside_its_thought_has_no_answer() -> None:
    for thought in (
        "Code:\n```\nx</think>y",
        "> It ends with </think> there.",
        "Code:\n```\nx.split(</think>)\n```\nSo",
    ):
        assert split([thought], inside=True, complete=False)["answer"] in ("", "y")
    assert split(["Code:\n```\nx.split(</think>)\n```\nSo"], inside=True)["answer"] == ""


def test_an_opening_mark_that_an_answer_only_mentions_is_text() -> None:
    answer = "The <think> tag opens a thought."
    assert split(["a</think>" + answer], inside=True) == {"thinking": "a", "answer": answer}
    assert split(["a</think>b\n<think>\nc"], inside=True) == {"thinking": "a\n\nc", "answer": "b\n"}


TOKENS = THINK.with_tokens(lambda text: text in ("<think>", "</think>"))


def split_tokens(tokens: list[str], *, inside: bool = False) -> dict[str, str]:
    splitter = ThinkingSplitter(TOKENS, inside)
    parts = {"thinking": "", "answer": ""}
    for part, text in [*(each for token in tokens for each in splitter.feed_token(token)), *splitter.finish()]:
        parts[part] += text
    return parts


def test_where_a_mark_is_one_token_its_spelling_is_text() -> None:
    spelled = ["It ends with ", "</", "think", ">", " there."]
    assert split_tokens([*spelled, "</think>", *spelled], inside=True) == {
        "thinking": "It ends with </think> there.",
        "answer": "It ends with </think> there.",
    }
    assert split_tokens(["a", "</th", "</think>", "b"], inside=True) == {"thinking": "a</th", "answer": "b"}
    quoted = ["It ends with `", "</think>", "`.", "</think>", "Yes: `", "</think>", "`."]
    assert split_tokens(quoted, inside=True) == {"thinking": "It ends with `</think>`.", "answer": "Yes: `</think>`."}


def test_a_reply_that_spells_its_opening_mark_may_spell_its_closing_mark() -> None:
    assert split_tokens(["<", "think", ">", "a", "</", "think>", "b"]) == {"thinking": "a", "answer": "b"}


@pytest.mark.parametrize("markers", [None, THINK], ids=["none", "others"])
def test_a_reply_that_begins_with_a_mark_that_nothing_announced_begins_with_a_thought(
    markers: ThinkingMarkers | None,
) -> None:
    for opening, closing in (("<think>", "</think>"), ("<thinking>", "</thinking>"), ("[THINK]", "[/THINK]")):
        text = f"\n{opening}\nTwo and two.{closing}\n\nFour."
        assert split([text], markers) == split(list(text), markers) == {"thinking": "Two and two.", "answer": "Four."}


def test_the_tags_around_an_answer_are_not_part_of_it() -> None:
    markers = known("Thoughts between <think></think>, the answer between <answer></answer>.")
    text = "<think>\nFrance, <answer>, so\n</think>\n<answer>\nParis.\n</answer>"
    expected = {"thinking": "France, <answer>, so", "answer": "Paris."}
    assert split([text], markers) == split(list(text), markers) == expected
    assert split(["<answer>Paris.</answer>"], markers)["answer"] == "Paris."
    for answer in ("The tag is <answer>.", "`<answer>` and </answer>"):
        assert split([answer], markers)["answer"] == answer
    assert split(["<answer>4</answer>"], THINK)["answer"] == "<answer>4</answer>"


def test_gemma_thinks_in_a_channel() -> None:
    gemma = known("<|turn>model\n<|channel>thought\n<channel|>")
    text = "<|channel>thought\nTwelve is two times six.<channel|>Yes."
    expected = {"thinking": "Twelve is two times six.", "answer": "Yes."}
    assert split([text], gemma) == split(list(text), gemma) == split([text], None) == expected
    assert (gemma.forced_open, gemma.forced_close) == ("<|channel>thought\n", "\n<channel|>")


def test_after_a_code_block_a_thought_can_open_again() -> None:
    assert split(["```\nx\n```\n<think>y</think>z"]) == {"thinking": "y", "answer": "```\nx\n```\nz"}


def test_text_joined_around_a_removed_tag_never_makes_a_new_one() -> None:
    assert split(["</th</think>ink>done"]) == {"thinking": "", "answer": "</thinkdone"}
    assert split(["<th\n<think>x</think>ink>y</th</think>ink>"])["answer"] == "<th\nink>y</think"


def test_text_is_given_out_as_soon_as_it_cannot_be_a_tag() -> None:
    splitter = ThinkingSplitter(THINK, True)
    assert splitter.feed("\n") == []
    assert splitter.feed("so") == [("thinking", "so")]
    assert splitter.feed(" \n") == []
    assert splitter.feed("on</th") == [("thinking", " \non")]
    assert splitter.feed("e") == [("thinking", "</the")]
    assert splitter.feed("</think>\n\nYes") == [("answer", "Yes")]
    assert splitter.feed(" ") == [("answer", " ")]


def test_in_thought_follows_the_stream() -> None:
    splitter = ThinkingSplitter(THINK)
    states = [splitter.in_thought]
    for piece in ("<thi", "nk>", "a", "</think", ">", "b"):
        splitter.feed(piece)
        states.append(splitter.in_thought)
    assert states == [False, False, True, True, True, False, False]


def test_a_forced_close_ends_the_thought_and_drops_the_piece_of_a_tag() -> None:
    splitter = ThinkingSplitter(THINK, True)
    assert splitter.feed("half a tho </thi") == [("thinking", "half a tho")]
    splitter.close()
    assert not splitter.in_thought
    assert splitter.feed("\n\nThe </think>answer") == [("answer", "The answer")]
    assert splitter.finish() == []


def test_without_markers_everything_is_the_answer_as_it_is() -> None:
    assert split([" \na <think>", "b </thi"], None) == {"thinking": "", "answer": " \na <think>b </thi"}


def test_the_channels_of_gpt_oss() -> None:
    text = "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>4"
    assert split(list(text), HARMONY) == {"thinking": "Easy.", "answer": "4"}
    assert split(["<|channel|>final<|message|>4"], HARMONY) == {"thinking": "", "answer": "4"}
    assert HARMONY.forced_close == "<|end|><|start|>assistant<|channel|>final<|message|>"


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("<|channel|>final <|constrain|>json<|message|>", "answer"),
        ("<|channel|>final to=user<|message|>", "answer"),
        ("<|start|>assistant to=functions.f<|channel|>commentary json<|message|>", "answer"),
        ("<|start|>assistant<|message|>", "answer"),
        ("<|start|>assistant<|channel|>analysis to=python code<|message|>", "thinking"),
    ],
)
def test_everything_up_to_the_message_is_header(header: str, part: str) -> None:
    text = f"<|channel|>analysis<|message|>Easy.<|end|>{header}4"
    expected = {"thinking": "Easy.\n\n4", "answer": ""} if part == "thinking" else {"thinking": "Easy.", "answer": "4"}
    assert split([text], HARMONY) == split(list(text), HARMONY) == expected
    tokens = known_tokens("<|channel|>", "<|message|>", "<|start|>", "<|end|>")
    splitter, parts = ThinkingSplitter(tokens), {"thinking": "", "answer": ""}
    pieces = re.split(r"(<\|\w+\|>|\w+)", text)
    for which, said in [*(each for piece in pieces for each in splitter.feed_token(piece)), *splitter.finish()]:
        parts[which] += said
    assert parts == expected


def known_tokens(*tokens: str) -> ThinkingMarkers | None:
    return HARMONY.with_tokens(lambda text: text in tokens)


def test_a_header_without_its_end_does_not_swallow_the_message() -> None:
    text = "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final\n4"
    assert split([text], HARMONY) == split(list(text), HARMONY) == {"thinking": "Easy.", "answer": "4"}
    assert split(["<|channel|>analysis<|message|>Easy.<|channel|>final<|message|>4"], HARMONY)["answer"] == "4"
    assert split(["<|channel|>final<|message|>4<|end|><|start|>assist"], HARMONY)["answer"] == "4"


# What makes a mark text; without it no mark reaches a part.
QUOTING = ("`", "```\n", "\n```", "~~~\n", '"', "'", "> ", "    ")


def alphabet(markers: ThinkingMarkers, *, quoting: bool = True) -> st.SearchStrategy[str]:
    """Texts made of whole tags, pieces of tags, and what surrounds them."""
    tags = {*markers.texts, markers.open}
    pieces = [tag[a:b] for tag in sorted(tags) for a, b in ((0, 3), (0, -1), (1, None), (3, None))]
    words = [*sorted(tags), *pieces, " ", "\n", "a", "b c", "<", ">" * quoting, "é", *QUOTING * quoting]
    return st.lists(st.sampled_from([word for word in words if word]), max_size=14).map("".join)


def cut(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=12)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def chunked(draw: st.DrawFn, markers: ThinkingMarkers, quoting: bool = True) -> list[str]:
    return cut(draw, draw(alphabet(markers, quoting=quoting)))


WRAPPED = known("<think></think><answer></answer>")


GEMMA = ThinkingMarkers("<|channel>thought", "<channel|>", after="")
KIMI = ThinkingMarkers(
    "<|open|>think<|sep|>",
    "<|close|>think<|sep|>",
    answer_open="<|open|>response<|sep|>",
    dropped=("<|open|>response<|sep|>", "<|close|>response<|sep|>"),
)
MUSE = ThinkingMarkers(
    "to=self<|message|>",
    "<|eom|>",
    answer_open="<|start|>assistant to=user<|message|>",
    lead=" ",
    header=Header(("<|start|>",), "<|message|>", channel=" to=", thought="self"),
)
OF_MUSE = {"<|start|>", "<|message|>", "<|eom|>"}


@pytest.mark.parametrize(
    "markers",
    [THINK, HARMONY, WRAPPED, GEMMA, KIMI, MUSE],
    ids=["think", "harmony", "wrapped", "gemma", "kimi", "muse"],
)
@given(data=st.data(), inside=st.booleans())
def test_the_cuts_never_matter(markers: ThinkingMarkers, data: st.DataObject, inside: bool) -> None:
    pieces = data.draw(chunked(markers))
    parts = split(pieces, markers, inside=inside)
    assert parts == split(["".join(pieces)], markers, inside=inside)
    assert parts == split(list("".join(pieces)), markers, inside=inside)
    assert parts["thinking"] == parts["thinking"].strip()
    assert parts["answer"] == parts["answer"].lstrip()


@given(data=st.data())
def test_the_cuts_never_matter_without_markers(data: st.DataObject) -> None:
    pieces = data.draw(chunked(THINK))
    assert split(pieces, None) == split(["".join(pieces)], None) == split(list("".join(pieces)), None)


@given(data=st.data(), inside=st.booleans())
def test_the_cuts_between_tokens_never_matter(data: st.DataObject, inside: bool) -> None:
    tokens: list[str] = []
    finer: list[str] = []
    for text in data.draw(st.lists(st.one_of(st.sampled_from(["<think>", "</think>"]), alphabet(THINK)), max_size=6)):
        if text in THINK.texts:
            tokens.append(text)
            finer.append(text)
        else:
            tokens += [text[at : at + 5] for at in range(0, len(text), 5)]  # shorter than a mark
            finer += text
    assert split_tokens(tokens, inside=inside) == split_tokens(finer, inside=inside)


@pytest.mark.parametrize("markers", [THINK, HARMONY], ids=["think", "harmony"])
@given(data=st.data(), inside=st.booleans())
def test_no_tag_gets_through_where_nothing_is_quoted(
    markers: ThinkingMarkers, data: st.DataObject, inside: bool
) -> None:
    parts = split(data.draw(chunked(markers, quoting=False)), markers, inside=inside, complete=False)
    assert not any(tag in parts["thinking"] for tag in markers.texts)
    assert not any(tag in parts["answer"] for tag in markers.texts) or opens_in_a_line(parts["answer"])


def opens_in_a_line(answer: str) -> bool:
    """Whether an opening mark in an answer is text, because other text of its line stands before it."""
    before, mark, _ = answer.partition(THINK.open)
    return bool(mark and before.rpartition("\n")[2].strip())


@given(text=alphabet(THINK), at=st.integers(0, 40))
def test_once_it_is_decided_it_stays(text: str, at: int) -> None:
    """What came out before is never taken back, and nothing of it is held for ever."""
    splitter = ThinkingSplitter(THINK, True)
    early = splitter.feed(text[:at])
    late = splitter.feed(text[at:]) + splitter.finish(complete=False)
    whole = split([text], inside=True, complete=False)
    for part in ("thinking", "answer"):
        said = ["".join(text for which, text in found if which == part) for found in (early, late)]
        assert "".join(said) == whole[part]


@given(pieces=chunked(THINK, quoting=False), at=st.integers(0, 12))
@example(pieces=["a</th", "ink>"], at=1)
def test_a_forced_close_at_any_moment_lets_no_tag_through(pieces: list[str], at: int) -> None:
    # After a forced close a new line begins. With ">" it is a Markdown quote, in which a tag is text.
    assume(not "".join(pieces[at:]).lstrip().startswith(">"))
    splitter = ThinkingSplitter(THINK, True)
    parts = {"thinking": "", "answer": ""}
    for number, piece in enumerate(pieces):
        if number == at:
            for part, text in splitter.close():
                parts[part] += text
            assert not splitter.in_thought
        for part, text in splitter.feed(piece):
            parts[part] += text
    for part, text in splitter.finish(complete=False):
        parts[part] += text
    assert not any(tag in parts["thinking"] for tag in THINK.texts)
    assert not any(tag in parts["answer"] for tag in THINK.texts) or opens_in_a_line(parts["answer"])


def test_a_forced_close_gives_out_what_waited_for_a_decision() -> None:
    splitter = ThinkingSplitter(THINK, True)
    assert splitter.feed("see `</think>") == [("thinking", "see `")]
    assert splitter.close() == [("thinking", "</think>")]
    assert not splitter.in_thought


@given(st.text(alphabet="ab <>/\n`", max_size=40))
def test_text_without_tags_is_kept_whole(text: str) -> None:
    assert split(list(text))["answer"] == text.lstrip()
    assert split(list(text + "\n</think>\n"), inside=True)["thinking"] == text.strip()


def split_by_token(
    tokens: list[str], markers: ThinkingMarkers, vocabulary: set[str], header: str = ""
) -> dict[str, str]:
    splitter = ThinkingSplitter(markers.with_tokens(vocabulary.__contains__), open_header=header)
    parts = {"thinking": "", "answer": ""}
    for part, text in [*(each for token in tokens for each in splitter.feed_token(token)), *splitter.finish()]:
        parts[part] += text
    return parts


@pytest.mark.parametrize(
    ("markers", "header", "tokens", "thinking", "answer"),
    [
        (GEMMA, "", ["<|channel>", "thought", "\n", "Hm", ".", "<channel|>", "So", "."], "Hm.", "So."),
        (GEMMA, "", ["Write", " <", "|", "channel", ">", "thought", "."], "", "Write <|channel>thought."),
        (GEMMA, "", ["So", ".", "<|channel>", "thought", "\n", "<channel|>"], "", "So."),
        (GEMMA, "", ["So", ".", "<channel|>"], "", "So."),
        (
            KIMI,
            "",
            [
                *("<|open|>", "think", "<|sep|>", "Hm", "<|close|>", "think", "<|sep|>"),
                *("<|open|>", "response", "<|sep|>", "So", "<|close|>", "response", "<|sep|>"),
            ],
            "Hm",
            "So",
        ),
        (KIMI, "", ["<|open|>", "think", "<|sep|>", "Hm", "<|open|>", "response", "<|sep|>", "So"], "Hm", "So"),
        (
            KIMI,
            "",
            ["<|open|>", "think", "<|sep|>", "<", "|open|>", "response<|", "sep|>"],
            "<|open|>response<|sep|>",
            "",
        ),
        (
            MUSE,
            "<|start|>assistant",
            [" to", "=self", "<|message|>", "Hm", "<|eom|>", "<|start|>", "assistant", " to=user", "<|message|>", "So"],
            "Hm",
            "So",
        ),
        (MUSE, "<|start|>assistant", [" to=user", "<|message|>", "f(x, to=self)"], "", "f(x, to=self)"),
        (KIMI, "", ["<|open|>", "response", "<|sep|>", "So", "<|close|>", "resp"], "", "So"),
        (MUSE, "<|start|>assistant", ["<|message|>", "So"], "", "So"),
        (MUSE, "<|start|>assistant", ["No", " header", "\n", "here"], "", "No header\nhere"),
    ],
)
def test_marks_of_several_tokens_count_where_their_special_tokens_are_drawn(
    markers: ThinkingMarkers, header: str, tokens: list[str], thinking: str, answer: str
) -> None:
    vocabulary = {"<|channel>", "<channel|>", "<|open|>", "<|close|>", "<|sep|>", *OF_MUSE}
    assert split_by_token(tokens, markers, vocabulary, header) == {"thinking": thinking, "answer": answer}


@pytest.mark.parametrize(
    ("reply", "part"),
    [
        ("<|channel|>analysis<|message|>x", "thinking"),
        (" to=functions.f<|channel|>commentary json<|message|>x", "answer"),
        ("<|channel|>commentary to=functions.f <|constrain|>json<|message|>x", "answer"),
        ("<|channel|>analysis to=python code<|message|>x", "thinking"),
        ("<|channel|>final <|constrain|>json<|message|>x", "answer"),
    ],
)
def test_a_header_that_the_prompt_began_goes_on_in_the_reply(reply: str, part: str) -> None:
    splitter = ThinkingSplitter(HARMONY, open_header="<|start|>assistant")
    assert [*splitter.feed(reply), *splitter.finish()] == [(part, "x")]


APRIEL = ThinkingMarkers("Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]", dropped=("[END FINAL RESPONSE]",))


def test_words_open_a_thought_only_at_the_beginning_of_a_reply_of_their_own_family() -> None:
    reply = "Here are my reasoning steps:\nHm.\n[BEGIN FINAL RESPONSE]\nSo.\n[END FINAL RESPONSE]"
    assert split([reply], APRIEL) == split(list(reply), APRIEL) == {"thinking": "Hm.", "answer": "So.\n"}
    said = "So. Here are my reasoning steps: none."
    assert split([said], APRIEL) == {"thinking": "", "answer": said}
    assert split([reply], THINK)["thinking"] == ""


@pytest.mark.parametrize("opening", ["<think>", "<mm:think>", "[THINK]", "<|inner_prefix|>", "<|channel>thought"])
def test_a_reply_of_a_model_that_announces_nothing_may_begin_with_a_known_mark(opening: str) -> None:
    close = next(pair.close for pair in PAIRS if pair.open == opening)
    assert split([f"{opening}Hm.{close}So."], None) == {"thinking": "Hm.", "answer": "So."}
    assert split([f"So: {opening}Hm.{close}"], None) == {"thinking": "", "answer": f"So: {opening}Hm.{close}"}


def test_plain_text_is_not_divided() -> None:
    splitter = ThinkingSplitter(THINK, plain=True)
    assert [*splitter.feed_token(" <think>"), *splitter.feed("a</think>")] == [
        ("answer", " <think>"),
        ("answer", "a</think>"),
    ]
