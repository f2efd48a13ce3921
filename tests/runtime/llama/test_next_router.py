"""Guesses of the real model's next experts."""

from pathlib import Path

import numpy as np
import pytest

from runtime.engine.backend import Batch
from runtime.from_disk.lookahead import Lookahead
from runtime.from_disk.units import FromDisk
from runtime.llama import OpenOptions
from runtime.llama.graph import GraphNode
from runtime.llama.next_router import Routers
from runtime.llama.streamed_backend import StreamedBackend

TEXT = "Eve has 15 books. Ida gives Eve 6 more. Then 9 are lost. How many books does Eve have now?"


def right_guesses(path: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """The share of rightly guessed experts in the second half of a text that is read token by token."""
    right, guessed = [], dict[int, list[int]]()
    guess = Routers.next_choice

    def watched(self: Routers, index: int, chosen: GraphNode) -> list[int]:
        expected = guess(self, index, chosen)
        if before := guessed.pop(index, []):
            right.append(len(set(before) & set(np.unique(chosen.values()).tolist())) / len(before))
        guessed[index + 1] = expected
        return expected

    monkeypatch.setattr(Routers, "next_choice", watched)
    with StreamedBackend(path, OpenOptions(256, from_disk=FromDisk(1 << 30))) as backend:
        for position, token in enumerate(backend.tokenize(TEXT)):
            backend.decode(Batch([token], [position], [0], [0]))
    monkeypatch.setattr(Routers, "next_choice", guess)
    return float(np.mean(right[len(right) // 2 :]))


def test_earlier_errors_correct_the_guesses(nano_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corrected = right_guesses(nano_path, monkeypatch)
    monkeypatch.setattr(Lookahead, "met", lambda self, layer, scores: None)
    plain = right_guesses(nano_path, monkeypatch)
    assert corrected > plain + 0.03
    assert corrected > 0.7
