from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.base.common_prefix import common_length
from runtime.engine.backend import Checkpoint
from runtime.engine.prefix_tree import PrefixTree


def test_a_fork_shares_the_cells_of_its_source() -> None:
    tree = PrefixTree()
    tree.append(0, [1, 2, 3])
    tree.fork(0, 1)
    tree.append(0, [4])
    tree.append(1, [5, 6])
    assert (tree.tokens(0), tree.tokens(1)) == ((1, 2, 3, 4), (1, 2, 3, 5, 6))
    assert tree.used == 6
    assert tree.cells({0}) == 4
    assert tree.cells({0, 1}) == 6


def test_the_same_tokens_read_apart_are_two_runs() -> None:
    tree = PrefixTree()
    tree.append(0, [1, 2])
    tree.append(1, [1, 2])
    assert tree.used == 4


def test_cells_are_free_when_nobody_holds_them() -> None:
    tree = PrefixTree()
    tree.append(0, [1, 2, 3])
    tree.fork(0, 1)
    tree.append(1, [4])
    tree.truncate(0, 1)
    assert (tree.used, tree.tokens(0), tree.tokens(1)) == (4, (1,), (1, 2, 3, 4))
    tree.truncate(1, 0)
    assert (tree.used, tree.length(0), tree.length(1)) == (1, 1, 0)


def test_the_common_beginning_with_each_sequence() -> None:
    tree = PrefixTree()
    tree.append(0, [1, 2, 3, 4])
    tree.fork(0, 1)
    tree.truncate(1, 2)
    tree.append(1, [7])
    tree.append(2, [9])
    assert tree.common([1, 2, 3, 9]) == {0: 3, 1: 2}
    assert tree.common([1, 2, 7, 8]) == {0: 2, 1: 3}
    assert tree.common([9, 9]) == {2: 1}
    assert tree.common([]) == {}


def test_a_checkpoint_lives_as_long_as_its_last_cell() -> None:
    tree = PrefixTree()
    tree.append(0, [1, 2, 3])
    two, three = Checkpoint(2, 8, "two"), Checkpoint(3, 8, "three")
    tree.add_checkpoint(0, two)
    tree.add_checkpoint(0, three)
    tree.fork(0, 1)
    tree.truncate(0, 2)
    assert tree.checkpoints(0) == {2: two}
    assert tree.checkpoints(1) == {2: two, 3: three}
    tree.truncate(1, 2)
    assert tree.all_checkpoints() == [two]
    tree.drop_checkpoint(two)
    assert tree.all_checkpoints() == []


appending = st.tuples(st.just("append"), st.integers(0, 3), st.lists(st.integers(0, 1), max_size=4))
forking = st.tuples(st.just("fork"), st.integers(0, 3), st.integers(0, 3))
truncating = st.tuples(st.just("truncate"), st.integers(0, 3), st.integers(0, 6))


@given(st.lists(st.one_of(appending, forking, truncating), max_size=30), st.lists(st.integers(0, 1), max_size=8))
def test_it_is_what_lists_of_cells_would_be(actions: list[tuple[object, ...]], text: list[int]) -> None:
    tree, cells, numbered = PrefixTree(), {n: list[tuple[int, int]]() for n in range(4)}, 0
    for action in actions:
        match action:
            case ("append", int(one), list(tokens)):
                tree.append(one, tokens)
                for token in tokens:
                    numbered += 1
                    cells[one].append((numbered, token))
            case ("fork", int(source), int(target)) if source != target:
                tree.fork(source, target)
                cells[target] = [*cells[source]]
            case ("truncate", int(one), int(length)):
                tree.truncate(one, length)
                del cells[one][length:]
    for one, held in cells.items():
        tokens = [token for _, token in held]
        assert (list(tree.tokens(one)), tree.length(one)) == (tokens, len(tokens))
        assert tree.common(text).get(one, 0) == common_length(tokens, text)
    assert tree.used == len({cell for held in cells.values() for cell in held})
    assert tree.cells({0, 2}) == len({*cells[0], *cells[2]})
