from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.models.references import check_repo, guess, parse, sizes
from runtime.base.errors import DsrError, NotFound, UsageError

R1_7B = "unsloth/DeepSeek-R1-Distill-Qwen-7B-GGUF"


@pytest.mark.parametrize(
    ("text", "kind", "repo", "quant"),
    [
        ("nano", "embedded", None, None),
        ("NANO", "embedded", None, None),
        ("deepseek-r1:7b", "name", R1_7B, None),
        ("DeepSeek-R1:7B", "name", R1_7B, None),
        ("deepseek-r1:7b:q4_k_m", "name", R1_7B, "Q4_K_M"),
        ("deepseek-r1:7b@Q4_k_m", "name", R1_7B, "Q4_K_M"),
        ("DeepSeek-R1-Distill-Qwen-7B@q8_0", "name", R1_7B, "Q8_0"),
        ("qwq:fp16", "name", "Qwen/QwQ-32B-GGUF", "F16"),
        ("org/repo", "repo", "org/repo", None),
        ("org/repo:Q4_K_M", "repo", "org/repo", "Q4_K_M"),
        ("org/repo:ud-iq1_s", "repo", "org/repo", "UD-IQ1_S"),
        ("org/repo@q8_0", "repo", "org/repo", "Q8_0"),
        ("hf.co/org/repo:Q4_K_M", "repo", "org/repo", "Q4_K_M"),
        ("hf://org/repo", "repo", "org/repo", None),
        ("hf://models/org/repo", "repo", "org/repo", None),
        ("HF://org/Repo@q4_0", "repo", "org/Repo", "Q4_0"),
        ("huggingface.co/org/repo", "repo", "org/repo", None),
        ("https://huggingface.co/org/repo", "repo", "org/repo", None),
        ("https://huggingface.co/org/repo/", "repo", "org/repo", None),
        ("https://huggingface.co/org/repo/tree/main", "repo", "org/repo", None),
        ("https://hf.co/org/repo?show_file_info=x.gguf", "repo", "org/repo", None),
        ("https://huggingface.co/org/repo/blob/main/x-Q4_K_M.gguf", "repo", "org/repo", "Q4_K_M"),
        ("https://huggingface.co/org/r/resolve/main/Q8_0/x-00001-of-00002.gguf?download=true", "repo", "org/r", "Q8_0"),
    ],
)
def test_every_spelling_of_a_model_is_understood(text: str, kind: str, repo: str | None, quant: str | None) -> None:
    reference = parse(text)
    assert (reference.kind, reference.repo, reference.quant) == (kind, repo, quant)


def test_a_short_name_and_a_repository_of_the_catalogue_know_their_entry() -> None:
    for text in ("deepseek-r1:7b", R1_7B, "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"):
        entry = parse(text).entry
        assert entry is not None and entry.name == "deepseek-r1:7b"
    assert parse("org/repo").entry is None


@pytest.mark.parametrize(
    "text",
    [
        "model.gguf",
        "x.GGUF",
        "./model",
        "../model",
        "~/model",
        "/abs/model",
        ".",
        "C:\\models\\x",
        "a/b/c.gguf",
        ".\\x",
    ],
)
def test_paths_are_recognised_by_their_look(text: str) -> None:
    reference = parse(text)
    assert reference.kind == "path" and reference.path == Path(text).expanduser()


def test_a_folder_that_exists_is_a_path_and_not_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse("org/repo").kind == "repo"
    (tmp_path / "org" / "repo").mkdir(parents=True)
    assert parse("org/repo").kind == "path"


def test_deepseek_r1_alone_is_never_silently_a_distill() -> None:
    with pytest.raises(UsageError, match="7 models, 6 of them distills; name one of them") as caught:
        parse("deepseek-r1")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("deepseek-r1:671b = DeepSeek-R1; distills: deepseek-r1:1.5b, deepseek-r1:7b,")


def test_a_name_without_a_size_means_its_sizes_also_as_ollama_writes_it() -> None:
    assert [each.name for each in sizes("GPT-OSS")] == ["gpt-oss:20b", "gpt-oss:120b"]
    assert sizes("gpt-oss:latest") == sizes("gpt-oss")
    assert sizes("gpt-oss:20b") == sizes("nano") == sizes("hello") == ()
    with pytest.raises(UsageError, match="gpt-oss:latest matches 2 models"):
        parse("gpt-oss:latest")


