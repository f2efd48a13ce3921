"""Documents in paragraphs with their places."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.strategies.paragraphs import Document, Paragraph, by_words, paragraphs


def split(text: str, most: int = 20) -> list[tuple[int, int, str]]:
    """First line, last line and text; a token is a character."""
    return [(each.first, each.last, each.text) for each in paragraphs([Document("a.txt", text)], len, most)]


def test_blank_lines_divide_and_lines_are_counted_from_one() -> None:
    assert split("first paragraph\n\n\nsecond one\nof two lines\n", 25) == [
        (1, 1, "first paragraph"),
        (4, 5, "second one\nof two lines"),
    ]


def test_a_short_title_goes_with_its_text() -> None:
    assert split("# Title\n\nIts text.\n\nAnother text here.", 24) == [
        (1, 3, "# Title\n\nIts text."),
        (5, 5, "Another text here."),
    ]


def test_a_long_paragraph_is_divided_between_lines() -> None:
    assert split("aaaa bbbb\ncccc dddd\neeee ffff\n", 24) == [(1, 2, "aaaa bbbb\ncccc dddd"), (3, 3, "eeee ffff")]


def test_a_long_line_is_divided_between_sentences_and_words() -> None:
    assert split("One two three. Four five six.", 20) == [(1, 1, "One two three. "), (1, 1, "Four five six.")]
    assert split("x" * 50, 20) == [(1, 1, "x" * 12), (1, 1, "x" * 13), (1, 1, "x" * 12), (1, 1, "x" * 13)]


def test_documents_keep_their_names_and_places_are_words() -> None:
    found = paragraphs([Document("a", "one\ntwo"), Document("b", "three")], len, 40)
    assert [each.place for each in found] == ["a, lines 1-2", "b, line 1"]
    assert paragraphs([Document("a", " \n\n")], len, 40) == ()


@given(st.text(alphabet="ab. \n", max_size=300), st.integers(20, 60))
def test_no_text_is_lost_and_no_paragraph_is_too_long(text: str, most: int) -> None:
    found = paragraphs([Document("a", text)], len, most)
    assert "".join("".join(each.text for each in found).split()) == "".join(text.split())
    assert all(each.tokens <= most + 1 for each in found)
    lines = text.splitlines()
    for each in found:
        assert each.text.split()[0] in "\n".join(lines[each.first - 1 : each.last])
    assert [each.first for each in found] == sorted(each.first for each in found)


def paragraph(text: str) -> Paragraph:
    return Paragraph("a", 1, 1, text, len(text))


def test_paragraphs_with_rare_words_of_the_question_come_first() -> None:
    found = [paragraph(each) for each in ("the sky is blue", "the key is red", "the sky is high", "the end")]
    assert by_words(found, "Where is the key?") == [1, 0, 2, 3]
    assert by_words(found, "loading") == [0, 1, 2, 3]


def test_the_same_text_is_there_once() -> None:
    found = [paragraph(each) for each in ("one", "two", "one", "two", "three")]
    assert by_words(found, "three") == [4, 0, 1]


def test_words_are_compared_by_their_beginnings() -> None:
    found = [paragraph("one machine"), paragraph("it serves models"), paragraph("it rests")]
    assert by_words(found, "Serve?")[0] == 1
