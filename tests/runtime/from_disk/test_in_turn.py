from runtime.from_disk.in_turn import InTurn


def test_the_layer_whose_turn_comes_last_is_worth_least() -> None:
    assert InTurn(4).worth(2).argsort(kind="stable").tolist() == [1, 0, 3, 2]