def test_a_family_without_distills_just_lists_its_tags() -> None:
    with pytest.raises(UsageError, match="gpt-oss matches 2 models; name one of them") as caught:
        parse("gpt-oss")
    assert caught.value.hint == "gpt-oss:20b, gpt-oss:120b"


@pytest.mark.parametrize(
    ("word", "kind", "first"),
    [
        ("nano", "model", None),
        ("deepseek-r1", "model", None),
        ("x.gguf", "model", None),
        ("org/repo", "model", None),
        ("foo:7b", "model", None),
        ("decpseek-r1:7b", "model", "deepseek-r1:1.5b"),
        ("nanoo", "near", "nano"),
        ("gamma", "near", "gemma4:e2b"),
        ("llama3", "near", "llama-3.2:1b"),
        ("unheard-40b", "near", None),
        ("hi", "no", None),
        ("2+2", "no", None),
        ("10/2", "no", None),
        ("why?", "no", None),
        ("translate", "no", None),
    ],
)
def test_a_word_is_a_model_nearly_one_or_none(word: str, kind: str, first: str | None) -> None:
    found = guess(word)
    assert (found.kind, next(iter(found.names), None)) == (kind, first)


def test_an_unknown_name_gets_suggestions() -> None:
    with pytest.raises(NotFound, match="no model is called 'deepseek-r1:7bb'") as caught:
        parse("deepseek-r1:7bb")
    assert caught.value.hint is not None and "deepseek-r1:7b" in caught.value.hint


def test_an_unknown_name_without_likeness_is_sent_to_the_catalogue() -> None:
    with pytest.raises(NotFound) as caught:
        parse("zzzzzzzz")
    assert caught.value.hint == "to see the names: dsr list --catalog"


@pytest.mark.parametrize(
    "text",
    [
        "", "   ", "org/..", "org/re..po", "org/re--po", "-org/repo", "org/-repo", "org/repo-",
        "org/.repo",
        "org/repo.", "org/repo.git", "org/re po", "org/repo\n", "org/re\x1b[31mpo", "org/répo", "org/repo/more", "org/",
        "org//repo", "org/con", "NUL/repo", "org/aux.model", "org/" + "a" * 97, "org/repo:", "org/repo:Q4 K",
        "org/repo:../x",
        "hf://datasets/org/repo", "hf.co/org", "https://example.com/org/repo", "ftp://huggingface.co/org/repo",
        "https://huggingface.co/org/repo/discussions", "org/" + "a/" * 3000, "a" * 5000, "org\\repo/x",
        "https://huggingface.co/org/repo/tree/v2",
    ],
)  # fmt: skip
def test_what_no_repository_can_be_called_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


def test_a_revision_in_an_address_is_sent_to_pull() -> None:
    with pytest.raises(UsageError) as caught:
        parse("https://huggingface.co/org/repo/tree/v2")
    assert caught.value.hint == "dsr pull org/repo --revision v2"


def test_a_model_whose_quantization_several_share_is_named_by_its_path() -> None:
    """What `choose_files` offers then, 'BF16/x-BF16' beside 'x-BF16', can be typed."""
    assert parse("org/repo:BF16/x-BF16").quant == "BF16/X-BF16"


@given(st.text(max_size=80))
def test_any_text_is_a_reference_or_an_error_of_ours(text: str) -> None:
    try:
        reference = parse(text)
    except DsrError as error:
        assert error.message
    else:
        assert (reference.kind == "path") == (reference.path is not None)


@given(st.from_regex(r"[a-z0-9]{1,8}([._-][a-z0-9]{1,8}){0,3}", fullmatch=True), st.sampled_from(["Q4_K_M", "iq2_xxs"]))
def test_a_valid_repository_survives_every_spelling(part: str, quant: str) -> None:
    try:
        check_repo(f"org1/{part}")
    except UsageError:  # reserved on Windows, or it ends in .git
        return
    if part.endswith(".gguf"):
        return
    for prefix in ("", "hf.co/", "hf://", "https://huggingface.co/"):
        for mark in ":@":
            reference = parse(f"{prefix}org1/{part}{mark}{quant}")
            assert (reference.repo, reference.quant) == (f"org1/{part}", quant.upper())


def test_a_name_with_control_characters_is_told_what_to_do() -> None:
    with pytest.raises(UsageError) as caught:
        parse("a\nb \x1b[31m.gguf")
    assert caught.value.message == r"a model's name cannot hold control characters: 'a\nb \x1b[31m.gguf'"
    assert caught.value.hint == "rename the file, if it has that name"
