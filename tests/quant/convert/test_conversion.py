"""Original weights as a GGUF model: the same as llama.cpp's converter makes of them."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from dsr.loading.draft import check_mtp
from quant.convert.conversion import expected_tensors, source_of
from quant.convert.metadata import size_label, title
from quant.plan import PlainType, plain_type
from quant.recipe.recipe import load, plan
from quant.sources.checkpoint import Checkpoint, open_checkpoint
from quant.sources.source import TensorSpec
from quant.write.execute import quantize
from runtime.base.errors import BadModelFile, Incompatible, NotFound
from runtime.base.events import Event, Notice
from runtime.base.run import Run
from runtime.gguf.reader import read_card
from runtime.placement.trial import try_file
from tests.quant import digests, tiny

HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every tiny checkpoint, to be read only."""
    root = tmp_path_factory.mktemp("tiny")
    for name, (make, _) in tiny.CASES.items():
        make(root / name)
    return {name: root / name for name in tiny.CASES}


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    """A copy of one of them, to be changed: `@pytest.mark.parametrize("folder", ["llama"], indirect=True)`."""
    return Path(shutil.copytree(folders[request.param], tmp_path / request.param))


def change(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in content.items() if value != "absent"}))


@pytest.mark.parametrize("name", tiny.CASES)
def test_the_result_is_that_of_llama_cpps_converter(folders: dict[str, Path], name: str) -> None:
    """Names, order, types, shapes and bytes of tensors and metadata; tests/peers/convert.py made the reference."""
    reference = json.loads((HERE / "convert_reference.json").read_text())[name]
    source = source_of(open_checkpoint(folders[name]), keep_mtp=name in tiny.KEEPING)
    made = digests.of_source(source, tiny.CASES[name][1])  # type: ignore[arg-type]
    assert made["tensors"] == reference["tensors"]
    assert made["metadata"] == reference["metadata"]


@pytest.mark.parametrize("name", tiny.CASES)
def test_rows_read_in_pieces_are_the_rows_read_at_once(folders: dict[str, Path], name: str) -> None:
    source = source_of(open_checkpoint(folders[name]))
    for tensor in source.tensors:
        whole = source.read(tensor, 0, tensor.rows)
        assert whole.shape == (tensor.rows, tensor.row_length)
        assert whole.dtype == np.float32
        for first in range(0, tensor.rows, 7):
            count = min(7, tensor.rows - first)
            np.testing.assert_array_equal(source.read(tensor, first, count), whole[first : first + count])


