"""`--lora FILE[:SCALE]`."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsr.loading.load import open_adapters
from dsr.loading.options import LoadOptions, LoraRequest, lora_request
from dsr.models.library import find
from runtime.base.errors import Incompatible, NotFound, UsageError
from tests.lora import pair, write_lora


def test_a_scale_follows_the_last_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.gguf", "C:a.gguf"):
        Path(name).touch()
    assert lora_request("a.gguf") == LoraRequest(Path("a.gguf"))
    assert lora_request("a.gguf:0.5") == LoraRequest(Path("a.gguf"), 0.5)
    assert lora_request("a.gguf:-1") == LoraRequest(Path("a.gguf"), -1.0)
    assert lora_request("C:a.gguf") == LoraRequest(Path("C:a.gguf"))
    named = tmp_path / "a:2"
    named.touch()
    assert lora_request(str(named)) == LoraRequest(named)


@pytest.mark.parametrize("text", ["none.gguf", "none.gguf:0.5", "none.gguf:half", ":"])
def test_a_missing_file_is_told_with_the_option(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFound, match=r"^--lora .*: no such file$") as caught:
        lora_request(text)
    assert caught.value.hint == "give the path of a LoRA adapter, a GGUF file: --lora FILE[:SCALE]"


@pytest.mark.parametrize("text", ["a.gguf:101", "a.gguf:-1e9", "a.gguf:nan", ":1"])
def test_a_scale_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="the scale must be between -100 and 100"):
        lora_request(text)


def test_adapters_are_checked_for_the_model(tmp_path: Path) -> None:
    card = find("nano").card
    name = "blk.2.ffn_down_shexp.weight"
    file = write_lora(tmp_path / "a.gguf", "deepseek2", pair(name, (256, 256)))
    [found] = open_adapters(LoadOptions(lora=(LoraRequest(file, 2.0),)), card)
    assert (found.path, found.scale) == (file, 2.0)
    with pytest.raises(Incompatible, match="an adapter for llama"):
        open_adapters(LoadOptions(lora=(LoraRequest(write_lora(file, "llama", pair(name, (256, 256)))),)), card)
