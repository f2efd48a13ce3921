"""What a user set once, and what is said about what makes no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsr.store.settings import Settings, load
from runtime.base.errors import UsageError


def written(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_everything_is_as_by_default(tmp_path: Path) -> None:
    assert load(tmp_path / "config.toml", {}) == Settings()
    assert Settings() == Settings(model=None, thinking="show", threads=None, ctx_size=None, kv_type="f16", log=True)


def test_the_file_is_read(tmp_path: Path) -> None:
    text = 'model = "qwq:32b"\nthinking = "hide"\nthreads = 3\nctx_size = 8192\nkv_type = "q8_0"\n'
    text += 'on_full = "summary"\nlog = false\n'
    assert load(written(tmp_path, text), {}) == Settings("qwq:32b", "hide", 3, 8192, "q8_0", "summary", False)


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, 'model = "qwq:32b"\nthreads = 3\nlog = true\n')
    found = load(path, {"DSR_THREADS": "2", "DSR_LOG": "off", "DSR_THINKING": "summary", "DSR_HOME": "/x"})
    assert found == Settings(model="qwq:32b", threads=2, log=False, thinking="summary")


def test_an_empty_variable_says_nothing(tmp_path: Path) -> None:
    assert load(tmp_path / "none.toml", {"DSR_MODEL": "", "DSR_THREADS": ""}) == Settings()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("threads = 'two'", "threads must be a whole number, not 'two'"),
        ("threads = true", "threads must be a whole number, not True"),
        ("threads = 0", "threads must be at least 1, not 0"),
        ("ctx_size = 1.5", "ctx_size must be a whole number, not 1.5"),
        ("log = 1", "log must be true or false, not 1"),
        ("model = 7", "model must be a text in quotes, not 7"),
        ("thinking = 'loud'", "thinking must be one of show, hide, summary, not 'loud'"),
        ("on_full = 'grow'", "on_full must be one of stop, forget, summary, not 'grow'"),
        ("cache_limit = 20", "cache_limit must be a text in quotes, not 20"),
        ("cache_limit = 'much'", "cache_limit: 'much' is not a size"),
        ("[chat]\nmodel = 'x'", "unknown setting 'chat'"),
    ],
)
def test_a_wrong_value_names_the_file_and_the_key(tmp_path: Path, text: str, problem: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load(path, {})
    assert caught.value.message == f"{path}: {problem}"


def test_an_unknown_key_gets_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load(written(tmp_path, "thread = 2"), {})
    assert caught.value.hint == "did you mean 'threads'?"
    with pytest.raises(UsageError) as caught:
        load(written(tmp_path, "zzz = 2"), {})
    known = "model, thinking, threads, ctx_size, kv_type, on_full, log, cache_limit, effort, keep_thoughts"
    assert caught.value.hint == f"known settings: {known}, and sampling settings such as top_p"


def test_sampling_settings_are_numbers_in_their_range(tmp_path: Path) -> None:
    file = written(tmp_path, "temperature = 1\npresence_penalty = 1.5\npenalty_last_n = -1\ntop_k = 0")
    assert load(file, {"DSR_TOP_P": "0.9"}).sampling == {
        "temperature": 1,
        "presence_penalty": 1.5,
        "penalty_last_n": -1,
        "top_k": 0,
        "top_p": 0.9,
    }
    for text, environment, problem in (
        ("repeat_penalty = 0", {}, "repeat_penalty must be between 0.1 and 10, not 0"),
        ("top_k = 1.5", {}, "top_k must be a whole number, not 1.5"),
        ("temperature = 'hot'", {}, "temperature must be a number, not 'hot'"),
        ("", {"DSR_TOP_N_SIGMA": "x"}, "DSR_TOP_N_SIGMA: must be a number, not 'x'"),
    ):
        with pytest.raises(UsageError, match=problem):
            load(written(tmp_path, text), environment)


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.toml: not valid TOML: .*line 1") as caught:
        load(written(tmp_path, "threads = = 2"), {})
    assert caught.value.hint == f"edit or remove {tmp_path / 'config.toml'}"


def test_a_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="is not a text file"):
        load(path, {})
    with pytest.raises(UsageError, match="is a folder"):
        load(tmp_path, {})


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("DSR_THREADS", "many", "DSR_THREADS: must be a whole number, not 'many'"),
        ("DSR_THREADS", "-1", "DSR_THREADS: threads must be at least 1, not -1"),
        ("DSR_LOG", "perhaps", "DSR_LOG: must be true or false, not 'perhaps'"),
        ("DSR_THINKING", "x", "DSR_THINKING: thinking must be one of show, hide, summary, not 'x'"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path: Path, name: str, value: str, problem: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(tmp_path / "none.toml", {name: value})
    assert caught.value.message == problem
