"""What the tests of conversations share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dsr.chat.record import Record
from dsr.store import paths
from dsr.ui.console import Console


@pytest.fixture
def log() -> Iterator[Record]:
    """The record of a conversation that has begun."""
    with Record.open(paths.conversations_file(), Console()) as log:
        log.begin("fake:1b", "")
        yield log
