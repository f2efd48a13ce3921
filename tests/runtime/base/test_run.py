"""What passes through all long work."""

from __future__ import annotations

import pytest

from runtime.base.errors import UsageError
from runtime.base.run import Run


@pytest.mark.parametrize("threads", [None, 1, 512])
def test_a_number_of_threads_that_machines_have(threads: int | None) -> None:
    assert Run(threads=threads).threads == threads


@pytest.mark.parametrize("threads", [-1, 0, 513, 100_000, 2**40])
def test_other_numbers_of_threads_are_refused(threads: int) -> None:
    """The engine ends the process where the system cannot start them."""
    with pytest.raises(UsageError, match=f"between 1 and 512 threads can be used, not {threads}"):
        Run(threads=threads)