@pytest.mark.parametrize("name", tiny.CASES)
def test_config_alone_tells_the_same_tensors(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    source = source_of(open_checkpoint(folders[name]))
    expected = expected_tensors(json.loads((folders[name] / "config.json").read_text()))
    assert sorted((tensor.name, tensor.shape) for tensor in expected) == sorted(
        (tensor.name, tensor.shape) for tensor in source.tensors
    )
    shutil.copy(folders[name] / "config.json", tmp_path)
    planned = source_of(open_checkpoint(tmp_path))
    assert planned.tensors == expected
    with pytest.raises(NotFound, match="there are no weights"):
        planned.read(planned.tensors[0], 0, 1)


def test_rows_beyond_the_last_are_refused(folders: dict[str, Path]) -> None:
    source = source_of(open_checkpoint(folders["qwen2"]))
    tensor = source.tensors[0]
    for first, count in ((0, tensor.rows + 1), (tensor.rows, 1), (-1, 1)):
        with pytest.raises(ValueError, match="rows"):
            source.read(tensor, first, count)


@pytest.mark.parametrize(
    ("name", "tensors", "parameters", "stored"),
    [
        ("deepseek-r1", 1086, 671_026_419_200, {"BF16", "F8_E4M3"}),
        ("qwen3-30b-a3b", 579, 30_532_122_624, {"BF16"}),
        ("r1-distill-qwen-7b", 339, 7_615_616_512, {"BF16"}),
    ],
)
def test_published_configurations_have_their_published_sizes(
    name: str, tensors: int, parameters: int, stored: set[str]
) -> None:
    """Parameters without DeepSeek's layer for predicting several tokens; tensors as in the published GGUF files."""
    specs = expected_tensors(json.loads((HERE / "configs" / f"{name}.json").read_text()))
    assert len(specs) == tensors
    assert sum(spec.parameters for spec in specs) == parameters
    assert {spec.stored for spec in specs} == stored


def test_heads_of_llama_are_reordered_into_pairs(tmp_path: Path) -> None:
    """Two heads of four rows: the halves 0 1 | 2 3 become the pairs 0 2 | 1 3."""
    config = tiny._BASE | {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 1, "vocab_size": 2}
    config |= {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 4, "tie_word_embeddings": True}
    shapes = tiny.attention_shapes("model.layers.0.self_attn", 8, 2, 2, 4)
    shapes |= tiny.network_shapes("model.layers.0.mlp", 8, 4)
    shapes |= {f"model.layers.0.{name}_layernorm.weight": (8,) for name in ("input", "post_attention")}
    shapes |= {"model.norm.weight": (8,), "model.embed_tokens.weight": (2, 8)}
    tensors = {name: tiny.stored(np.zeros(shape), "F32") for name, shape in shapes.items()}
    rows = np.repeat(np.arange(8.0), 8).reshape(8, 8)
    tensors["model.layers.0.self_attn.q_proj.weight"] = tiny.stored(rows, "F32")
    tensors["model.layers.0.self_attn.v_proj.weight"] = tiny.stored(rows, "F32")
    (tmp_path / "config.json").write_text(json.dumps(config))
    tiny.write_safetensors(tmp_path / "model.safetensors", tensors)
    tokenizer = tiny.byte_level_tokenizer([tiny.byte_level(True)])
    tokenizer["model"] |= {"vocab": {"a": 0, "b": 1}, "merges": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    source = source_of(open_checkpoint(tmp_path))
    by_name = {tensor.name: tensor for tensor in source.tensors}
    queries = source.read(by_name["blk.0.attn_q.weight"], 0, 8)
    assert queries[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert source.read(by_name["blk.0.attn_v.weight"], 0, 8)[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_a_stack_is_read_expert_by_expert(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, int]] = []
    read = Checkpoint.read

    def recorded(self: Checkpoint, name: str, first: int, count: int, out: Any) -> None:
        asked.append((name, first, count))
        read(self, name, first, count, out)

    monkeypatch.setattr(Checkpoint, "read", recorded)
    source = source_of(open_checkpoint(folders["qwen3_moe"]))
    stack = next(tensor for tensor in source.tensors if tensor.name == "blk.1.ffn_up_exps.weight")
    assert stack.shape == (32, 16, 11)
    source.read(stack, 2 * 16 + 10, 10)
    prefix = "model.layers.1.mlp.experts"
    assert asked == [(f"{prefix}.2.up_proj.weight", 10, 6), (f"{prefix}.3.up_proj.weight", 0, 4)]


def test_layers_that_predict_several_tokens_are_left_out_with_a_note(folders: dict[str, Path]) -> None:
    heard: list[Event] = []
    source = source_of(open_checkpoint(folders["deepseek_v3"]), listen=heard.append)
    assert not any(tensor.name.startswith("blk.2.") for tensor in source.tensors)
    text = "left out: 25 tensors of layers for predicting several tokens at once; --keep-mtp keeps them"
    assert heard == [Notice(text)]


def test_layers_that_predict_several_tokens_are_kept_when_asked_for(folders: dict[str, Path], tmp_path: Path) -> None:
    """The engine opens them for drafting."""
    checkpoint = open_checkpoint(folders["deepseek_v3_mtp"])
    out, heard = tmp_path / "kept.gguf", list[Event]()
    source = source_of(checkpoint, keep_mtp=True, listen=heard.append)
    assert not heard
    assert {tensor.name for tensor in source.tensors} - {tensor.name for tensor in source_of(checkpoint).tensors} >= {
        "blk.2.ffn_down_exps.weight",
        "blk.2.nextn.eh_proj.weight",
        "blk.2.nextn.embed_tokens.weight",
        "blk.2.nextn.shared_head_head.weight",
        "blk.2.nextn.shared_head_norm.weight",
    }
    quantize(source, plan(load("f16"), source), out, Run(threads=1))
    card = read_card(out)
    assert (card.layers, card.nextn_layers) == (3, 1)
    check_mtp(card, nodes=False)
    try_file(card, Run(threads=1), mtp=True)
    shutil.copy(folders["deepseek_v3_mtp"] / "config.json", tmp_path)
    planned = source_of(open_checkpoint(tmp_path), keep_mtp=True)
    assert sorted(
        (tensor.name, tensor.shape, tensor.stored) for tensor in planned.tensors if len(tensor.shape) > 1
    ) == sorted((tensor.name, tensor.shape, tensor.stored) for tensor in source.tensors if len(tensor.shape) > 1)
    assert len(planned.tensors) == len(source.tensors)


@pytest.mark.parametrize("name", ["deepseek_v2", "qwen3"])
def test_where_there_are_no_such_layers_none_can_be_kept(folders: dict[str, Path], name: str) -> None:
    with pytest.raises(Incompatible, match="this model has no MTP layers that could be kept"):
        source_of(open_checkpoint(folders[name]), keep_mtp=True)


def test_the_absorbed_matrices_are_the_two_halves_of_each_head(folders: dict[str, Path]) -> None:
    """kv_b has, per head, 12 rows for the keys and 10 for the values, each of 24 elements."""
    source = source_of(open_checkpoint(folders["deepseek_v2"]))
    by_name = {tensor.name: tensor for tensor in source.tensors}
    both = tiny.stored(tiny.random_values("model.layers.0.self_attn.kv_b_proj.weight", (88, 24)), "BF16")
    heads = (np.frombuffer(both[2], "<u2").astype(np.uint32) << 16).view(np.float32).reshape(4, 22, 24)
    keys, values = by_name["blk.0.attn_k_b.weight"], by_name["blk.0.attn_v_b.weight"]
    assert (keys.shape, values.shape) == ((12, 24, 4), (24, 10, 4))
    np.testing.assert_array_equal(source.read(keys, 0, 96).reshape(4, 24, 12), heads[:, :12].swapaxes(1, 2))
    np.testing.assert_array_equal(source.read(values, 0, 40).reshape(4, 10, 24), heads[:, 12:])


@pytest.mark.parametrize("folder", ["qwen2", "deepseek_v2"], indirect=True)
def test_an_output_matrix_beside_tied_embeddings_is_kept_but_for_deepseek(folder: Path) -> None:
    change(folder / "config.json", tie_word_embeddings=True)
    tensors = {"lm_head.weight": tiny.stored(np.zeros((272, 32)), "BF16")}
    if folder.name == "qwen2":
        (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
        tiny.write_safetensors(folder / "model-00002-of-00002.safetensors", tensors)
    names = [tensor.name for tensor in source_of(open_checkpoint(folder)).tensors]
    assert ("output.weight" in names) == (folder.name == "qwen2")


@pytest.mark.parametrize(
    ("name", "shape", "types"),
    [
        ("blk.0.attn_q.weight", (32, 32), ["F32", "F16", "BF16"]),
        ("token_embd.weight", (32, 8), ["F32", "F16", "BF16"]),
        ("blk.0.ffn_up_exps.weight", (32, 16, 4), ["F32", "F16", "BF16"]),
        ("blk.0.attn_norm.weight", (32,), ["F32", "F32", "F32"]),
        ("blk.0.attn_q_norm.weight", (32, 2), ["F32", "F32", "F32"]),
        ("blk.0.attn_q.bias", (32,), ["F32", "F32", "F32"]),
        ("blk.0.exp_probs_b.bias", (4,), ["F32", "F32", "F32"]),
        ("blk.0.ffn_gate_inp.weight", (32, 4), ["F32", "F32", "F32"]),
        ("rope_freqs.weight", (8,), ["F32", "F32", "F32"]),
    ],
)
def test_only_matrices_get_the_plain_type(name: str, shape: tuple[int, ...], types: list[str]) -> None:
    assert [plain_type(TensorSpec(name, shape, "BF16"), wanted) for wanted in get_args(PlainType)] == types


def test_an_unknown_class_is_refused_with_those_that_are_like_it() -> None:
    with pytest.raises(Incompatible, match="dsr cannot convert the class Qwen9ForCausalLM") as caught:
        expected_tensors({"architectures": ["Qwen9ForCausalLM"]})
    assert caught.value.hint is not None
    assert "take the model as GGUF" in caught.value.hint
    assert "Qwen3ForCausalLM" in caught.value.hint
    with pytest.raises(Incompatible) as caught:
        expected_tensors({"architectures": ["BrandNewForCausalLM"]})  # like others in its ending only
    assert "nearest" not in str(caught.value.hint)


def test_code_that_a_repository_brings_along_is_never_run(folders: dict[str, Path]) -> None:
    """Known architectures are converted without it (deepseek_v2 has an auto_map), unknown ones are refused."""
    assert json.loads((folders["deepseek_v2"] / "config.json").read_text())["auto_map"]
    assert source_of(open_checkpoint(folders["deepseek_v2"])).architecture == "deepseek2"
    with pytest.raises(Incompatible, match="cannot convert the class Evil; the code it brings along is never run"):
        expected_tensors({"architectures": ["Evil"], "auto_map": {"AutoModel": "evil.Model"}})


@pytest.mark.parametrize("folder", ["qwen2"], indirect=True)
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_hidden_layers": 3}, r"12 of 39 tensors are missing for its config.json: model.layers.2.input_layernorm"),
        (
            {"num_hidden_layers": 1},
            r"12 tensors are surplus for its config.json: model.layers.1.input_layernorm.weight",
        ),
        ({"vocab_size": 300}, r"'model.embed_tokens.weight' is 272x32, but config.json asks for 300x32"),
        ({"intermediate_size": 49}, r"mlp.gate_proj.weight' is 48x32, but config.json asks for 49x32"),
    ],
)
def test_weights_that_do_not_go_with_the_config_are_named(folder: Path, changes: dict[str, int], problem: str) -> None:
    change(folder / "config.json", **changes)
    with pytest.raises(BadModelFile, match=problem) as caught:
        source_of(open_checkpoint(folder))
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("folder", ["deepseek_v3"], indirect=True)
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"hidden_size": "absent"}, "hidden_size is missing"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": 32.0}, "hidden_size is 32.0, not an integer from 1 to"),
        ({"hidden_size": True}, "hidden_size is True, not an integer"),
        ({"hidden_size": 2**40}, "hidden_size is 1099511627776, not an integer from 1 to 2147483647"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, not an integer from 1 to 512"),
        ({"n_routed_experts": 0}, "n_routed_experts is 0, not an integer from 1 to 1024"),
        ({"n_routed_experts": 5000}, "n_routed_experts is 5000, not an integer from 1 to 1024"),
        ({"num_experts_per_tok": 5}, "5 experts are used per token, but there are 4"),
        ({"rms_norm_eps": "x"}, "rms_norm_eps is 'x', not a number"),
        ({"rope_scaling": {"type": "yarn"}}, "factor is missing"),
        ({"rope_scaling": {"type": "linear", "factor": None}}, "factor is missing"),
        ({"rope_scaling": [1]}, "rope_scaling is not a JSON object"),
        ({"rope_scaling": {"type": "yarn", "factor": 2}}, "original_max_position_embeddings is missing"),
        ({"architectures": []}, "architectures is missing"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no', neither true nor false"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused_by_key(folder: Path, changes: dict[str, Any], problem: str) -> None:
    change(folder / "config.json", **changes)
    for name in folder.iterdir():
        if name.name.endswith((".safetensors", ".index.json")):
            name.unlink()
    with pytest.raises(BadModelFile) as caught:
        source_of(open_checkpoint(folder))
    assert caught.value.message.startswith(f"{folder / 'config.json'}: ")
    assert problem in caught.value.message


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"scoring_func": "magic"}, "the scoring_func 'magic' is not known for deepseek2"),
        (
            {"rope_scaling": {"rope_type": "longrope", "factor": 2}},
            "the rope_type 'longrope' is not known for deepseek2",
        ),
    ],
)
@pytest.mark.parametrize("folder", ["deepseek_v3"], indirect=True)
def test_settings_of_other_models_are_no_damage(folder: Path, changes: dict[str, Any], problem: str) -> None:
    change(folder / "config.json", **changes)
    with pytest.raises(Incompatible, match=problem):
        source_of(open_checkpoint(folder))


