"""Every parameter of the engine is chosen."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

from runtime.llama import defaults
from runtime.llama.bindings import native
from runtime.llama.defaults import CONTEXT, GIVEN, MODEL, SAMPLER_CHAIN, context_params, model_params

ROOT = Path(__file__).resolve().parents[3]
STRUCTURES = {
    "model": (MODEL, native.llama_model_params, native.llama_model_default_params),
    "context": (CONTEXT, native.llama_context_params, native.llama_context_default_params),
    "sampler chain": (SAMPLER_CHAIN, native.llama_sampler_chain_params, native.llama_sampler_chain_default_params),
}
NEEDED = {"n_ctx": 512, "n_batch": 256, "n_ubatch": 128, "n_seq_max": 2, "n_outputs_max": 3, "n_threads": 4,
          "n_threads_batch": 5}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURES)
def test_the_table_names_each_field_of_the_engine_s_structure_in_its_order(name: str) -> None:
    table, structure, _ = STRUCTURES[name]
    assert list(table) == [field for field, *_ in structure._fields_]
    assert all(choice.reason for choice in table.values())


@pytest.mark.parametrize("name", STRUCTURES)
def test_what_dsr_chooses_differently_from_the_engine_is_known(name: str) -> None:
    """A new release with other defaults fails here, so that somebody looks at them."""
    table, _, made = STRUCTURES[name]
    theirs = made()
    differ = {
        field
        for field, choice in table.items()
        if choice.value is not GIVEN and (getattr(theirs, field) or None) != (choice.value or None)
    }
    assert differ == ({"kv_unified", "pooling_type", "swa_full"} if name == "context" else set())


def test_structures_hold_the_table_and_what_is_given() -> None:
    params = context_params(**NEEDED, n_rs_seq=3)
    assert (params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max) == (512, 256, 128, 2)
    assert (params.n_outputs_max, params.n_threads, params.n_threads_batch, params.n_rs_seq) == (3, 4, 5, 3)
    assert (params.swa_full, params.kv_unified, params.offload_kqv, params.op_offload) == (False, True, True, True)
    assert (params.flash_attn_type, params.rope_scaling_type, params.yarn_ext_factor) == (-1, -1, -1.0)
    assert not params.cb_eval
    assert not params.samplers
    opened = model_params(load_mtp=True, progress_callback=native.llama_progress_callback(0))
    assert (opened.n_gpu_layers, opened.split_mode, opened.load_mode, opened.load_mtp) == (-1, 1, -1, True)
    assert (opened.use_extra_bufts, opened.check_tensors, opened.vocab_only) == (True, False, False)
    assert not opened.devices
    assert defaults.sampler_chain_params().no_perf is True


@pytest.mark.parametrize(
    ("make", "given"),
    [(context_params, {}), (context_params, NEEDED | {"n_ctxx": 1}), (model_params, {"load_mtp": True})],
)
def test_a_parameter_that_is_missing_or_unknown_is_an_error(make: Any, given: dict[str, int]) -> None:
    with pytest.raises(TypeError):
        make(**given)


def test_no_other_module_takes_a_default_of_the_engine() -> None:
    """Nor fills a structure that has no table."""
    made = {
        (path.name, node.attr)
        for path in (ROOT / "runtime" / "llama").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr.endswith("_params") and node.attr.startswith("llama_")
    }
    assert made == {
        ("defaults.py", "llama_model_params"),
        ("defaults.py", "llama_context_params"),
        ("defaults.py", "llama_sampler_chain_params"),
    }
