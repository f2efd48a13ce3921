"""`dsr quantize` from its options to its file."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from dsr.cli import app as dsr
from dsr.commands.quantize import quantize
from dsr.models.library import find_weights
from dsr.quantize.plan_summary import layers_in_words
from quant.measure.imatrix import Entry, Imatrix, write
from quant.sources.source import GgufSource
from runtime.base.errors import Aborted, DsrError, Incompatible, NotFound, UsageError
from runtime.base.types import ByteCount
from runtime.gguf.reader import read_card
from tests.dsr.models.fake_cache import put
from tests.quant import tiny

app = typer.Typer()
app.command()(quantize)
run = CliRunner().invoke
CONFIGS = Path(__file__).parents[2] / "quant" / "configs"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tiny DeepSeek-V3 in FP8 with experts."""
    tiny.deepseek_v3(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def r1(tmp_path: Path) -> Path:
    """Of DeepSeek-R1 the config.json, and nothing else."""
    (tmp_path / "r1").mkdir()
    shutil.copy(CONFIGS / "deepseek-r1.json", tmp_path / "r1" / "config.json")
    return tmp_path / "r1"


def failure(*arguments: str) -> DsrError:
    done = run(app, arguments)
    assert isinstance(done.exception, DsrError), done.output
    return done.exception


def test_a_checkpoint_becomes_a_file(checkpoint: Path) -> None:
    done = run(app, ["tiny", "out.gguf", "--recipe", "dq3_k_m"])
    assert done.exit_code == 0, done.output
    assert done.stdout == "out.gguf\n"
    assert "left out: " in done.stderr  # the layer for predicting several tokens
    assert "dq3_k_m: 47.2K weights, 9.70 bits per weight" in done.stderr
    assert done.stderr.endswith("next: dsr chat out.gguf\n")
    card = read_card(Path("out.gguf"))
    assert card.architecture == "deepseek2"
    assert card.metadata["general.file_type"] == 12
    assert sorted(Path().iterdir()) == [Path("out.gguf"), Path("tiny")]


def test_the_default_name_tells_model_and_recipe(checkpoint: Path) -> None:
    assert run(app, ["tiny", "-q"]).stdout == "tiny-q4_k_m.gguf\n"
    assert run(app, ["tiny-q4_k_m.gguf", "-q", "-r", "q8_0", "--allow-requantize"]).stdout == "tiny-q8_0.gguf\n"


@pytest.mark.parametrize(
    ("recipe", "size", "bpw"),
    [
        ("q4_k_m", 404_488_919_424, 4.8223),
        ("q3_k_m", 319_261_125_504, 3.8062),
        ("dq3_k_m", 300_913_336_192, 3.5875),
        ("ud-q2_k_xl", 226_713_229_696, 2.7029),
    ],
)
def test_a_dry_run_needs_only_config_json(recipe: str, size: int, bpw: float, r1: Path) -> None:
    done = run(app, ["r1", "--recipe", recipe, "--dry-run", "--json"])
    said = json.loads(done.stdout)
    assert (said["schema"], said["bpw"], said["parameters"]) == ("dsr.quantize/1", bpw, 671_026_419_200)
    assert (said["predicted_kld"], len(said["tensors"])) == (None, 1086)
    assert said["tensors"][0] == {
        "name": "output.weight",
        "from": "BF16",
        "to": "Q6_K",
        "rule": "_moe_frame: output" if "-" in recipe or recipe.startswith("d") else f"{recipe}: output",
        "round": "off",
        "bytes": 760_166_400,
    }
    assert abs(said["bytes"] - size) < 1024  # the header grows with what the converter tells
    assert sum(tensor["bytes"] for tensor in said["tensors"]) < said["bytes"]
    assert "the tokenizer is not here" in done.stderr
    assert sorted(Path().iterdir()) == [Path("r1")]


def test_a_dry_run_for_people(r1: Path) -> None:
    done = run(app, ["r1", "--recipe", "dq3_k_m", "--dry-run"])
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["tensors", "type", "weights", "bits", "size", "layers"]
    assert "routed experts down     Q6_K    7.52B   6.56   5.74 GiB  3-4" in lines
    assert "routed experts down     Q4_K    45.1B   4.50   23.6 GiB  5-60 by 5" in lines
    assert "routed experts down     Q3_K     165B   3.44   66.2 GiB  the rest" in lines
    assert lines[-1].startswith("dq3_k_m: 671B weights, 3.59 bits per weight, 280.2 GiB (30091333")
    assert max(map(len, lines)) <= 80
    assert "memory to run it: 281.0 GiB at 4096 tokens of context, 282.9 GiB at 32768" in done.stderr


def test_without_weights_nothing_is_written(r1: Path) -> None:
    assert "no weights, only config.json" in failure("r1", "out.gguf").message
    assert sorted(Path().iterdir()) == [Path("r1")]


def test_what_is_wrong_with_the_request(checkpoint: Path) -> None:
    assert isinstance(failure(), UsageError)
    assert "no recipe 'q4'" in failure("tiny", "-r", "q4").message
    assert failure("tiny", "out").hint == "as in out.gguf"
    assert failure("tiny", ".").message == ".: the file to write must end in .gguf"
    assert failure("tiny", "out.gguf", "q4_k_sm").hint == "did you mean q4_k_s?"
    assert "change a recipe" in failure("tiny", "--bpw", "4", "--pure").message
    assert "is not a size" in failure("tiny", "--split-max-size", "3x").message
    assert "--pre is for original weights" in failure("nano", "--pre", "qwen2").message
    assert "--keep-mtp is for original weights" in failure("nano", "--keep-mtp").message
    assert isinstance(failure("nothing-called-so"), NotFound)
    Path("there.gguf").write_bytes(b"1")
    assert "there.gguf exists already" in failure("tiny", "there.gguf").message
    assert Path("there.gguf").read_bytes() == b"1"
    assert sorted(Path().iterdir()) == [Path("there.gguf"), Path("tiny")]
    assert run(app, ["tiny", "there.gguf", "--force"]).exit_code == 0


def test_the_source_is_never_overwritten(nano_path: Path) -> None:
    shutil.copy(nano_path, "mine.gguf")
    refused = failure("mine.gguf", "mine.gguf", "--force", "--allow-requantize")
    assert "is the source itself" in refused.message
    assert Path("mine.gguf").read_bytes() == nano_path.read_bytes()


def test_quantized_weights_are_quantized_again_only_when_allowed() -> None:
    refused = failure("nano", "q3.gguf", "-r", "q3_k_m")
    assert "quantized already (Q8_0)" in refused.message
    assert "--allow-requantize" in (refused.hint or "")
    done = run(app, ["nano", "q3.gguf", "-r", "q3_k_m", "--allow-requantize"])
    assert (done.exit_code, done.stdout) == (0, "q3.gguf\n")
    assert "their losses add up" in done.stderr
    assert read_card(Path("q3.gguf")).bits_per_weight == pytest.approx(3.846, abs=0.01)


def test_low_types_need_an_importance_matrix() -> None:
    refused = failure("nano", "low.gguf", "-r", "ud-iq1_s", "--allow-requantize")
    assert "needs an importance matrix" in refused.message
    warned = run(app, ["nano", "-r", "ud-iq1_s", "--dry-run"])
    assert "types this low need an importance matrix: --imatrix, or --round" in " ".join(warned.stderr.split())


def test_a_matrix_is_used_and_named_in_the_file() -> None:
    with GgufSource(find_weights("nano").path) as source:
        entries = {
            tensor.name: Entry(
                np.ones((int(np.prod(tensor.shape[2:])), tensor.row_length), np.float32),
                np.full(int(np.prod(tensor.shape[2:])), 4, np.int64),
            )
            for tensor in source.tensors
            if tensor.name.startswith("blk.") and len(tensor.shape) > 1
        }
    entries["blk.1.ffn_down_exps.weight"].counts[3] = 0
    write(Path("m.gguf"), Imatrix(entries, ("text.txt",), 7, 512))
    done = run(app, ["nano", "low.gguf", "-r", "q4_0", "--allow-requantize", "--imatrix", "m.gguf"])
    assert done.exit_code == 0, done.output
    assert "1 expert saw no token (layer 1: 3)" in done.stderr
    facts = read_card(Path("low.gguf")).metadata
    assert (facts["quantize.imatrix.file"], facts["quantize.imatrix.dataset"]) == ("m.gguf", "text.txt")
    assert (facts["quantize.imatrix.entries_count"], facts["quantize.imatrix.chunks_count"]) == (len(entries), 7)


def test_a_matrix_of_another_model_is_refused() -> None:
    other = Entry(np.ones((1, 8), np.float32), np.ones(1, np.int64))
    write(Path("m.gguf"), Imatrix({"blk.0.other.weight": other}, ("text.txt",), 1, 512))
    refused = failure("nano", "--dry-run", "--imatrix", "m.gguf")
    assert isinstance(refused, Incompatible)
    assert "is for another model: it has 1 weight, none of this model" in refused.message
    assert isinstance(failure("nano", "--dry-run", "--imatrix", "none.gguf"), NotFound)


def test_split_files_are_counted_and_the_first_one_named() -> None:
    done = run(app, ["nano", "s.gguf", "-r", "q3_k_m", "--allow-requantize", "--split-max-size", "2MiB"])
    assert done.stdout == "s-00001-of-00004.gguf\n"
    assert " in 4 files" in done.stderr
    assert len(read_card(Path("s-00001-of-00004.gguf")).files) == 4
    # A file of the name itself is in nobody's way.
    Path("t.gguf").write_bytes(b"1")
    done = run(app, ["nano", "t.gguf", "-r", "q3_k_m", "--allow-requantize", "--split-max-size", "4MiB"])
    assert done.stdout == "t-00001-of-00002.gguf\n"
    assert Path("t.gguf").read_bytes() == b"1"


def test_what_was_stopped_is_continued(monkeypatch: pytest.MonkeyPatch) -> None:
    from quant.write import execute

    genuine, calls = execute.write_at, 0

    def stopping_write(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 40:
            raise Aborted("stopped; the same command continues where it was")
        genuine(*arguments)  # type: ignore[arg-type]

    command = ["nano", "a.gguf", "-r", "q3_k_m", "--allow-requantize", "-t", "1"]
    monkeypatch.setattr(execute, "write_at", stopping_write)
    assert "continues" in failure(*command).message
    assert not Path("a.gguf").exists()
    monkeypatch.setattr(execute, "write_at", genuine)
    again = run(app, command)
    assert "continuing: " in again.stderr and " are there already" in again.stderr
    assert run(app, [*command[:1], "b.gguf", *command[2:]]).exit_code == 0
    assert Path("a.gguf").read_bytes() == Path("b.gguf").read_bytes()


def test_recipes_are_listed_and_shown(tmp_path: Path) -> None:
    listed = run(app, ["--list-recipes"]).stdout.splitlines()
    assert listed[0].split() == ["recipe", "bits", "size", "KLD", "what", "it", "is"]
    assert [line.split()[0] for line in listed[1:6]] == ["f32", "bf16", "f16", "q8_0", "q6_k"]
    assert [line for line in listed if "default" in line] == [
        "q4_k_m       4.95  7.25 MiB  0.0723  default; standard mixture, mostly Q4_K"
    ]
    assert max(map(len, listed)) <= 80
    said = json.loads(run(app, ["--list-recipes", "--json"]).stdout)
    assert (said["schema"], said["recipes"][0]["name"]) == ("dsr.quantize.recipes/1", "f32")
    assert {each["round"] for each in said["recipes"]} == {"off"}
    bits = [each["bpw"] for each in said["recipes"]]
    assert bits == sorted(bits, reverse=True)
    assert {each["name"] for each in said["recipes"] if each["needs_imatrix"]} >= {"iq2_xs", "ud-iq1_s"}
    assert 'layers = "first 2 moe"' in run(app, ["--show-recipe", "DQ3_K_M"]).stdout
    assert "standard mixture" in run(app, ["--show-recipe", "q4_k_m"]).stdout
    assert "plain conversion" in run(app, ["--show-recipe", "bf16"]).stdout
    assert "no recipe 'x'" in failure("--show-recipe", "x").message


def test_recipes_are_listed_for_a_model(r1: Path) -> None:
    said = json.loads(run(app, ["r1", "--list-recipes", "--json"]).stdout)
    found = {each["name"]: each["bpw"] for each in said["recipes"]}
    assert (found["q4_k_m"], found["dq3_k_m"], found["ud-q2_k_xl"]) == (4.8223, 3.5875, 2.7029)


def test_recipes_for_mixtures_of_experts_are_not_listed_for_a_dense_model(tmp_path: Path) -> None:
    (tmp_path / "dense").mkdir()
    shutil.copy(CONFIGS / "r1-distill-qwen-7b.json", tmp_path / "dense" / "config.json")
    listed = run(app, ["dense", "--list-recipes", "-q"]).stdout.split()
    assert "q4_k_m" in listed
    assert not {"moe-q3", "moe-q4", "dq3_k_m", "ud-q2_k_xl"} & set(listed)


def test_the_order_of_llama_quantize_is_understood(checkpoint: Path) -> None:
    assert run(app, ["tiny", "a.gguf", "Q8_0", "1", "-q"]).stdout == "a.gguf\n"
    assert run(app, ["tiny", "Q8_0", "-q"]).stdout == "tiny-q8_0.gguf\n"
    assert Path("a.gguf").read_bytes() == Path("tiny-q8_0.gguf").read_bytes()
    assert run(app, ["tiny", "-o", "b.gguf", "-q"]).stdout == "b.gguf\n"


def test_named_types_are_in_the_file(checkpoint: Path) -> None:
    done = run(app, ["tiny", "c.gguf", "q4_0", "--tensor-type", "attn_q_a=q8_0", "--leave-output-tensor", "-q"])
    assert done.exit_code == 0, done.output
    types = {tensor.name: tensor.type for tensor in read_card(Path("c.gguf")).tensors}
    assert (types["blk.0.attn_q_a.weight"], types["output.weight"]) == ("Q8_0", "BF16")


@pytest.mark.parametrize("source", ["tiny", "nano"])
def test_a_text_that_is_too_short_is_refused_before_the_work(source: str, checkpoint: Path) -> None:
    Path("short.txt").write_text("hello")
    refused = failure(source, "out.gguf", "--measure", "short.txt", "--allow-requantize")
    assert re.fullmatch(r"--measure short.txt: the text has \d+ tokens?, and one chunk has 512", refused.message)
    assert not Path("out.gguf").exists()


def test_every_next_line_is_a_command_that_works(checkpoint: Path) -> None:
    for arguments in (["tiny", "-next.gguf"], ["nano", "a file.gguf", "--allow-requantize"]):
        done = run(app, ["--", *arguments] if arguments[1].startswith("-") else arguments)
        assert done.exit_code == 0, done.output
        [line] = [line for line in done.stderr.splitlines() if line.startswith("next: ")]
        words = shlex.split(line.removeprefix("next: "))[1:]
        again = CliRunner().invoke(dsr, words, input="What is 1 + 1?")
        assert again.exit_code == 0, (line, again.output)


def test_a_recipe_of_ones_own_works_by_its_path(checkpoint: Path) -> None:
    text = run(app, ["--show-recipe", "moe-q4"]).stdout
    Path("own.toml").write_text(text)
    assert run(app, ["tiny", "-r", "own.toml", "-q"]).stdout == "tiny-own.gguf\n"
    rules = {
        tensor["rule"]
        for tensor in json.loads(run(app, ["tiny", "-r", "own.toml", "--dry-run", "--json"]).stdout)["tensors"]
    }
    assert "own: routed experts" in rules and "_moe_high: output or embedding" not in rules


def test_original_weights_come_before_a_gguf_of_the_same_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    put(cache, "org/both", "a-Q8_0.gguf", b"1")
    assert find_weights("org/both").kind == "gguf"
    with pytest.raises(NotFound, match="org/none is not on this machine") as caught:
        find_weights("org/none")
    assert caught.value.hint == "dsr pull org/none --original"
    put(cache, "org/both", "config.json", b"{}")
    assert find_weights("org/both").kind == "safetensors"  # enough for a dry run
    put(cache, "org/both", "model.safetensors", b"1")
    found = find_weights("org/both:safetensors")
    assert (found.kind, found.path.name) == ("safetensors", "1" * 40)
    assert find_weights("org/both:Q8_0").kind == "gguf"
    put(cache, "Qwen/Qwen3-8B", "model.safetensors", b"1")
    assert find_weights("qwen3:8b").repo == "Qwen/Qwen3-8B"


def test_a_checkpoint_is_meant_by_its_folder_or_a_file_in_it(checkpoint: Path) -> None:
    for text in ("tiny", "./tiny", str(checkpoint), "tiny/config.json", "tiny/model-00001-of-00002.safetensors"):
        found = find_weights(text)
        assert (found.kind, found.path.resolve(), found.name) == ("safetensors", checkpoint, "tiny")


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ((), ""),
        ((4,), "4"),
        ((3, 4), "3-4"),
        ((3, 9), "3, 9"),
        ((3, 4, 5, 6, 10, 15, 20), "3-6, 10-20 by 5"),
        ((0, 1, 2, 5, 8, 11, 12, 13), "0-2, 5-11 by 3, 12-13"),
    ],
)
def test_layers_in_words(layers: tuple[int, ...], words: str) -> None:
    assert layers_in_words(layers) == words


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 4 << 30), ("4.5 G", 9 << 29), ("500MB", 500_000_000), ("2m", 2 << 20), ("123", 123), ("7b", 7)],
)
def test_sizes_that_people_write(text: str, size: int) -> None:
    assert ByteCount.parse(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "1e9", "4 gigs", "1.5.2M", "nan"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        ByteCount.parse(text)


def test_layers_that_predict_ahead_are_kept_on_request(tmp_path: Path, r1: Path) -> None:
    tiny.deepseek_v3_mtp(tmp_path / "tiny")
    done = run(app, ["tiny", "out.gguf", "--recipe", "f16", "--keep-mtp"], catch_exceptions=False)
    assert "left out" not in done.stderr
    assert read_card(Path("out.gguf")).nextn_layers == 1
    # DeepSeek tells of 11.5 billion in R1, without the copies of embeddings and output (README_WEIGHTS.md of V3).
    sizes = [
        json.loads(run(app, ["r1", "--dry-run", "--json", *more], catch_exceptions=False).stdout)["parameters"]
        for more in ((), ("--keep-mtp",))
    ]
    assert sizes == [671_026_419_200, 684_489_845_504]
    assert 11.5e9 < sizes[1] - sizes[0] - 2 * 129280 * 7168 < 11.7e9
