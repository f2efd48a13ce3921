"""`dsr show`, from tensors to lines."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dsr.commands.show import show
from dsr.loading.context import context_for_host
from dsr.loading.options import LoadOptions
from dsr.models.description import by_role, describe_types, short_number
from dsr.ui.fields import labelled
from runtime.gguf.reader import read_card
from runtime.machine.machine import usable
from tests.dsr.loading.test_load import host
from tests.embedding_gguf import write_embedder
from tests.gguf_writer import header, moe_metadata, moe_tensors, write
from tests.runtime.gguf.test_real_models import DEEPSEEK_R1_OLD

app = typer.Typer()
app.command()(show)
run = CliRunner().invoke


def test_what_fits_is_what_chat_and_plan_take(monkeypatch: pytest.MonkeyPatch) -> None:
    small = host(100 << 20)
    monkeypatch.setattr("runtime.machine.host.probe", lambda *_: small)
    told = json.loads(run(app, ["nano", "--json"], catch_exceptions=False).stdout)
    assert told["memory_available"] == usable(100 << 20) < 100 << 20
    card = read_card(Path(told["files"][0]))
    assert told["largest_context"] == context_for_host(card, small, LoadOptions()) < card.context_length
    lines = run(app, ["nano"], catch_exceptions=False).stdout
    assert re.search(r"fits here +a context of \d+ tokens \(in the 90.0 MiB that a model may use\)", lines)


def test_tensors_are_summed_by_role(tmp_path: Path) -> None:
    rows = by_role(read_card(write(tmp_path / "moe.gguf", moe_metadata(), moe_tensors())))
    assert [(row.role, row.tensors, row.parameters, row.size) for row in rows] == [
        ("embedding", 1, 512, 2048),
        ("attention", 4, 12288, 49152),
        ("routed experts", 3, 24576, 98304),
        ("router", 1, 256, 1024),
        ("norm", 5, 224, 896),
    ]


def test_types_in_words() -> None:
    rows = by_role(read_card(Path(__file__).parents[3] / "dsr" / "data" / "nano.gguf"))
    assert {row.role: describe_types(row) for row in rows}["routed experts"] == "Q8_0"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (999, "999"),
        (17_408, "17.4K"),
        (134_515_008, "135M"),
        (999_600, "1.00M"),
        (7_615_616_512, "7.62B"),
        (671_026_419_200, "671B"),
    ],
)
def test_counts_in_short(count: int, text: str) -> None:
    assert short_number(count) == text


def test_labels_fold_under_themselves() -> None:
    assert labelled(("a",), "one two three", (3,), 25) == ["a    one two three"]
    assert labelled(("a",), "one two three four five six", (3,), 25) == ["a    one two three four", "     five six"]
    assert labelled(("a", "b"), "x " * 100, (1, 1), None) == ["a  b  " + "x " * 100]


def test_show_for_a_person() -> None:
    result = run(app, ["nano"])
    assert result.exit_code == 0
    assert "12.2M, 5.16M active per token" in result.stdout
    assert "deepseek2, 4 layers, latent attention (MLA), 16 experts, 4 used per token" in result.stdout
    assert "<think> … </think>" in result.stdout


def test_show_as_json() -> None:
    result = run(app, ["nano", "--json"])
    shown = json.loads(result.stdout)
    assert shown["schema"] == "dsr.show/1"
    assert (shown["parameters"], shown["active_parameters"]) == (12239152, 5161264)
    assert shown["thinking"] == {"open": "<think>", "close": "</think>"}
    assert [each["context"] for each in shown["memory"]] == [2048]
    assert sum(row["tensors"] for row in shown["tensors"]) == 70


def test_an_old_file_without_the_latent_is_warned_about(tmp_path: Path) -> None:
    path = tmp_path / "r1.gguf"
    path.write_bytes(header(*DEEPSEEK_R1_OLD))
    os.truncate(path, 1 << 40)
    shown = run(app, [str(path)])
    assert shown.exit_code == 0
    assert "its cache takes 71 times the memory" in " ".join(shown.stdout.split())


def test_control_characters_of_a_file_never_reach_the_terminal(tmp_path: Path) -> None:
    metadata = moe_metadata(**{"general.license": "free\x1b]0;owned\x07"})
    path = write(tmp_path / "evil.gguf", metadata, moe_tensors())
    result = run(app, [str(path)])
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert "free]0;owned" in result.stdout


def test_a_model_that_the_engine_does_not_know_is_shown_with_that(tmp_path: Path) -> None:
    path = write(tmp_path / "next.gguf", moe_metadata(**{"tokenizer.ggml.pre": "next9"}), moe_tensors())
    said = "llama-cpp-python 0.3.36 does not know its pre-tokenizer, 'next9'; the file itself is sound"
    shown = " ".join(run(app, [str(path)]).stdout.split())
    assert said in shown and "instead update dsr for a newer engine, or take another model" in shown
    assert "fits here" not in shown and "memory at" not in shown
    told = json.loads(run(app, [str(path), "--json"]).stdout)
    assert (told["problem"], told["memory"], told["largest_context"]) == (said, [], 0)
    assert json.loads(run(app, ["nano", "--json"]).stdout)["problem"] is None


def test_a_model_that_embeds_says_how_and_with_how_many_dimensions(tmp_path: Path) -> None:
    path = str(write_embedder("bert-mean", tmp_path / "bert.gguf"))
    lines = run(app, [path], catch_exceptions=False).stdout
    assert re.search(r"embeddings +64 dimensions from the mean of all tokens, texts of up to 600 tokens\n", lines)
    assert re.search(r"cannot chat +an embedding model, which writes no text\n", lines)
    assert re.search(r"fits here +texts of 600 tokens", lines)
    assert re.search(r"memory at 600 +\d+\.\d MiB", lines)
    assert not re.search(r"^(?:thinking|sampling|chat template|context) ", lines, re.MULTILINE)
    told = json.loads(run(app, [path, "--json"], catch_exceptions=False).stdout)
    assert told["embeddings"] == {
        "dimensions": 64, "pooling": "mean", "stated": True, "longest_text": 600, "memory": told["memory"][0]["total"],
    }  # fmt: skip
    assert told["largest_context"] == 600


def test_a_model_that_chats_says_that_its_file_names_no_pooling() -> None:
    told = json.loads(run(app, ["nano", "--json"], catch_exceptions=False).stdout)["embeddings"]
    assert (told["dimensions"], told["pooling"], told["stated"], told["longest_text"]) == (256, "last", False, 2048)
    assert "the file names no pooling" in " ".join(run(app, ["nano"], catch_exceptions=False).stdout.split())


def test_a_reranker_neither_chats_nor_embeds(tmp_path: Path) -> None:
    told = run(app, [str(write_embedder("reranker", tmp_path / "bert.gguf")), "--json"], catch_exceptions=False)
    assert json.loads(told.stdout)["embeddings"] is None


def test_show_lists_the_tensors_the_metadata_and_the_template() -> None:
    lines = run(app, ["nano", "--tensors"]).stdout.splitlines()
    assert len(lines) == 71
    assert lines[1].split() == ["output.weight", "Q8_0", "256", "x", "640", "170.0", "KiB"]
    metadata = dict(line.split(maxsplit=1) for line in run(app, ["nano", "--metadata"]).stdout.splitlines())
    assert (metadata["general.architecture"], metadata["deepseek2.block_count"]) == ("deepseek2", "4")
    assert metadata["tokenizer.ggml.token_type"] == "640 i32: 3, 3, 3, 3, 3, 4, ..."
    assert run(app, ["nano", "--template"]).stdout.startswith("{%- if add_generation_prompt")
    body = json.loads(run(app, ["nano", "--metadata", "--json"]).stdout)
    assert body["metadata"]["tokenizer.ggml.token_type"] == {"type": "i32", "count": 640, "first": [3, 3, 3, 3, 3, 4]}
    assert run(app, ["nano", "--tensors", "--template"]).exit_code == 1