@pytest.mark.parametrize("folder", ["llama"], indirect=True)
def test_sound_files_that_contradict_each_other_are_not_called_damaged(folder: Path) -> None:
    """Shards under each other's names, a tokenizer of another model: pulling a file again would change nothing."""
    one, two = sorted(folder.glob("model-*.safetensors"))
    first = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(first)
    with pytest.raises(BadModelFile, match=r"model.safetensors.index.json says it is in") as swapped:
        open_checkpoint(folder)
    two.write_bytes(one.read_bytes())
    one.write_bytes(first)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({"id": 272, "content": "<new>", "special": True})
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(BadModelFile, match=r"has a token 272, but config\.json says vocab_size 272") as larger:
        source_of(open_checkpoint(folder))
    for error in (swapped.value, larger.value):
        assert error.hint == "the weights and the files next to them must be those of one model"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"rope_type": "default"}, {}),
        ({"type": "linear", "factor": 2.0}, {"type": "linear", "factor": 2.0}),
        (
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "attn_factor": 0.5},
            {"type": "yarn", "factor": 4.0, "original_context_length": 64, "yarn_attn_factor": 0.5},
        ),
    ],
)
@pytest.mark.parametrize("folder", ["qwen3"], indirect=True)
def test_the_scaling_of_rotations_is_told(folder: Path, settings: dict[str, Any], expected: dict[str, Any]) -> None:
    change(folder / "config.json", rope_scaling=settings)
    entries = {entry.key: entry.encoded for entry in source_of(open_checkpoint(folder)).metadata}
    prefix = "qwen3.rope.scaling."
    found = {key.removeprefix(prefix): value for key, value in entries.items() if key.startswith(prefix)}
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, str):
            assert found[key][12:] == value.encode()
        else:
            kind = "<f4" if isinstance(value, float) else "<u4"
            assert np.frombuffer(found[key][4:], kind)[0] == value


