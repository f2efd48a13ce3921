"""Whose state may be loaded: the same files, engine and options, and nothing else."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path

import pytest

from dsr.loading.state_identity import WITHOUT_EFFECT, state_identity
from runtime.base.types import ByteCount
from runtime.gguf.adapter import Adapter
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import read_card
from runtime.llama import OpenOptions

OPTIONS = OpenOptions(context=512)


def identity(card: ModelCard, options: OpenOptions = OPTIONS, *, cuts_anywhere: bool = True) -> str:
    return state_identity(card, options, cuts_anywhere=cuts_anywhere)


@pytest.fixture
def card(nano_path: Path, tmp_path: Path) -> ModelCard:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(nano_path.read_bytes())
    return read_card(copy)


def test_how_a_model_is_used_makes_no_difference(card: ModelCard) -> None:
    same = identity(card)
    assert len(bytes.fromhex(same)) == 32
    for other in (
        replace(OPTIONS, context=1024, kv_full=True),
        replace(OPTIONS, slots=8, threads=2, batch_threads=2, visible=("<think>",)),
        replace(OPTIONS, gpus=("CUDA0",), layers=(3,), kept=("exps",)),
    ):
        assert identity(card, other) == same


def test_what_changes_the_state_makes_another(card: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        identity(card, each)
        for each in (
            OPTIONS,
            replace(OPTIONS, kv_type="q8_0"),
            replace(OPTIONS, drafted=4),
            replace(OPTIONS, context=card.context_length + 1),
            replace(OPTIONS, adapters=(Adapter(Path("a.gguf"), 1.0, "12", ByteCount(9)),)),
            replace(OPTIONS, adapters=(Adapter(Path("a.gguf"), 0.5, "12", ByteCount(9)),)),
            replace(OPTIONS, adapters=(Adapter(Path("a.gguf"), 1.0, "34", ByteCount(9)),)),
        )
    ]
    found.append(identity(card, cuts_anywhere=False))
    monkeypatch.setattr("runtime.llama.ENGINE_VERSION", "0.0.1")
    found.append(identity(card))
    monkeypatch.undo()
    monkeypatch.setattr("runtime.llama.features", lambda: "another CPU")
    found.append(identity(card))
    monkeypatch.undo()
    os.utime(card.path, ns=(0, 0))
    found.append(identity(card))
    assert len(set(found)) == len(found)


def test_an_adapter_may_be_moved(card: ModelCard) -> None:
    here, there = (
        replace(OPTIONS, adapters=(Adapter(Path(name), 1.0, "12", ByteCount(9)),)) for name in ("a.gguf", "b/c.gguf")
    )
    assert identity(card, here) == identity(card, there)


def test_over_nodes_there_is_none(card: ModelCard) -> None:
    assert identity(card, replace(OPTIONS, nodes=("127.0.0.1:1",), layers=(3,))) == ""


def test_a_new_option_counts_until_somebody_says_that_it_has_no_effect() -> None:
    assert {each.name for each in fields(OpenOptions)} >= WITHOUT_EFFECT
