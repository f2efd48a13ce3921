"""How many tokens second moments need, for models of literal sizes."""

from __future__ import annotations

from dsr.quantize.enough_tokens import enough_for_stages, enough_tokens
from quant.gguf.writer import KeyValue, u32
from quant.sources.source import Source, TensorSpec


class Made(Source):
    def read(self, tensor: TensorSpec, first: int, count: int) -> object:  # type: ignore[override]
        raise AssertionError("no weights are read")


def made(*shapes: tuple[str, tuple[int, ...]], metadata: tuple[KeyValue, ...] = ()) -> Source:
    return Made("toy", [TensorSpec(name, shape, "F16") for name, shape in shapes], metadata)


def test_a_small_model_reads_more_because_it_costs_little() -> None:
    assert enough_tokens(made(("blk.0.ffn_up.weight", (1000, 10_000)))) == 450_000


def test_the_embedding_does_not_count() -> None:
    large = ("token_embd.weight", (100_000, 150_000))
    assert enough_tokens(made(large, ("blk.0.ffn_up.weight", (1000, 10_000)))) == 450_000


def test_the_widest_matrix_has_a_token_for_each_column() -> None:
    assert enough_tokens(made(("blk.0.ffn_up.weight", (1536, 1_000_000)))) == 8192
    assert enough_tokens(made(("blk.0.ffn_down.weight", (18_944, 100_000)))) == 18_944


def test_each_expert_has_enough_rows_if_they_are_used_evenly() -> None:
    experts = ("blk.0.ffn_up_exps.weight", (8192, 8192, 256))
    assert enough_tokens(made(experts, metadata=(u32("toy.expert_used_count", 8),))) == 32_000
    assert enough_tokens(made(experts)) == 256_000  # one of them, if nothing is known


def test_stages_read_three_tokens_for_each_column_and_fewer_of_a_small_model() -> None:
    assert enough_for_stages(made(("blk.0.ffn_down.weight", (4864, 100_000)))) == 14_592
    assert enough_for_stages(made(("blk.0.ffn_up.weight", (1000, 10_000)))) == 150_000
    assert enough_for_stages(made(("blk.0.ffn_up.weight", (1536, 1_000_000)))) == 8192
