"""`dsr pull --original`: the right files, what else there is, and what they are before the first gigabyte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.hub.client import Hub
from dsr.hub.http import RetryPolicy
from dsr.hub.left_out import in_words, kind_of, left_out
from dsr.hub.pull import PullRequest, download, plan
from dsr.hub.select_files import checkpoint_files
from dsr.models.references import parse
from quant.convert import tokenizer_files
from quant.sources.shards import weight_files_in
from quant.sources.stored_quantization import FILES
from quant.sources.weight_files import SETTINGS
from runtime.base.errors import BadModelFile, DsrError, Incompatible, NotFound, VerificationFailed
from runtime.base.events import Event, Notice
from tests.hub_server import HubServer
from tests.quant import tiny

INDEX = "model.safetensors.index.json"


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as hub:
        yield hub


@pytest.fixture
def hub(server: HubServer, tmp_path: Path) -> Hub:
    return Hub(server.url, tmp_path / "hub", policy=RetryPolicy(stall_seconds=0.5, sleep=lambda seconds: None))


@pytest.fixture
def llama(tmp_path: Path) -> dict[str, bytes]:
    """A checkpoint in two files."""
    tiny.llama(tmp_path / "llama")
    return {path.name: path.read_bytes() for path in (tmp_path / "llama").iterdir()}


def changed(files: dict[str, bytes], **values: Any) -> dict[str, bytes]:
    return files | {"config.json": json.dumps(json.loads(files["config.json"]) | values).encode()}


def paths(reference: str, hub: Hub, **options: Any) -> list[str]:
    return [file.path for file in plan(PullRequest(parse(reference), **options), hub, 0).files]


def test_pull_takes_what_quantize_reads_and_tells_what_it_leaves(
    server: HubServer, hub: Hub, llama: dict[str, bytes]
) -> None:
    more = ["consolidated-00001-of-00002.safetensors", "consolidated-00002-of-00002.safetensors", "README.md",
            "adapter_model.safetensors", "original/consolidated.00.pth", "model.fp16.safetensors"]  # fmt: skip
    server.add("org/twice", llama | dict.fromkeys(more, b"x" * 9))
    planned = plan(PullRequest(parse("org/twice"), original=True), hub, 0)
    assert sorted(file.path for file in planned.files) == sorted(llama)
    assert in_words(planned.left_out) == ("left out: 3 consolidated files, 1 adapter, 1 safetensors file, 1 other file")
    assert planned.left_out[0].json() == {"kind": "consolidated file", "files": 3, "bytes": 27}
    download(planned, hub)
    assert set(weight_files_in(planned.destination).names) == {name for name in llama if name.endswith(".safetensors")}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"quantization_config": {"quant_method": "awq", "version": "gemv"}}, "weights quantized by 'awq (gemv)'"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 3}}, "weights quantized by 'gptq (3 bits)'"),
        ({"quantization_config": {"load_in_4bit": True}}, "weights quantized by 'bitsandbytes'"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "weights quantized by 'mlx'"),
        (
            {"quantization_config": {"quant_method": "compressed-tensors", "format": "marlin-24"}},
            "weights quantized by 'compressed-tensors (marlin-24)'",
        ),
        ({"architectures": ["GPT2LMHeadModel"]}, "dsr cannot convert the class GPT2LMHeadModel"),
    ],
)
def test_a_checkpoint_that_dsr_cannot_convert_is_refused_before_the_weights(
    server: HubServer, hub: Hub, llama: dict[str, bytes], values: dict[str, Any], words: str
) -> None:
    server.add("org/other", changed(llama, **values))
    with pytest.raises(Incompatible, match=r"^org/other: ") as caught:
        plan(PullRequest(parse("org/other")), hub, 0)
    assert words in caught.value.message and "--force" in (caught.value.hint or "")
    assert not [request for request in server.requests if request.path.endswith(".safetensors")]
    said: list[Event] = []
    plan(PullRequest(parse("org/other"), force=True), hub, 0, said.append)
    assert any(isinstance(each, Notice) and words in each.text for each in said)


def test_numbers_that_no_model_has_are_refused_with_their_field(
    server: HubServer, hub: Hub, llama: dict[str, bytes]
) -> None:
    server.add("org/huge", changed(llama, vocab_size=2**31 - 1))
    with pytest.raises(BadModelFile, match="vocab_size is 2147483647, not an integer from 1 to 4194304"):
        plan(PullRequest(parse("org/huge")), hub, 0)


def test_a_quantization_that_only_a_file_beside_tells_is_fetched_with_that_file(
    server: HubServer, hub: Hub, llama: dict[str, bytes]
) -> None:
    for name in ("quantize_config.json", "quant_config.json", "hf_quant_config.json"):
        server.add(f"org/{name}", llama | {name: b'{"bits": 4}'})
        assert name in paths(f"org/{name}", hub)


def test_of_the_files_next_to_the_weights_only_those_are_fetched_that_a_conversion_reads(
    server: HubServer, hub: Hub, llama: dict[str, bytes]
) -> None:
    read = ["chat_template.jinja", "generation_config.json", "additional_chat_templates/tool_use.jinja"]
    unread = ["preprocessor_config.json", "processor_config.json", "special_tokens_map.json", "params.json", "x.onnx",
              "pytorch_model.bin.index.json", "tekken.json", "merges.txt", "vocab.json", "figures/x.json"]  # fmt: skip
    server.add("org/much", llama | dict.fromkeys([*read, *unread], b"{}"))
    planned = plan(PullRequest(parse("org/much"), original=True), hub, 0)
    assert sorted(file.path for file in planned.files) == sorted({*llama, *read})
    assert "2 image or sound processors" in in_words(planned.left_out)


@pytest.mark.parametrize(
    "name",
    ["tekken.json", "tokenizer.model", "tiktoken.model", "hy.tiktoken", "rwkv_vocab_v20230424.txt", "vocab.json"],
)
def test_without_a_tokenizer_json_the_other_tokenizers_are_fetched(
    server: HubServer, hub: Hub, llama: dict[str, bytes], name: str
) -> None:
    server.add("org/own", {key: raw for key, raw in llama.items() if key != "tokenizer.json"} | {name: b"x"})
    assert name in paths("org/own", hub, original=True)


def test_every_file_that_the_tokenizers_ask_for_is_fetched() -> None:
    module = tokenizer_files
    asked = {module.MODEL, module.JSON, module.CONFIG, module.TEKKEN, module.KIMI, module.HUNYUAN, module.RWKV}
    assert asked | {name for name, _ in FILES} <= SETTINGS


@pytest.mark.parametrize("config", [b"{}", b'{"architectures": []}', None])
def test_a_checkpoint_that_says_nothing_of_itself_is_fetched_with_a_notice(
    server: HubServer, hub: Hub, config: bytes | None
) -> None:
    server.add("org/plain", {"model.safetensors": b"w"} | ({} if config is None else {"config.json": config}))
    said: list[Event] = []
    plan(PullRequest(parse("org/plain")), hub, 0, said.append)
    assert any(isinstance(each, Notice) and "dsr quantize cannot convert it" in each.text for each in said)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], "an adapter (LoRA), not a model"),
        (["m-Q4_0.gguf", "config.json"], "the repository has GGUF files, and no original weights"),
        (["pytorch_model.bin", "config.json"], "pickle files"),
        (["model-00001-of-00002.safetensors", "config.json"], "1 of 2 weight files is missing"),
        (["m-Q8_0.gguf.part1of2", "m-Q8_0.gguf.part2of2"], "m-Q8_0.gguf is only there in 2 raw parts"),
    ],
)
def test_repositories_without_a_checkpoint_are_named(server: HubServer, hub: Hub, files: list[str], words: str) -> None:
    server.add("org/x", dict.fromkeys(files, b"{}"))
    with pytest.raises(DsrError) as caught:
        plan(PullRequest(parse("org/x"), original=True), hub, 0)
    assert words in caught.value.message and caught.value.message.startswith("org/x: ")


def test_a_quantization_in_raw_parts_is_named_and_can_be_included(server: HubServer, hub: Hub) -> None:
    server.add("org/raw", {"m-Q8_0.gguf.part1of2": b"1", "m-Q8_0.gguf.part2of2": b"2", "m-Q4_0.gguf": b"3"})
    with pytest.raises(Incompatible, match=r"m-Q8_0.gguf is only there in 2 raw parts") as caught:
        plan(PullRequest(parse("org/raw:Q8_0")), hub, 0)
    assert caught.value.hint is not None and "--include 'm-Q8_0.gguf?*'" in caught.value.hint
    assert paths("org/raw", hub, include=("m-Q8_0.gguf?*",)) == ["m-Q8_0.gguf.part1of2", "m-Q8_0.gguf.part2of2"]
    with pytest.raises(NotFound, match="there is no Q5_0"):
        plan(PullRequest(parse("org/raw:Q5_0")), hub, 0)


@pytest.mark.parametrize("raw", [b"{", b"<html>", b"version https://git-lfs", b"[]", b'{"weight_map": {"a": "../x"}}'])
def test_an_index_that_is_not_one_is_refused(server: HubServer, hub: Hub, raw: bytes) -> None:
    server.add("org/index", {"config.json": b"{}", "model-00001-of-00001.safetensors": b"w", INDEX: raw})
    with pytest.raises(VerificationFailed):
        plan(PullRequest(parse("org/index")), hub, 0)


def test_an_index_of_gigabytes_is_not_read(server: HubServer, hub: Hub) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"w", INDEX: b"{}"}
    server.add("org/index", files, listed_sizes={INDEX: 1 << 40})
    with pytest.raises(VerificationFailed, match="and no such file should have more than"):
        plan(PullRequest(parse("org/index")), hub, 0)


def test_the_dry_run_says_what_is_left_out(server: HubServer, tmp_path: Path, llama: dict[str, bytes]) -> None:
    server.add("org/twice", llama | {"consolidated.safetensors": b"x", "notes.txt": b""})
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    done = subprocess.run(
        [sys.executable, "-m", "dsr", "pull", "org/twice", "--original", "--dry-run"],
        env={**kept, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "consolidated" not in done.stdout and "model-00002-of-00002.safetensors" in done.stdout
    assert "left out: 1 consolidated file, 1 other file" in done.stderr


@given(st.dictionaries(st.text("abx.-_/ gufsetnors1of2", min_size=1, max_size=30), st.integers(0, 2**60), max_size=9))
def test_every_file_is_taken_or_told(sizes: dict[str, int]) -> None:
    try:
        taken = checkpoint_files(tuple(sizes))
    except DsrError:
        taken = ()
    kinds = left_out(sizes, taken)
    assert sum(each.files for each in kinds) + len(taken) == len(sizes)
    assert sum(each.size for each in kinds) + sum(sizes[path] for path in taken) == sum(sizes.values())


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("q/x-Q4_0.gguf", "GGUF file"), ("mmproj-F16.gguf", "image projector"), ("x.imatrix.gguf", "importance matrix"),
        ("x.imatrix.dat", "importance matrix"), ("x.gguf.part1of2", "raw part of a GGUF file"),
        ("onnx/model.onnx", "file for another program"), ("README.md", "other file"), ("a/tf_model.h5", "pickle file"),
        ("vision_tower.safetensors", "vision tower"), ("a/b.safetensors", "safetensors file"),
    ],
)  # fmt: skip
def test_kinds_of_files(path: str, kind: str) -> None:
    assert kind_of(path) == kind


@pytest.mark.parametrize(("force", "hint"), [(False, "or --force"), (True, "")])
def test_a_hint_never_names_the_option_that_was_given(
    server: HubServer, hub: Hub, llama: dict[str, bytes], force: bool, hint: str
) -> None:
    server.add("org/gguf", {"m-Q4_0.gguf": b"GGUF" + bytes(40)})
    if not force:
        with pytest.raises(BadModelFile) as caught:
            plan(PullRequest(parse("org/gguf:Q4_0")), hub, 0)
        assert hint in (caught.value.hint or "")
    server.add("org/index", llama | {INDEX: b"<html>"})
    with pytest.raises(VerificationFailed, match=r"^org/index: model.safetensors.index.json: a web page") as refused:
        plan(PullRequest(parse("org/index"), original=True, force=force), hub, 0)
    assert refused.value.hint == "choose another repository"
