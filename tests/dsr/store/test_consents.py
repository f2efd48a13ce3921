"""Tools that were allowed for good."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsr.store.consents import Consent, Consents
from runtime.base.errors import DsrError, VerificationFailed

ONE = Consent("id1", "now", "time_now", "uvx time", "2026-11-30")
OTHER = Consent("id2", "now", "time_now", "other time", "2026-11-30")


def test_consents_are_remembered_per_server_and_tool(tmp_path: Path) -> None:
    consents = Consents(tmp_path / "settings" / "allowed.json")
    assert consents.all() == ()
    consents.add(ONE)
    consents.add(ONE)
    assert Consents(consents.path).all() == (ONE,)
    assert consents.has("id1", "now")
    assert not consents.has("id2", "now")
    assert not consents.has("id1", "then")
    assert consents.path.stat().st_mode & 0o777 == 0o600


def test_a_name_is_forgotten_for_every_server(tmp_path: Path) -> None:
    consents = Consents(tmp_path / "allowed.json")
    consents.add(ONE)
    consents.add(OTHER)
    assert consents.forget("nothing") == ()
    assert consents.forget("time_now") == (ONE, OTHER)
    assert consents.all() == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"schema": "dsr.allowed-tools/2", "allowed": []}',
        '{"schema": "dsr.allowed-tools/1", "allowed": [{}]}',
    ],
)
def test_a_damaged_file_allows_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "allowed.json"
    path.write_text(text)
    with pytest.raises(VerificationFailed, match="is damaged, or is not a list of allowed tools"):
        Consents(path).has("id1", "now")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DsrError, match="cannot be"):
        Consents(tmp_path / "file" / "allowed.json").add(ONE)
