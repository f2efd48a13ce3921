from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from runtime.engine.text_streams import StopStrings, UTF8Pieces


def test_half_characters_wait_for_their_other_half() -> None:
    pieces = UTF8Pieces()
    assert pieces.feed("aé".encode()[:2]) == "a"
    assert not pieces.at_boundary
    assert pieces.feed("é".encode()[1:]) == "é"
    assert pieces.at_boundary
    assert pieces.feed(b"\xe2\x82") == ""
    assert pieces.finish() == "\ufffd"
    assert UTF8Pieces().feed(b"\xff!") == "\ufffd!"


@given(st.text(max_size=20), st.sets(st.integers(0, 80)))
def test_any_cut_of_utf8_gives_the_same_text(text: str, cuts: set[int]) -> None:
    data, pieces, out = text.encode(), UTF8Pieces(), ""
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for a, b in pairwise(edges):
        out += pieces.feed(data[a:b])
        assert out == data[:b].decode(errors="ignore")
        assert pieces.at_boundary == (len(out.encode()) == b)
    assert out + pieces.finish() == text


def test_a_stop_string_ends_the_stream_before_it() -> None:
    stops = StopStrings(("END", "\n\n"))
    assert stops.feed("a\n") == ("a", False)
    assert stops.feed("bE") == ("\nb", False)
    assert stops.met == ""
    assert stops.feed("NDc") == ("", True)
    assert stops.met == "END"
    assert stops.feed("more") == ("", True)
    assert stops.finish() == ""


def test_what_only_looked_like_a_stop_string_comes_out() -> None:
    stops = StopStrings(("END",))
    assert stops.feed("EN") == ("", False)
    assert stops.finish() == "EN"
    assert StopStrings(()).feed("EN") == ("EN", False)


@given(
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
    st.lists(st.text("abc", max_size=4), max_size=8),
)
def test_stop_strings_do_not_depend_on_the_cuts(stops: list[str], pieces: list[str]) -> None:
    def run(cut: list[str]) -> tuple[str, bool, str]:
        stream, out = StopStrings(stops), ""
        for piece in cut:
            text, stopped = stream.feed(piece)
            out += text
            if stopped:
                return out, True, stream.met
        return out + stream.finish(), False, stream.met

    text = "".join(pieces)
    out, stopped, met = run(pieces)
    assert (out, stopped, met) == run([text]) == run(list(text))
    assert (met in stops) == stopped and text.startswith(out + met)
    assert text.startswith(out)
    assert stopped == any(stop in text for stop in stops)
    assert not any(stop in out for stop in stops)
