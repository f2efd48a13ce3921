"""Collecting second moments of the embedded model, and how texts become sequences."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from quant.measure import moments as collecting
from quant.measure import texts
from quant.measure.calibrate import collect
from quant.measure.chunks import ChunkOptions, Text
from quant.measure.graph_cuts import Cut, Graph
from quant.measure.moments import collect_moments, sequences
from quant.measure.texts import CALIBRATION
from quant.round.moments import read_complete
from runtime.base.errors import Aborted, BadModelFile, DoesNotFit, UsageError
from runtime.base.events import Event, Notice, Progress
from runtime.base.run import Run, Stop
from runtime.gguf.reader import read_card

ONE = Run(threads=1)
PROBLEMS = Path(texts.__file__).parent / "calibration" / "problems.txt"


class Letters:
    """A tokenizer with a token for each letter."""

    first_token = 1

    def tokenize(self, text: str, *, add_bos: bool = False) -> list[int]:
        return [1] * add_bos + [ord(letter) for letter in text]


def test_a_conversation_is_a_sequence_of_its_own() -> None:
    texts = [Text("a", "x" * 20), Text("b", "y" * 40), Text("c", "z" * 5)]
    found = sequences(Letters(), texts, 32)
    assert [len(each) for each in found] == [21, 32]  # the rest of the second, 9 tokens, and the third are too short
    assert found[1][:2] == (1, ord("y"))
    assert len(sequences(Letters(), [Text("d", "x" * 500)], 32, 50)) == 2
    several = "x" * 20 + "\x01" + "y" * 30  # the letter 1 is the first token
    assert [(len(each), each[0]) for each in sequences(Letters(), [Text("e", several)], 64)] == [
        (21, 1),
        (31, 1),
    ]
    with pytest.raises(UsageError, match="fewer than 16 tokens"):
        sequences(Letters(), [Text("c", "z")], 32)


def nano_texts(nano_path: Path, count: int) -> list[Text]:
    return list(CALIBRATION.each_for_model(read_card(nano_path))[:count])


def test_the_diagonals_are_the_importance_matrix(nano_path: Path, tmp_path: Path) -> None:
    text = [Text(PROBLEMS.name, PROBLEMS.read_text(encoding="utf-8"))]
    options = ChunkOptions(64, 3)
    moments = collect_moments(nano_path, "nano", text, tmp_path, ONE, context=64, memory=1 << 30, most=192)
    matrix = collect(nano_path, text, options, Run(threads=1))
    found = moments.diagonals()
    assert set(found) - set(matrix.entries) == {"output.weight"}
    assert set(matrix.entries) <= set(found)
    assert moments.index.tokens == 192
    for name, entry in matrix.entries.items():
        sums, counts = found[name]
        assert np.broadcast_to(entry.counts, counts.shape).tolist() == counts.tolist()
        assert np.allclose(sums, entry.sums, rtol=1e-3, atol=1e-3 * entry.sums.max())


def test_little_memory_gives_the_same_moments(nano_path: Path, tmp_path: Path) -> None:
    texts = nano_texts(nano_path, 2)
    whole, parts = (
        collect_moments(nano_path, "nano", texts, tmp_path / str(memory), ONE, context=512, memory=memory)
        for memory in (1 << 30, 3 << 20)
    )
    assert len(parts.index.parts) > len(whole.index.parts)
    ours, theirs = whole.diagonals(), parts.diagonals()
    assert set(ours) == set(theirs)
    for name, (sums, counts) in ours.items():
        assert np.array_equal(sums, theirs[name][0])
        assert np.array_equal(counts, theirs[name][1])


def test_the_number_of_threads_changes_no_moment(nano_path: Path, tmp_path: Path) -> None:
    texts = nano_texts(nano_path, 2)
    one, two = (
        collect_moments(
            nano_path, "nano", texts, tmp_path / str(threads), Run(threads=threads), context=512, memory=1 << 30
        )
        for threads in (1, 2)
    )
    for part in one.index.parts:
        assert (one.folder / part.file).read_bytes() == (two.folder / part.file).read_bytes()


def test_a_stopped_collection_continues(nano_path: Path, tmp_path: Path) -> None:
    texts, stop = nano_texts(nano_path, 2), Stop()

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.unit == "tokens" and event.done >= event.total / 2:
            stop.set()

    def run(run: Run, folder: Path) -> bytes:
        made = collect_moments(nano_path, "nano", texts, folder, run, context=512, memory=5 << 20)
        return b"".join((folder / part.file).read_bytes() for part in made.index.parts)

    with pytest.raises(Aborted):
        run(Run(stop, listen, threads=1), tmp_path / "one")
    assert list((tmp_path / "one").glob("*.npy"))
    assert run(Run(threads=1), tmp_path / "one") == run(Run(threads=1), tmp_path / "two")
    read_complete(tmp_path / "one")


def test_a_full_disk_is_told_before_the_text_is_read(
    nano_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    with pytest.raises(DoesNotFit, match=r"the second moments need 34\.1 MiB, and 1\.00 MiB are free"):
        collect_moments(nano_path, "nano", nano_texts(nano_path, 2), tmp_path, ONE, context=512, memory=1 << 30)
    assert not list(tmp_path.glob("*.npy"))


def content(folder: Path) -> dict[tuple[str, int], bytes]:
    """The moments of each slice."""
    moments = read_complete(folder)
    found = {}
    for part in moments.index.parts:
        sums = np.load(folder / part.file)
        for name in part.weights:
            found |= {(name, part.first + place): each.tobytes() for place, each in enumerate(sums)}
    return found


def progressed(nano_path: Path, folder: Path, memory: int) -> list[Event]:
    heard: list[Event] = []
    run = Run(listen=heard.append, threads=1)
    collect_moments(nano_path, "nano", nano_texts(nano_path, 3), folder, run, context=512, memory=memory)
    return [event for event in heard if isinstance(event, Notice) or getattr(event, "unit", "") == "tokens"]


def test_groups_compute_from_hidden_states_what_the_whole_model_computes(
    nano_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str | None] = []
    planned = collecting.planned

    def noting(*given: Any) -> Any:
        groups = planned(*given)
        started.extend(group.start.name if group.start else None for group in groups)
        return groups

    monkeypatch.setattr(collecting, "planned", noting)
    progressed(nano_path, tmp_path / "whole", 1 << 30)
    assert started == [None]
    progressed(nano_path, tmp_path / "groups", 3 << 20)
    assert started[1:4] == [None, "ffn_inp-0", "ffn_inp-1"]
    assert None not in started[2:]
    assert content(tmp_path / "groups") == content(tmp_path / "whole")
    assert not list((tmp_path / "groups").glob("hidden*"))


def test_a_graph_that_cannot_be_cut_reads_the_text_for_each_group(
    nano_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progressed(nano_path, tmp_path / "whole", 1 << 30)
    best = Graph.best
    for name, cut in (
        ("none", lambda *_: None),
        ("late", lambda graph, *given: best(graph, *given) if given[1] > 100 else None),
    ):
        monkeypatch.setattr(Graph, "best", cut)
        heard = progressed(nano_path, tmp_path / name, 5 << 20)
        assert content(tmp_path / name) == content(tmp_path / "whole")
        assert not [event for event in heard if isinstance(event, Notice)]


def test_hidden_states_that_lead_elsewhere_are_noticed(
    nano_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progressed(nano_path, tmp_path / "whole", 1 << 30)
    monkeypatch.setattr("quant.measure.cut_check.WholePass.content", lambda *_: io.BytesIO(b"\x01" * (1 << 20)))
    heard = progressed(nano_path, tmp_path / "groups", 12 << 20)
    (notice,) = [event for event in heard if isinstance(event, Notice)]
    assert "so the text is read for each group of layers" in notice.text
    assert content(tmp_path / "groups") == content(tmp_path / "whole")


def test_a_killed_group_continues_from_its_hidden_states(
    nano_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, stop, memory = nano_texts(nano_path, 2), Stop(), 3 << 20
    folder = tmp_path / "one"
    collect_moments(nano_path, "nano", texts, tmp_path / "two", ONE, context=512, memory=memory)

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.unit == "tokens" and event.done >= event.total / 2:
            stop.set()

    with pytest.raises(Aborted):
        collect_moments(nano_path, "nano", texts, folder, Run(stop, listen, threads=1), context=512, memory=memory)
    assert len(list(folder.glob("hidden-*.bin"))) == 1
    other = folder / "hidden-9-0123456789abcdef.bin"  # of other work
    other.write_bytes(b"1234")
    starts: list[Cut | None] = []
    planned = collecting.planned

    def noting(*given: Any) -> Any:
        groups = planned(*given)
        starts.append(groups[0].start)
        return groups

    monkeypatch.setattr(collecting, "planned", noting)
    heard: list[Event] = []
    collect_moments(nano_path, "nano", texts, folder, Run(listen=heard.append, threads=1), context=512, memory=memory)
    assert [event.text for event in heard if isinstance(event, Notice)] == [f"{folder}: continuing"]
    assert [start.name for start in starts if start] == ["ffn_inp-2"]
    assert not other.exists()
    assert content(folder) == content(tmp_path / "two")
    assert not list(folder.glob("hidden*"))


def test_hidden_states_that_were_cut_are_refused(nano_path: Path, tmp_path: Path) -> None:
    texts, stop, memory = nano_texts(nano_path, 2), Stop(), 3 << 20

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.unit == "tokens" and event.done >= event.total / 2:
            stop.set()

    with pytest.raises(Aborted):
        collect_moments(nano_path, "nano", texts, tmp_path, Run(stop, listen, threads=1), context=512, memory=memory)
    (hidden,) = tmp_path.glob("hidden-*.bin")
    hidden.write_bytes(hidden.read_bytes()[:-5])
    with pytest.raises(BadModelFile, match=r"hidden-\d+-[0-9a-f]{16}\.bin"):
        collect_moments(nano_path, "nano", texts, tmp_path, ONE, context=512, memory=memory)


def test_hidden_states_of_another_text_are_not_used(nano_path: Path, tmp_path: Path) -> None:
    stop, memory = Stop(), 3 << 20

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.unit == "tokens" and event.done >= event.total / 2:
            stop.set()

    def collect(texts: list[Text], run: Run, folder: str) -> None:
        collect_moments(nano_path, "nano", texts, tmp_path / folder, run, context=512, memory=memory)

    with pytest.raises(Aborted):
        collect(nano_texts(nano_path, 2), Run(stop, listen, threads=1), "one")
    collect(nano_texts(nano_path, 3), ONE, "one")
    collect(nano_texts(nano_path, 3), ONE, "two")
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_mapped_weights_give_the_same_moments(nano_path: Path, tmp_path: Path) -> None:
    texts = nano_texts(nano_path, 2)
    for name, mapped in (("plain", False), ("mapped", True)):
        folder = tmp_path / name
        collect_moments(nano_path, "nano", texts, folder, ONE, context=512, memory=3 << 20, mapped=mapped)
    assert content(tmp_path / "plain") == content(tmp_path / "mapped")


def test_room_is_made_for_all_moments(nano_path: Path, tmp_path: Path) -> None:
    asked: list[int] = []
    texts = nano_texts(nano_path, 2)
    made = collect_moments(nano_path, "nano", texts, tmp_path, ONE, context=512, memory=1 << 30, make_room=asked.append)
    assert asked == [sum(4 * len(part.counts) * part.columns**2 for part in made.index.parts)]
