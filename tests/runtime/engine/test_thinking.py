from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runtime.engine.thinking import StopStrings, ThinkingMarkers, ThinkingSplitter, UTF8Pieces, thinking_markers

THINK = ThinkingMarkers("<think>", "</think>")


def known(template: str) -> ThinkingMarkers:
    markers = thinking_markers(template, lambda _: False)
    assert markers is not None
    return markers


HARMONY = known("<|channel|>analysis<|message|>")


def split(pieces: list[str], markers: ThinkingMarkers | None = THINK, *, inside: bool = False) -> dict[str, str]:
    splitter = ThinkingSplitter(markers, inside)
    parts = {"thinking": "", "answer": ""}
    for piece in pieces:
        for part, text in splitter.feed(piece):
            assert text
            parts[part] += text
    for part, text in splitter.finish():
        parts[part] += text
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
        ("a</think>b<think>c</think>d", True, "a\n\nc", "bd"),
        ("a</think>b\n\n<think>c</think>\n\nd", True, "a\n\nc", "b\n\nd"),
        ("a  b\n\nc </think> d  e ", True, "a  b\n\nc", "d  e "),
        ("1 < 2 and </ is no tag</think>3 <", True, "1 < 2 and </ is no tag", "3 <"),
        ("cut short </thi", True, "cut short", ""),
        ("if a <", True, "if a <", ""),
        ("answer <thi", False, "", "answer <thi"),
        ("<<think>x</think>y", False, "x", "<y"),
    ],
)
def test_text_is_told_apart(text: str, inside: bool, thinking: str, answer: str) -> None:
    assert split([text], inside=inside) == {"thinking": thinking, "answer": answer}
    assert split(list(text), inside=inside) == {"thinking": thinking, "answer": answer}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("```html\n<think>\n```\nIt opens.", "```html\n\n```\nIt opens."),
        ("~~~~\n```\n<think>~~~~\n~~~~\nend", "~~~~\n```\n~~~~\n~~~~\nend"),
        ("Write `<think>` first.", "Write `` first."),
    ],
)
def test_an_answer_that_explains_tags_is_not_swallowed(text: str, answer: str) -> None:
    assert split([text]) == {"thinking": "", "answer": answer}


def test_after_a_code_block_a_thought_can_open_again() -> None:
    assert split(["```\nx\n```\n<think>y</think>z"]) == {"thinking": "y", "answer": "```\nx\n```\nz"}


def test_text_joined_around_a_removed_tag_never_makes_a_new_one() -> None:
    assert split(["</th</think>ink>done"]) == {"thinking": "", "answer": "</thinkdone"}
    assert split(["<th<think>x</think>ink>y"]) == {"thinking": "x", "answer": "<thinky"}


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
    assert split([" \n<think>", "a </thi"], None) == {"thinking": "", "answer": " \n<think>a </thi"}


def test_the_channels_of_gpt_oss() -> None:
    text = "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>4"
    assert split(list(text), HARMONY) == {"thinking": "Easy.", "answer": "4"}
    assert split(["<|channel|>final<|message|>4"], HARMONY) == {"thinking": "", "answer": "4"}
    assert HARMONY.forced_close == "<|end|><|start|>assistant<|channel|>final<|message|>"


def alphabet(markers: ThinkingMarkers) -> st.SearchStrategy[str]:
    """Texts made of whole tags, pieces of tags, and what surrounds them."""
    pieces = [tag[a:b] for tag in markers.texts for a, b in ((0, 3), (0, -1), (1, None), (3, None))]
    words = [*markers.texts, *pieces, " ", "\n", "a", "b c", "<", ">", "`", "```\n", "\n```", "~~~\n", "é"]
    return st.lists(st.sampled_from(words), max_size=14).map("".join)


@st.composite
def chunked(draw: st.DrawFn, markers: ThinkingMarkers) -> list[str]:
    text = draw(alphabet(markers))
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=12)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@pytest.mark.parametrize("markers", [THINK, HARMONY], ids=["think", "harmony"])
@given(data=st.data(), inside=st.booleans())
def test_the_cuts_never_matter_and_no_tag_gets_through(
    markers: ThinkingMarkers, data: st.DataObject, inside: bool
) -> None:
    pieces = data.draw(chunked(markers))
    parts = split(pieces, markers, inside=inside)
    assert parts == split(["".join(pieces)], markers, inside=inside)
    assert parts == split(list("".join(pieces)), markers, inside=inside)
    assert not any(tag in text for tag in markers.texts for text in parts.values())
    assert parts["thinking"] == parts["thinking"].strip()
    assert parts["answer"] == parts["answer"].lstrip()


