"""How many tokens of a prompt are computed together."""

import pytest

from runtime.from_disk.passes import most_tokens
from runtime.from_disk.units import FromDisk, Stack, Units

PAGE = 4096
UNIT = 2 * PAGE  # a slice of a page, which may begin within one
# Three layers with 8 experts, of which a token uses 2.
EXPERTS = Units((0, 1, 2), 8, tuple(Stack(f"{n}", n, 0, 0, PAGE, 8) for n in range(3)), routed=True)
LAYER = 8 * UNIT
DENSE = Units((0, 1, 2, 3), 1, tuple(Stack(f"{n}", n, 0, 0, PAGE, 1) for n in range(4)), routed=False)


@pytest.mark.parametrize(
    ("memory", "tokens"),
    [
        (2 * LAYER + 2048 * 100, 2048),  # beside two layers, so that one is read while the other computes
        (2 * LAYER + 2047 * 100, 2047),
        (2 * LAYER + 300 * 100, 512),  # usual passes leave the next layer to come later
        (LAYER + 300 * 100, 300),
        (LAYER, 3),  # the weights of one token are two units, and no router can choose more than 6 of them
        (2 * UNIT + 100, 1),
        (1, 1),
    ],
)
def test_experts_of_a_layer_have_room_beside_the_buffers(memory: int, tokens: int) -> None:
    assert most_tokens(EXPERTS, 2, FromDisk(memory, row_bytes=100), 2048) == tokens


def test_no_pass_is_longer_than_the_engine_was_opened_for() -> None:
    assert most_tokens(EXPERTS, 2, FromDisk(1 << 40), 512) == 512


def test_two_layers_of_a_dense_model_are_in_use_together() -> None:
    assert most_tokens(DENSE, 1, FromDisk(3 * UNIT + 1000 * 100, row_bytes=100), 2048) == 1000
    assert most_tokens(DENSE, 1, FromDisk(2 * UNIT + 560 * 100, row_bytes=100), 2048) == 512
    assert most_tokens(DENSE, 1, FromDisk(2 * UNIT + 5 * 100, row_bytes=100), 2048) == 5
    assert most_tokens(DENSE, 1, FromDisk(UNIT, row_bytes=100), 2048) == 1


def test_buffers_take_from_the_room_for_weights() -> None:
    assert FromDisk(1000, row_bytes=3).room(100) == 700
    assert FromDisk(1000).room(100) == 1000
