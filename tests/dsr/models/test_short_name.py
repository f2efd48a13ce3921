"""The names of models in lists."""

from __future__ import annotations

import pytest

from dsr.models.short_name import short_name


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("nano", "nano"),
        ("unsloth/DeepSeek-R1-Distill-Qwen-1.5B-GGUF:Q4_K_M", "deepseek-r1:1.5b"),
        ("some/Other-Model-GGUF:Q8_0", "Other-Model"),
        ("/home/me/models/tiny-q4.gguf", "tiny-q4"),
        ("big-00001-of-00003.gguf", "big"),
    ],
)
def test_a_reference_has_a_short_name(reference: str, name: str) -> None:
    assert short_name(reference) == name
