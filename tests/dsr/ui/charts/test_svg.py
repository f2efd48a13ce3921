"""What all pictures share."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsr.ui.charts.svg import check_path
from runtime.base.errors import UsageError


@pytest.mark.parametrize("name", ["plot.png", "plot.pdf", "plot"])
def test_other_formats_than_svg_are_refused(name: str) -> None:
    with pytest.raises(UsageError) as raised:
        check_path(Path(name))
    assert raised.value.message == f"{name}: a plot is written as SVG only"
    assert raised.value.hint == "--plot FILE.svg"


def test_svg_is_accepted_in_any_case() -> None:
    check_path(Path("plot.SVG"))