@given(pieces=chunked(THINK), at=st.integers(0, 12))
@example(pieces=["a</th", "ink>"], at=1)
def test_a_forced_close_at_any_moment_lets_no_tag_through(pieces: list[str], at: int) -> None:
    splitter = ThinkingSplitter(THINK, True)
    parts = {"thinking": "", "answer": ""}
    for number, piece in enumerate(pieces):
        if number == at:
            splitter.close()
            assert not splitter.in_thought
        for part, text in splitter.feed(piece):
            parts[part] += text
    for part, text in splitter.finish():
        parts[part] += text
    assert not any(tag in text for tag in THINK.texts for text in parts.values())


@given(st.text(alphabet="ab <>/\n`", max_size=40))
def test_text_without_tags_is_kept_whole(text: str) -> None:
    assert split(list(text))["answer"] == text.lstrip()
    assert split(list(text + "</think>"), inside=True)["thinking"] == text.strip()


def test_markers_are_found_in_the_template_before_the_vocabulary() -> None:
    nothing, everything = (lambda _: False), (lambda _: True)
    found = thinking_markers("{{ '<thinking>' }}", everything)
    assert found is not None and found.open == "<thinking>"
    assert thinking_markers("{% if '</think>' in content %}", nothing) == THINK
    assert thinking_markers(None, everything) == THINK
    assert thinking_markers("{{ messages }}", lambda text: "[THINK]" in text or "[/THINK]" in text) == (
        ThinkingMarkers("[THINK]", "[/THINK]", gap="")
    )
    assert thinking_markers("{{ messages }}", lambda text: text in ("<|channel|>", "<|message|>")) == HARMONY
    assert thinking_markers("<|end|>", nothing) is None
    assert thinking_markers("{{ messages }}", nothing) is None
    assert thinking_markers(None, lambda text: text == "<think>") is None


def test_markers_inside_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="part of each other"):
        ThinkingMarkers("<a>", "x<a>y")
    with pytest.raises(ValueError, match="empty"):
        ThinkingMarkers("", "b")


def test_half_characters_wait_for_their_other_half() -> None:
    pieces = UTF8Pieces()
    assert pieces.feed("aé".encode()[:2]) == "a"
    assert not pieces.at_boundary
    assert pieces.feed("é".encode()[1:]) == "é"
    assert pieces.at_boundary
    assert pieces.feed(b"\xe2\x82") == ""
    assert pieces.finish() == "\ufffd"
    assert UTF8Pieces().feed(b"\xff!") == "\ufffd!"


@given(st.text(max_size=20), st.sets(st.integers(0, 80)))
def test_any_cut_of_utf8_gives_the_same_text(text: str, cuts: set[int]) -> None:
    data, pieces, out = text.encode(), UTF8Pieces(), ""
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for a, b in pairwise(edges):
        out += pieces.feed(data[a:b])
        assert out == data[:b].decode(errors="ignore")
        assert pieces.at_boundary == (len(out.encode()) == b)
    assert out + pieces.finish() == text


def test_a_stop_string_ends_the_stream_before_it() -> None:
    stops = StopStrings(("END", "\n\n"))
    assert stops.feed("a\n") == ("a", False)
    assert stops.feed("bE") == ("\nb", False)
    assert stops.feed("NDc") == ("", True)
    assert stops.feed("more") == ("", True)
    assert stops.finish() == ""


def test_what_only_looked_like_a_stop_string_comes_out() -> None:
    stops = StopStrings(("END",))
    assert stops.feed("EN") == ("", False)
    assert stops.finish() == "EN"
    assert StopStrings(()).feed("EN") == ("EN", False)


@given(
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.text("abc", max_size=4), max_size=8),
)
def test_stop_strings_do_not_depend_on_the_cuts(stops: list[str], pieces: list[str]) -> None:
    def run(cut: list[str]) -> tuple[str, bool]:
        stream, out = StopStrings(stops), ""
        for piece in cut:
            text, stopped = stream.feed(piece)
            out += text
            if stopped:
                return out, True
        return out + stream.finish(), False

    text = "".join(pieces)
    out, stopped = run(pieces)
    assert (out, stopped) == run([text]) == run(list(text))
    assert text.startswith(out)
    assert stopped == any(stop in text for stop in stops)
    assert not any(stop in out for stop in stops)
