"""Profiles on the disk, and by what they know their model."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quant.experts import profile as profiles
from quant.experts.expert_tensors import routed_layers
from quant.experts.profile import Profile, ProfileStore, encode_profile, read_profile, router_digest
from quant.measure.imatrix import Routing
from runtime.base.errors import BadModelFile, DoesNotFit, DsrError, Incompatible, NotFound, UsageError
from runtime.gguf.reader import read_card
from tests.quant.models import model

MODEL = "a" * 64


def routing(*selected: int) -> Routing:
    counts = np.array(selected, np.int64)
    return Routing(counts, counts * 0.5, counts * 0.25 + 0.1, counts * 2.0, counts * 3.0)


def profile(task: str = "sums", **parts: Any) -> Profile:
    return Profile(
        **{
            "task": task,
            "routing": {1: routing(4, 0, 2, 2), 2: routing(1, 3, 4, 0)},
            "tokens": 4,
            "active": 2,
            "keys": np.array([[1, 2, 3], [4, 5, 6]], np.float32),
            "origin": "2 questions",
            "text": "What is 1 + 1?\n2 \U0001f600\0",
            **parts,
        }
    )


def test_a_profile_comes_back_as_it_was(tmp_path: Path) -> None:
    store = ProfileStore(tmp_path)
    kept = profile(top=3, threshold=0.2)
    path = store.put(MODEL, kept)
    assert path == tmp_path / MODEL / "sums.gguf"
    found = store.get(MODEL, "sums")
    assert (found.task, found.tokens, found.active, found.origin) == ("sums", 4, 2, "2 questions")
    assert (found.text, found.top, found.threshold, found.digest) == (kept.text, 3, 0.2, kept.digest)
    assert found.keys.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert found.routing[2].selected.tolist() == [1, 3, 4, 0]
    assert found.routing[2].output.tolist() == [3, 9, 12, 0]


def test_a_text_has_no_keys_but_their_length(tmp_path: Path) -> None:
    store = ProfileStore(tmp_path)
    store.put(MODEL, profile(keys=np.zeros((0, 32), np.float32)))
    assert store.get(MODEL, "sums").keys.shape == (0, 32)


def test_experts_that_no_token_was_sent_to_are_named() -> None:
    assert profile().unreached == {1: (1,), 2: (3,)}
    assert profile(routing={1: routing(1, 1)}, active=1).unreached == {}


def test_other_statistics_have_another_digest() -> None:
    assert profile().digest == profile(text="other").digest
    assert profile().digest != profile(routing={1: routing(4, 0, 2, 2), 2: routing(1, 3, 3, 1)}).digest


def test_tasks_are_listed_by_name_and_any_printable_name_can_be_stored(tmp_path: Path) -> None:
    store = ProfileStore(tmp_path)
    names = ["world history", "50%", "a/b", "Sums", "数学"]
    for name in names:
        store.put(MODEL, profile(name))
    assert store.tasks(MODEL) == tuple(sorted(names))
    assert [store.get(MODEL, name).task for name in names] == names
    (tmp_path / MODEL / "somebody's copy.gguf").touch()
    assert store.tasks(MODEL) == tuple(sorted(names))
    assert store.tasks("b" * 64) == ()
    assert sorted(path.parent for path in tmp_path.rglob("*.gguf")) == [tmp_path / MODEL] * 6


@pytest.mark.parametrize("name", ["", " ", "a ", ".hidden", "..", "a\nb", "a\x1b[0m", "x" * 201, "ü" * 100])
def test_names_that_cannot_be_stored_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="task"):
        ProfileStore(tmp_path).get(MODEL, name)


def test_a_later_profile_replaces_the_earlier(tmp_path: Path) -> None:
    store = ProfileStore(tmp_path)
    store.put(MODEL, profile())
    store.put(MODEL, profile(tokens=9))
    assert store.get(MODEL, "sums").tokens == 9


def test_a_missing_task_names_the_profiled_ones(tmp_path: Path) -> None:
    store = ProfileStore(tmp_path)
    with pytest.raises(NotFound) as none:
        store.get(MODEL, "sums")
    assert none.value.hint == "make one: dsr experts profile MODEL --task NAME"
    store.put(MODEL, profile("words"))
    store.put(MODEL, profile("dates"))
    with pytest.raises(NotFound, match="no profile of the task 'sums'") as other:
        store.get(MODEL, "sums")
    assert other.value.hint == "it has: dates, words"


def test_a_profile_of_another_model_is_refused(tmp_path: Path) -> None:
    store = ProfileStore(tmp_path)
    copied = store.path(MODEL, "sums")
    copied.parent.mkdir(parents=True)
    copied.write_bytes(encode_profile(profile(), "b" * 64))
    with pytest.raises(Incompatible, match="a profile of another model"):
        store.get(MODEL, "sums")
    copied.write_bytes(encode_profile(profile("words"), MODEL))
    with pytest.raises(BadModelFile, match="of the task 'words'"):
        store.get(MODEL, "sums")


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path = model(tmp_path / "m.gguf")
    with pytest.raises(Incompatible, match="not an expert profile"):
        read_profile(path)


@pytest.mark.parametrize(
    "change",
    [
        {"routing": {1: routing(1, 2), 2: routing(1, 2, 3)}},
        {"routing": {}},
        {"active": 5},
        {"tokens": 0},
        {"keys": np.zeros(3, np.float32)},
    ],
)
def test_an_invalid_profile_cannot_be_made(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        profile(**change)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_an_error_of_ours_or_still_a_profile(data: st.DataObject, tmp_path: Path) -> None:
    whole = bytearray(encode_profile(profile(), MODEL))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(whole[: data.draw(st.integers(len(whole) // 2, len(whole)))])
    try:
        found, _ = read_profile(path)
    except DsrError:
        return
    assert all(np.isfinite(values).all() for each in found.routing.values() for _, values in each.items())
    assert np.isfinite(found.keys).all()


@pytest.mark.parametrize(
    ("statistic", "value"), [("selected", -1), ("weight", float("nan")), ("top_logit", float("inf"))]
)
def test_numbers_that_no_router_gives_are_refused(statistic: str, value: float, tmp_path: Path) -> None:
    bad = routing(1, 2, 3)
    getattr(bad, statistic)[1] = value
    path = tmp_path / "bad.gguf"
    path.write_bytes(encode_profile(profile(routing={1: bad}), MODEL))
    with pytest.raises(BadModelFile, match="layer 1"):
        read_profile(path)


def test_a_full_disk_leaves_the_earlier_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ProfileStore(tmp_path)
    store.put(MODEL, profile())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(profiles, "write_atomically", full)
    with pytest.raises(DoesNotFit, match="the disk is full"):
        store.put(MODEL, profile(tokens=9))
    assert store.get(MODEL, "sums").tokens == 4


def test_quantizations_of_a_model_have_one_digest_and_other_models_others(tmp_path: Path) -> None:
    digests = [
        router_digest(model(tmp_path / "a.gguf", experts=4)),
        router_digest(model(tmp_path / "b.gguf", experts=4, type="BF16")),
        router_digest(model(tmp_path / "c.gguf", experts=4, seed=1)),
        router_digest(model(tmp_path / "d.gguf", experts=4, layers=3)),
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_the_digest_of_the_embedded_model_is_that_of_its_routers(nano_path: Path) -> None:
    # The same as of its BF16 and F16 files.
    assert router_digest(nano_path) == router_digest(read_card(nano_path))
    assert router_digest(nano_path).startswith("205f08697755c4c5")
    assert routed_layers(read_card(nano_path)) == (1, 2, 3)


def test_a_dense_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Incompatible, match="is a dense model: it has no experts"):
        router_digest(model(tmp_path / "dense.gguf"))
