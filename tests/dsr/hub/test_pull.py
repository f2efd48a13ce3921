"""`dsr pull` from the decision to the last line on the screen."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dsr.hub.client import Hub
from dsr.hub.http import RetryPolicy
from dsr.hub.pull import PlannedFile, PullPlan, PullRequest, check_space, download, plan
from dsr.hub.select_files import bits_of, checkpoint_files, choose_quant, included, smaller_model
from dsr.models.gguf_names import QuantChoice
from dsr.models.references import parse
from runtime.base.errors import (
    BadModelFile,
    DoesNotFit,
    Gated,
    Incompatible,
    NetworkError,
    NotFound,
    UsageError,
    VerificationFailed,
)
from runtime.base.events import Event, Notice, Progress
from runtime.base.types import ByteCount
from tests.gguf_writer import T, V, gguf, llama_metadata, llama_tensors
from tests.hub_server import COMMIT, HubServer

GIB = 1 << 30
NANO = (Path(__file__).parents[3] / "dsr" / "data" / "nano.gguf").read_bytes()
SPLIT = [f"big/m-Q4_K_M-0000{n}-of-00003.gguf" for n in (1, 2, 3)]


def _shard(number: int, tensors: list[T], size: int) -> bytes:
    split = {"split.no": V("u16", number), "split.count": V("u16", 3), "split.tensors.count": V("i32", 20)}
    return gguf({**llama_metadata(), **split} if number == 0 else split, tensors).ljust(size, b"\0")


_TENSORS = llama_tensors(type="Q4_0")
SHARDS = (
    _shard(0, _TENSORS[:7], 50_000),
    _shard(1, _TENSORS[7:14], 60_000),
    _shard(2, _TENSORS[14:], 70_000),
)


def quants(**sizes: float) -> list[QuantChoice]:
    return [QuantChoice(name, (f"m-{name}.gguf",), ByteCount(int(size * GIB))) for name, size in sizes.items()]


def costs(**per_context: float) -> Callable[[QuantChoice, int], int]:
    table = {16384: per_context["long"], 8192: per_context["short"]}
    return lambda choice, context: int(table[context] * GIB)


def test_the_largest_quant_that_fits_with_its_context_is_chosen_and_explained() -> None:
    choices = quants(Q2_K=2.8, Q4_K_M=4.4, Q5_K_M=5.5, Q8_0=8.0)
    decision = choose_quant(choices, int(7.1 * GIB), costs(long=1.8, short=0.5))
    assert decision.choice.quant == "Q4_K_M"
    assert decision.why == (
        "Q4_K_M (4.40 GiB and 1.80 GiB for a context of 16k tokens) fits in 7.10 GiB of memory; "
        "Q5_K_M (5.50 GiB) does not"
    )


def test_a_shorter_context_is_taken_before_giving_up() -> None:
    decision = choose_quant(quants(Q4_K_M=4.4), 5 * GIB, costs(long=1.8, short=0.5))
    assert (
        decision.why
        == "Q4_K_M (4.40 GiB and 512.0 MiB for a context of 8k tokens) fits in 5.00 GiB of memory; it is the largest"
    )


def by_size(choice: QuantChoice, context: int) -> float:
    """40 GB/s, and nothing but the weights counts."""
    return 40e9 / int(choice.size)


def test_where_all_are_slow_four_bits_are_enough_and_the_largest_is_told() -> None:
    choices = quants(Q2_K=3.3, Q4_K_S=4.7, Q4_K_M=5.0, Q5_K_M=5.9, Q8_0=8.7)
    decision = choose_quant(choices, 14 * GIB, costs(long=2.0, short=1.0), speed=by_size)
    assert decision.choice.quant == "Q4_K_M"
    assert decision.why == (
        "Q4_K_M (5.00 GiB and 2.00 GiB for a context of 16k tokens): about 7.5 tokens/s here; Q8_0 (8.70 GiB) fits "
        "too, at about 4.3 tokens/s. To take it, add :Q8_0"
    )


def test_the_largest_that_is_fast_enough_is_taken() -> None:
    choices, cost = quants(Q4_K_M=1.0, Q6_K=1.4, Q8_0=1.8, BF16=3.4), costs(long=1.0, short=1.0)
    assert choose_quant(choices, 14 * GIB, cost, speed=by_size).choice.quant == "Q8_0"
    slower = choose_quant(choices, 14 * GIB, cost, speed=lambda choice, context: by_size(choice, context) * 0.8)
    assert slower.choice.quant == "Q6_K"


def test_a_fast_one_is_not_taken_where_another_is_far_faster() -> None:
    """As beside a GPU that has room for Q6_K, and not for Q8_0."""
    speeds = {"Q4_K_M": 120.0, "Q6_K": 90.0, "Q8_0": 40.0}
    choices = quants(Q4_K_M=17, Q6_K=23, Q8_0=30)
    decision = choose_quant(choices, 60 * GIB, costs(long=2, short=1), speed=lambda c, _: speeds[c.quant])
    assert decision.choice.quant == "Q6_K"


def test_below_four_bits_the_largest_is_taken_whatever_its_speed() -> None:
    decision = choose_quant(quants(Q2_K=28, Q3_K_M=33, Q4_K_M=40), 36 * GIB, costs(long=2, short=1), speed=by_size)
    assert decision.choice.quant == "Q3_K_M"


def test_without_a_known_speed_the_largest_is_taken() -> None:
    choices = quants(Q4_K_M=5.0, Q8_0=8.7)
    assert choose_quant(choices, 14 * GIB, costs(long=2, short=1), speed=lambda c, _: 0.0).choice.quant == "Q8_0"


@pytest.mark.parametrize(
    ("quant", "bits"), [("Q4_K_M", 4), ("UD-IQ2_XXS", 2), ("MXFP4_MOE", 4), ("BF16", 16), ("Q8_0", 8), ("x", 0)]
)
def test_the_bits_that_a_name_tells(quant: str, bits: int) -> None:
    assert bits_of(quant) == bits


def test_unquantized_files_are_taken_only_where_there_is_nothing_else() -> None:
    cost = costs(long=1.0, short=1.0)
    assert choose_quant(quants(Q8_0=8.0, F16=15.0, BF16=15.0), 64 * GIB, cost).choice.quant == "Q8_0"
    assert choose_quant(quants(F16=15.0), 64 * GIB, cost).choice.quant == "F16"


def test_what_fits_to_the_byte_fits() -> None:
    cost = costs(long=1.0, short=1.0)
    assert choose_quant(quants(Q4_0=4.0), 5 * GIB, cost).choice.quant == "Q4_0"
    with pytest.raises(DoesNotFit):
        choose_quant(quants(Q4_0=4.0), 5 * GIB - 1, cost)


def test_when_nothing_fits_both_numbers_are_said() -> None:
    with pytest.raises(DoesNotFit) as caught:
        choose_quant(quants(Q2_K=2.8, Q4_K_M=4.4), 2 * GIB, costs(long=1.8, short=0.5))
    assert caught.value.message == (
        "even the smallest quantization, Q2_K (2.80 GiB and 512.0 MiB for a context of 8k tokens), "
        "does not fit in 2.00 GiB of memory"
    )


def test_a_smaller_model_of_the_same_family_is_suggested() -> None:
    entry = parse("deepseek-r1:70b").entry
    smaller = smaller_model(entry, 8 * GIB)
    assert smaller is not None and (smaller.family, smaller.name) == ("deepseek-r1", "deepseek-r1-0528:8b")
    assert smaller_model(entry, 1 << 20) is None


def test_a_checkpoint_is_its_configuration_tokenizer_and_safetensors() -> None:
    paths = [
        "README.md", "config.json", "generation_config.json", "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors", "model.safetensors.index.json", "onnx/model.onnx",
        "original/consolidated.safetensors", "pytorch_model.bin", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert checkpoint_files(paths) == (
        "config.json",
        "generation_config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    )


@pytest.mark.parametrize("pickle", ["pytorch_model.bin", "model.pt", "sub/consolidated.00.pth"])
def test_pickled_weights_are_refused(pickle: str) -> None:
    with pytest.raises(Incompatible, match="pickle file"):
        checkpoint_files(["config.json", pickle])
    with pytest.raises(Incompatible, match="pickle file"):
        included([pickle], ["*"])


def test_a_repository_without_weights_is_not_found() -> None:
    with pytest.raises(NotFound, match="neither a GGUF model nor safetensors files"):
        checkpoint_files(["README.md"])


def test_a_pattern_without_a_match_shows_what_there_is() -> None:
    assert included(["a.json", "b.gguf"], ["*.json"]) == ("a.json",)
    with pytest.raises(NotFound, match=r"no file matches '\*\.txt'") as caught:
        included(["a.json", "b.gguf"], ["*.txt"])
    assert caught.value.hint == "the repository has 2 files: a.json, b.gguf"


def test_the_disk_is_checked_to_the_byte() -> None:
    file = PlannedFile("m.gguf", ByteCount(1000), "a" * 64, ByteCount(400))
    planned = PullPlan(
        "o/m", "main", COMMIT, None, "", (file,), Path("/c/models--o--m/snapshots/x"), ByteCount(600), None
    )
    check_space(planned)
    with pytest.raises(DoesNotFit, match=r"needs 600 B, and 599 B are free at /c: 1 B \(1 bytes\) are missing"):
        check_space(replace(planned, free=ByteCount(599)))


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add("org/nano", {"nano-Q8_0.gguf": NANO, "nano-Q2_K.gguf": NANO})
        hub.add("org/split", dict(zip(SPLIT, SHARDS, strict=True)))
        hub.add("org/orig", {"config.json": b"{}", "model.safetensors": b"w" * 9000, "pytorch_model.bin": b"x"})
        yield hub


@pytest.fixture
def hub(server: HubServer, tmp_path: Path) -> Hub:
    return Hub(server.url, tmp_path / "hub", policy=RetryPolicy(stall_seconds=0.5, sleep=lambda seconds: None))


def test_the_header_is_read_from_afar_and_the_need_is_exact(hub: Hub, tmp_path: Path) -> None:
    planned = plan(PullRequest(parse("org/nano")), hub, 8 * GIB)
    assert planned.quant == "Q8_0"
    assert (
        planned.why
        == "Q8_0 (12.5 MiB and 79.0 MiB for a context of 2k tokens) fits in 8.00 GiB of memory; it is the largest"
    )
    assert not (tmp_path / "hub").exists()


def test_without_a_header_the_file_sizes_decide_and_that_is_said(server: HubServer, hub: Hub) -> None:
    server.faults.status = {500: 3}
    said: list[Event] = []
    planned = plan(PullRequest(parse("org/nano")), hub, 8 * GIB, said.append)
    assert (
        planned.why
        == "Q8_0 (12.5 MiB and 512.0 MiB for a context of 16k tokens) fits in 8.00 GiB of memory; it is the largest"
    )
    assert any(isinstance(e, Notice) and "uses the file size instead" in e.text for e in said)


def test_a_broken_header_ends_the_pull_before_the_weights(server: HubServer, hub: Hub) -> None:
    server.add("org/broken", {"m-Q8_0.gguf": b"GGUX" + NANO[4:]})
    with pytest.raises(BadModelFile, match=r"m-Q8_0.gguf: not a GGUF file") as caught:
        plan(PullRequest(parse("org/broken")), hub, 8 * GIB)
    assert caught.value.hint == "choose another repository, or --force"
    assert plan(PullRequest(parse("org/broken"), force=True), hub, 8 * GIB).quant == "Q8_0"


def test_a_model_that_does_not_fit_is_refused_with_a_way_out(hub: Hub) -> None:
    with pytest.raises(
        DoesNotFit, match=r"org/nano: even the smallest quantization, Q2_K \(.*\), does not fit in 1.00 MiB"
    ) as caught:
        plan(PullRequest(parse("org/nano")), hub, 1 << 20)
    assert caught.value.hint == "to download Q2_K anyway, use --force"
    offered = PullRequest(parse("org/nano"), from_disk=lambda card: f"{card.name} from the disk, about 1.2 tokens/s")
    with pytest.raises(DoesNotFit) as caught:
        plan(offered, hub, 1 << 20)
    assert re.fullmatch(
        r"dsr pull org/nano:Q2_K gets .* that run Nano from the disk, about 1.2 tokens/s", caught.value.hint or ""
    )
    forced = plan(PullRequest(parse("org/nano"), force=True), hub, 1 << 20)
    assert forced.quant == "Q2_K" and forced.why.endswith("dsr takes it because of --force")


def test_a_split_model_comes_whole_with_a_bar_for_all_of_it(hub: Hub) -> None:
    planned = plan(PullRequest(parse("org/split:q4_k_m")), hub, 0)
    moves: list[Event] = []
    places = download(planned, hub, moves.append)
    assert tuple(place.read_bytes() for place in places) == SHARDS
    assert planned.main_file == places[0]
    together = [e for e in moves if isinstance(e, Progress) and e.item == "all 3 files"]
    assert [(e.done, e.total) for e in together][-1] == (180_000, 180_000)
    assert [e.done for e in together] == sorted(e.done for e in together)
    assert hub.cache("org/split").commit_of("main") == COMMIT


def test_a_bar_for_all_counts_what_earlier_pulls_left(server: HubServer, hub: Hub) -> None:
    request = PullRequest(parse("org/split:Q4_K_M"))
    cache, listing = hub.cache("org/split"), hub.listing("org/split")
    partial = cache.partial(listing.file(SPLIT[2]))
    partial.plain.parent.mkdir(parents=True)
    partial.plain.write_bytes(b"c" * 30_000)
    planned = plan(request, hub, 0)
    assert (planned.size, planned.missing) == (180_000, 150_000)
    moves: list[Event] = []
    download(planned, hub, moves.append)
    together = [e.done for e in moves if isinstance(e, Progress) and e.item == "all 3 files"]
    assert together[0] == 30_000 and together[-1] == 180_000
    assert server.ranges() == ["bytes=30000-"]


def test_a_missing_shard_is_found_before_the_first_byte(server: HubServer, hub: Hub) -> None:
    del server.repos["org/split"].files[SPLIT[1]]
    for reference in ("org/split:Q4_K_M", "org/split"):
        with pytest.raises(VerificationFailed, match="org/split: "):
            plan(PullRequest(parse(reference)), hub, 8 * GIB)
    assert server.served == 0


def test_a_repository_of_safetensors_comes_as_a_checkpoint(hub: Hub) -> None:
    planned = plan(PullRequest(parse("org/orig")), hub, 0)
    assert [file.path for file in planned.files] == ["config.json", "model.safetensors"]
    download(planned, hub)
    assert planned.main_file == planned.destination
    assert (planned.destination / "config.json").read_text() == "{}"


def test_included_files_come_besides_a_named_quant(server: HubServer, hub: Hub) -> None:
    server.repos["org/nano"].files["mmproj.json"] = b"{}"
    request = PullRequest(parse("org/nano:Q8_0"), include=("mm*",))
    assert [file.path for file in plan(request, hub, 0).files] == ["nano-Q8_0.gguf", "mmproj.json"]


def test_a_gated_repository_is_refused_at_the_header(server: HubServer, hub: Hub) -> None:
    server.repos["org/nano"].gated = True
    with pytest.raises(Gated):
        plan(PullRequest(parse("org/nano")), hub, 8 * GIB)


@pytest.mark.parametrize("text", ["nano", "./tests"])
def test_what_is_here_cannot_be_pulled(hub: Hub, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    with pytest.raises(UsageError, match="on this machine already"):
        plan(PullRequest(parse(text)), hub, 0)


def test_original_weights_come_from_the_catalogues_repository(server: HubServer, hub: Hub) -> None:
    server.add("Qwen/Qwen3-0.6B", {"config.json": b"{}", "model.safetensors": b"w" * 100})
    planned = plan(PullRequest(parse("qwen3:0.6b"), original=True), hub, 0)
    assert (planned.repo, len(planned.files)) == ("Qwen/Qwen3-0.6B", 2)
    with pytest.raises(NotFound, match="org/nano: the repository has GGUF files, and no original weights"):
        plan(PullRequest(parse("org/nano"), original=True), hub, 0)


def test_offline_a_whole_model_is_enough_and_a_part_is_not(server: HubServer, hub: Hub) -> None:
    request = PullRequest(parse("org/split:Q4_K_M"))
    download(plan(request, hub, 0), hub)
    before = len(server.requests)
    offline = replace(hub, offline=True)
    planned = plan(request, offline, 0)
    assert planned.missing == 0
    assert tuple(place.read_bytes() for place in download(planned, offline)) == SHARDS
    planned.main_file.unlink()
    with pytest.raises(NetworkError, match="and the cache does not have the model"):
        plan(request, offline, 0)
    assert len(server.requests) == before


def test_offline_with_a_partial_says_how_much_is_here(hub: Hub) -> None:
    partial = hub.cache("org/nano").partial(hub.listing("org/nano").file("nano-Q8_0.gguf"))
    partial.plain.parent.mkdir(parents=True)
    partial.plain.write_bytes(NANO[:2_097_152])
    with pytest.raises(NetworkError, match=r"and only a part of 2.00 MiB of org/nano is in the cache"):
        plan(PullRequest(parse("org/nano")), replace(hub, offline=True), 0)


def test_without_a_network_a_whole_copy_is_pointed_out(hub: Hub) -> None:
    request = PullRequest(parse("org/split:Q4_K_M"))
    planned = plan(request, hub, 0)
    download(planned, hub)
    with pytest.raises(NetworkError) as caught:
        plan(request, replace(hub, endpoint="http://127.0.0.1:9"), 0)
    assert caught.value.hint == f"a complete copy is in the cache and works offline: {planned.main_file}"


def dsr(server: HubServer, home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return subprocess.run(
        [sys.executable, "-m", "dsr", "pull", *arguments],
        env={**kept, "HF_ENDPOINT": server.url, "HF_HOME": str(home), **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_command_prints_the_place_and_says_what_to_type_next(server: HubServer, tmp_path: Path) -> None:
    done = dsr(server, tmp_path, "org/nano:Q8_0")
    place = tmp_path / "hub/models--org--nano/snapshots" / COMMIT / "nano-Q8_0.gguf"
    assert (done.returncode, done.stdout) == (0, f"{place}\n")
    assert done.stderr.splitlines() == ["org/nano: 1 file, 12.5 MiB, verified", "next: dsr chat org/nano:Q8_0"]
    again = dsr(server, tmp_path, "org/nano:Q8_0", "--quiet")
    assert (again.returncode, again.stdout, again.stderr) == (0, f"{place}\n", "")


def test_the_next_step_finds_what_was_pulled(server: HubServer, tmp_path: Path) -> None:
    """After Q8_0, which is here already, org/two alone would mean that one."""
    server.add("org/two", {"m-Q8_0.gguf": NANO + bytes(32), "m-Q2_K.gguf": NANO})
    dsr(server, tmp_path, "org/two:Q8_0")
    smaller = dsr(server, tmp_path, "org/two", "--include", "*Q2_K*")
    assert smaller.stderr.splitlines()[-1] == f"next: dsr chat {smaller.stdout.strip()}"
    part = dsr(server, tmp_path, "org/split", "--include", "*00002-of-*")
    assert part.stderr.splitlines()[-1] == "other parts of the model are not on this machine yet"


def test_after_original_weights_it_says_what_makes_them_fit_to_chat_with(server: HubServer, tmp_path: Path) -> None:
    done = dsr(server, tmp_path, "org/orig")
    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == "next, to make a GGUF file for chat: dsr quantize org/orig"


def test_a_name_from_the_hub_cannot_drive_the_terminal(server: HubServer, tmp_path: Path) -> None:
    evil = "evil\x1b]0;owned\x07-Q8_0.gguf"
    server.add("org/evil", {"m-Q8_0.gguf": NANO, evil: NANO}, listed_sizes={evil: 1 << 60})
    done = dsr(server, tmp_path, "org/evil")
    assert done.returncode == 0
    assert "evil]0;owned-Q8_0 (" in done.stderr and "\x1b" not in done.stderr


def test_a_token_that_cannot_be_read_is_one_line(server: HubServer, tmp_path: Path) -> None:
    done = dsr(server, tmp_path / "home", "org/nano:Q8_0", HF_TOKEN_PATH=str(tmp_path))
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        1,
        f"error: cannot read your token in {tmp_path}: Is a directory",
    )


def test_a_dry_run_writes_nothing(server: HubServer, tmp_path: Path) -> None:
    done = dsr(server, tmp_path / "home", "org/split:Q4_K_M", "--dry-run")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[1].split() == [SPLIT[0], "48.8", "KiB", "48.8", "KiB"]
    assert lines[4].startswith("total 175.8 KiB, to download 175.8 KiB; free on this disk ")
    assert lines[5] == f"folder: {tmp_path}/home/hub/models--org--split/snapshots/{COMMIT}"
    assert list(tmp_path.iterdir()) == []


def test_json_is_one_object_with_sizes_in_bytes(server: HubServer, tmp_path: Path) -> None:
    done = dsr(server, tmp_path, "org/split:Q4_K_M", "--json")
    value = json.loads(done.stdout)
    assert (value["schema"], value["repo"], value["quant"], value["commit"]) == (
        "dsr.pull/1",
        "org/split",
        "Q4_K_M",
        COMMIT,
    )
    assert (value["size"], value["to_fetch"], value["dry_run"]) == (180_000, 180_000, False)
    assert value["files"][0]["path"] == SPLIT[0] and value["files"][0]["size"] == 50_000
    assert Path(value["path"]).read_bytes() == SHARDS[0]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["org/nothing"], 3, "does not exist on the hub, or it is private"),
        (["org/nano:Q5_K_M"], 3, "hint: it has: "),
        (["org/nano", "--revision", "../../x"], 4, "unsafe file name"),
        (["nano"], 2, "nothing to pull"),
        (["org/nano/nano-Q8_0.gguf"], 3, "is not a repository, and there is no such file"),
    ],
)
def test_errors_are_one_sentence_and_a_hint(
    server: HubServer, tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    done = dsr(server, tmp_path, *arguments)
    assert done.returncode == code
    assert words in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""


def test_no_network_is_exit_6_and_offline_too(server: HubServer, tmp_path: Path) -> None:
    done = dsr(server, tmp_path, "org/nano", HF_HUB_OFFLINE="1")
    assert done.returncode == 6
    assert done.stderr.splitlines() == [
        "error: dsr is offline (HF_HUB_OFFLINE), and nothing of org/nano is in the cache",
        "hint: to download it, unset HF_HUB_OFFLINE",
    ]