@pytest.mark.parametrize("folder", ["llama"], indirect=True)
def test_sampling_advice_that_makes_no_sense_is_left_out(folder: Path) -> None:
    values = {"temperature": "hot", "top_p": math.inf, "top_k": 2**40, "min_p": 0.1}
    (folder / "generation_config.json").write_text(json.dumps(values))
    keys = [entry.key for entry in source_of(open_checkpoint(folder)).metadata]
    assert [key for key in keys if "sampling" in key] == ["general.sampling.min_p"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("nano-draft", "Nano Draft"), ("DeepSeek-R1", "DeepSeek R1"), ("qwen2.5-7b-v1.0", "Qwen2.5 7b v1.0")],
)
def test_names_become_titles(name: str, expected: str) -> None:
    assert title(name) == expected


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"a": (1000, 1345)}, "1.3M"),
        ({"a": (1000, 999)}, "999K"),
        ({"a": (7_600_000, 1000)}, "7.6B"),
        ({"a": (1_000_000,), "blk.0.ffn_up_exps.weight": (1000, 1000, 16)}, "16x2.0M"),
    ],
)
def test_sizes_are_labelled(shapes: dict[str, tuple[int, ...]], expected: str) -> None:
    assert size_label(TensorSpec(name, shape, "BF16") for name, shape in shapes.items()) == expected
