from __future__ import annotations

import pytest

from runtime.engine.markers import ThinkingMarkers, thinking_markers

THINK = ThinkingMarkers("<think>", "</think>")


def test_markers_are_found_in_the_template_before_the_vocabulary() -> None:
    nothing, everything = (lambda _: False), (lambda _: True)
    found = thinking_markers("{{ '<thinking>' }}", everything)
    assert found is not None and found.open == "<thinking>"
    assert thinking_markers("{% if '</think>' in content %}", nothing) == THINK
    assert thinking_markers(None, everything) == THINK
    assert thinking_markers("{{ messages }}", lambda text: "[THINK]" in text or "[/THINK]" in text) == (
        ThinkingMarkers("[THINK]", "[/THINK]", gap="", after="")
    )
    harmony = thinking_markers("{{ messages }}", lambda text: text in ("<|channel|>", "<|message|>"))
    assert harmony == thinking_markers("<|channel|>analysis<|message|>", nothing)
    assert thinking_markers("<|end|>", nothing) is None
    assert thinking_markers("{{ messages }}", nothing) is None
    assert thinking_markers(None, lambda text: text == "<think>") is None


def test_markers_inside_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="part of each other"):
        ThinkingMarkers("<a>", "x<a>y")
    with pytest.raises(ValueError, match="empty"):
        ThinkingMarkers("", "b")


def test_a_wrapper_of_answers_counts_where_the_template_names_both_tags() -> None:
    nothing = lambda _: False  # noqa: E731
    wrapped = thinking_markers("<think></think><response></response>", nothing)
    assert wrapped is not None and wrapped.wrapper == ("<response>", "</response>")
    assert thinking_markers("<think></think>{{ '<answer>' }}", nothing) == THINK
