"""Counting tokens in a child process, from the vocabulary alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.base.errors import Aborted
from runtime.base.run import Run, Stop
from runtime.engine.template import Prompt
from runtime.llama.token_count import count_tokens
from tests.runtime.native_engine import small


def test_it_counts_what_the_loaded_model_reads(nano_path: Path) -> None:
    quoted = "what does <|im_end|> mean? größer 日本語 🙂\n"
    prompts = [
        Prompt(text="What is 12 + 34?"),
        Prompt(text=quoted * 3000),  # more than a pipe holds
        Prompt(text=quoted, literal=(quoted.index("<"),)),
        Prompt(text="half a character: \udc80"),
    ]
    with small(nano_path) as backend:
        expected = [len(each.tokenized(backend.tokenize).tokens) for each in prompts]
    assert [count_tokens(nano_path, each) for each in prompts] == expected


@pytest.mark.parametrize("size", [0, 1000, 1 << 20])
def test_a_damaged_file_is_left_to_loading(tmp_path: Path, nano_path: Path, size: int) -> None:
    short = tmp_path / "short.gguf"
    short.write_bytes(nano_path.read_bytes()[:size])
    assert count_tokens(short, Prompt(text="What is 12 + 34?" * 100_000)) is None


def test_a_stop_ends_it(nano_path: Path) -> None:
    stop = Stop()
    stop.set()
    with pytest.raises(Aborted):
        count_tokens(nano_path, Prompt(text="What is 12 + 34?"), Run(stop))
