from __future__ import annotations

import pytest

from runtime.base.errors import DoesNotFit
from runtime.llama import address_space


def test_a_tight_limit_is_refused_before_the_engine_aborts() -> None:
    address_space.check(None)
    address_space.check(address_space.LEAST)
    with pytest.raises(DoesNotFit, match=r"195.3 MiB of address space.* needs at least 512.0 MiB") as caught:
        address_space.check(200_000 << 10)
    assert caught.value.hint == "raise the limit: ulimit -v unlimited"
