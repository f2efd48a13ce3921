"""The JSON of the API, of every wrong type."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.hub.answers import add_tree, read_names, read_repo
from dsr.hub.limits import NotUnderstood

COMMIT = "a" * 40
SHA256 = "b" * 64
BLOB = "c" * 40


def file(path: Any = "m.gguf", **more: Any) -> dict[str, Any]:
    return {"rfilename": path, "size": 3, "blobId": BLOB, **more}


def repo(*files: Any, **more: Any) -> bytes:
    return json.dumps({"id": "org/m", "sha": COMMIT, "siblings": list(files), **more}).encode()


def why(body: bytes) -> str:
    with pytest.raises(NotUnderstood) as caught:
        read_repo(body)
    return caught.value.why


def test_a_large_file_has_the_size_and_sha256_of_its_content_and_a_small_one_its_blob_id() -> None:
    lfs = {"sha256": SHA256, "size": 5_000_000_000, "pointerSize": 135}
    answer = read_repo(repo(file(size=5_000_000_000, lfs=lfs), file("README.md", size=0)))
    assert answer.name == "org/m" and answer.commit == COMMIT
    assert answer.sizes == {"m.gguf": 5_000_000_000, "README.md": 0}
    assert answer.digests == {"m.gguf": SHA256, "README.md": BLOB}


def test_a_repository_without_files_and_a_file_without_digest_are_read() -> None:
    assert read_repo(repo()).sizes == {}
    assert read_repo(json.dumps({"sha": COMMIT}).encode()).name is None
    assert read_repo(json.dumps({"sha": COMMIT, "siblings": None}).encode()).sizes == {}
    assert read_repo(repo(file(blobId=None), file("x", lfs={"size": 1}))).digests == {"m.gguf": None, "x": None}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "it is empty"),
        (b"<html>Hotel</html>", "it is not JSON, and begins with '<html>Hotel</html>'"),
        (b"\xff\xfe\x00", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b'{"sha": ' + b"9" * 5000 + b"}", "it is not JSON"),
        (b"[]", "it is a list, not an object"),
        (b"null", "it is missing, not an object"),
        (b'"text"', "it is text, not an object"),
        (b"[" + b"[]," * 1_100_000 + b"[]]", "more than 1000000 values"),
        (repo(id=7), "the repository's name is a number, not text"),
        (repo(sha=None), "the commit is missing, not text"),
        (repo(sha="main"), "the commit is 'main'"),
        (repo(sha=COMMIT + "\n"), "the commit is"),
        (repo(siblings={"a": 1}), "its files are an object, not a list"),
        (repo(siblings=[*map(file, map(str, range(100_001)))]), "it lists more than 100000 files"),
        (repo([]), "a file is a list, not an object"),
        (repo(None), "a file is missing, not an object"),
        (repo(file(7)), "a file's name is a number, not text"),
        (repo(file(None)), "a file's name is missing, not text"),
        (repo(file("")), "an unsafe file name: ''"),
        (repo(file("../m.gguf")), "an unsafe file name: '../m.gguf'"),
        (repo(file("a/../../m")), "an unsafe file name"),
        (repo(file("/etc/passwd")), "an unsafe file name: '/etc/passwd'"),
        (repo(file("a\0b")), "a file's name is not text: 'a\\x00b'"),
        (repo(file("x" * 10_000)), "a file's name has 10000 characters: 'xxx"),
        (b'{"sha": "%s", "siblings": [{"rfilename": "\\ud800", "size": 1}]}' % COMMIT.encode(), "is not text"),
        (repo(file(), file()), "it lists 'm.gguf' twice"),
        (repo(file(size=None)), "the size of 'm.gguf' is missing, not a whole number"),
        (repo(file(size="3")), "the size of 'm.gguf' is text, not a whole number"),
        (repo(file(size=True)), "the size of 'm.gguf' is true or false, not a whole number"),
        (repo(file(size=3.5)), "the size of 'm.gguf' is a number, not a whole number"),
        (repo(file(size=-1)), "the size of 'm.gguf' is -1"),
        (repo(file(size=10**30)), "the size of 'm.gguf' is 1000000"),
        (repo(file(size=float("inf"))), "not a whole number"),
        (repo(file(blobId="main")), "the blob id of 'm.gguf' is 'main'"),
        (repo(file(blobId=[BLOB])), "the blob id of 'm.gguf' is a list, not text"),
        (repo(file(lfs=[])), "the LFS entry of 'm.gguf' is a list, not an object"),
        (repo(file(lfs={"sha256": "b" * 63, "size": 1})), "the SHA-256 of 'm.gguf' is 'bbb"),
        (repo(file(lfs={"sha256": 7, "size": 1})), "the SHA-256 of 'm.gguf' is a number, not text"),
        (repo(file(lfs={"sha256": SHA256})), "the size of 'm.gguf' is missing"),
    ],
)  # fmt: skip
def test_an_answer_of_another_form_is_named(body: bytes, said: str) -> None:
    assert said in why(body) and len(why(body)) < 200


def test_names_that_only_some_systems_cannot_hold_are_judged_when_they_are_chosen() -> None:
    assert set(read_repo(repo(file("aux.txt"), file("a?b"), file("A"), file("a"))).sizes) == {
        "aux.txt",
        "a?b",
        "A",
        "a",
    }


def test_a_page_of_a_tree_adds_its_files() -> None:
    sizes: dict[str, int] = {}
    digests: dict[str, str | None] = {}
    page = [
        {"type": "directory", "oid": BLOB, "size": 0, "path": "sub"},
        {"type": "file", "oid": BLOB, "size": 3, "path": "sub/a.json"},
        {
            "type": "file",
            "oid": BLOB,
            "size": 9,
            "path": "m.gguf",
            "lfs": {"oid": SHA256, "size": 9},
            "xetHash": SHA256,
        },
    ]
    add_tree(json.dumps(page).encode(), sizes, digests)
    assert sizes == {"sub/a.json": 3, "m.gguf": 9} and digests == {"sub/a.json": BLOB, "m.gguf": SHA256}
    for again, said in ((page, "lists 'sub/a.json' twice"), ({}, "an object, not a list"), ([7], "a number")):
        with pytest.raises(NotUnderstood, match=said):
            add_tree(json.dumps(again).encode(), sizes, digests)


def test_the_names_of_a_search_are_read() -> None:
    body = json.dumps([{"id": "org/a"}, {"id": 7}, {}, None, {"id": "org/b"}]).encode()
    assert read_names(body) == ["org/a", "org/b"]
    for other in (b"{}", b"7", b""):
        with pytest.raises(NotUnderstood):
            read_names(other)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.data())
def test_no_value_in_any_place_is_anything_but_read_or_named(data: st.DataObject) -> None:
    lfs = {"sha256": SHA256, "size": 3, "pointerSize": 9}
    answer: dict[str, Any] = {"id": "org/m", "sha": COMMIT, "siblings": [file(lfs=lfs), file("b")]}
    places = [answer, answer["siblings"][0], lfs, answer["siblings"][1]]
    place = data.draw(st.sampled_from(places))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
    try:
        read = read_repo(json.dumps(answer).encode())
    except NotUnderstood as error:
        assert "\n" not in error.message
        return
    assert all(isinstance(path, str) and size >= 0 for path, size in read.sizes.items())
    assert read.sizes.keys() == read.digests.keys()


@given(st.binary(max_size=200))
def test_no_bytes_are_anything_but_read_or_named(body: bytes) -> None:
    for reader in (read_repo, read_names):
        with contextlib.suppress(NotUnderstood):
            reader(body)
