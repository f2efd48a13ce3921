from __future__ import annotations

import pytest

from runtime.engine.markers import HARMONY, ThinkingMarkers


def test_markers_inside_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="part of each other"):
        ThinkingMarkers("<a>", "x<a>y")
    with pytest.raises(ValueError, match="empty"):
        ThinkingMarkers("", "b")


def test_words_that_open_a_thought_are_no_mark_inside_a_reply() -> None:
    assert ThinkingMarkers("My steps:", "[END]").texts == ("[END]",)


def test_tokens_are_whole_marks_or_the_tags_in_them() -> None:
    gemma = ThinkingMarkers("<|channel>thought", "<channel|>")
    assert gemma.with_tokens(lambda text: "channel" in text and "thought" not in text).tokens == {
        "<|channel>",
        "<channel|>",
    }
    assert gemma.with_tokens(lambda _: False).tokens == frozenset()


def test_a_prompt_may_end_inside_a_header() -> None:
    assert HARMONY.header is not None
    assert HARMONY.header.open_at_end("<|start|>user<|message|>q<|end|><|start|>assistant") == "<|start|>assistant"
    assert HARMONY.header.open_at_end("<|start|>assistant<|channel|>final<|message|>") == ""
    assert HARMONY.header.open_at_end("q") == ""
