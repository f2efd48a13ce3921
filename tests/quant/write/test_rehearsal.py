"""The engine opens the header of a file that is still to be written, in a process of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from quant.open_source import open_source
from quant.recipe.mixtures import unquantized
from quant.write.rehearsal import rehearse
from runtime.base.errors import Incompatible
from runtime.base.run import Run
from tests.quant import tiny


def test_a_model_that_the_engine_opens_is_rehearsed_without_its_weights(tmp_path: Path) -> None:
    tiny.qwen3(tmp_path / "m")
    with open_source(tmp_path / "m") as source:
        rehearse(unquantized(source), "m", Run())


def test_a_model_that_the_engine_refuses_is_named_with_the_engine_s_reason(tmp_path: Path) -> None:
    tiny.qwen3(tmp_path / "m")
    with open_source(tmp_path / "m") as source:
        plan = unquantized(source)
    lacking = replace(plan, tensors=tuple(each for each in plan.tensors if each.name != "output_norm.weight"))
    with pytest.raises(Incompatible) as caught:
        rehearse(lacking, "m", Run())
    assert caught.value.message.startswith("m: the engine refuses the model that its config.json describes: ")
    assert "output_norm.weight" in caught.value.message and "\n" not in caught.value.message


def test_a_model_that_ends_the_engine_s_process_is_refused(tmp_path: Path) -> None:
    """An odd number of heads per group of keys ends the process when the graph is built."""
    from quant.gguf import writer

    tiny.qwen3(tmp_path / "m")
    with open_source(tmp_path / "m") as source:
        plan = unquantized(source)
    key = "qwen3.attention.head_count_kv"
    changed = tuple(writer.u32(key, 0) if each.key == key else each for each in plan.metadata)
    with pytest.raises(Incompatible, match="m: the engine refuses the model"):
        rehearse(replace(plan, metadata=changed), "m", Run())
