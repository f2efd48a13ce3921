"""Where a graph can be cut: literal graphs of a few nodes."""

from __future__ import annotations

from collections.abc import Sequence

from quant.measure.graph_cuts import Graph, Lightness, Step

WEIGHT, TOKENS, CACHE = 100, 101, 102  # tensors that are no nodes


class Steps:
    """Makes the nodes of a graph; the identity of a node is its number."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def add(
        self, name: str, reads: Sequence[int], operation: str = "ADD", *, root: int | None = None, size: int = 10
    ) -> int:
        number = len(self.steps)
        work = 1000 if operation == "MUL_MAT" else 0
        own = number if root is None else root
        self.steps.append(Step(name, operation, number, own, tuple(reads), size, work))
        return number

    def layer(self, number: int, x: int, *, cache: int = CACHE) -> int:
        """A layer that writes a cache and reads it: six nodes."""
        key = self.add(f"key-{number}", [WEIGHT, x], "MUL_MAT")
        self.add(f"cache-{number}", [key], "SET_ROWS", root=cache)
        attended = self.add(f"attention-{number}", [key, cache], "FLASH_ATTN_EXT")
        middle = self.add(f"middle-{number}", [attended, x])
        up = self.add(f"up-{number}", [WEIGHT, middle], "MUL_MAT")
        return self.add(f"out-{number}", [up, middle])


def two_layers(*, second_cache: int = CACHE + 1) -> Graph:
    steps = Steps()
    embedding = steps.add("embedding", [TOKENS], "GET_ROWS")
    first = steps.layer(0, embedding)
    last = steps.layer(1, first, cache=second_cache)
    steps.add("result", [last])
    return Graph(steps.steps)


def test_a_graph_is_cut_behind_a_layer() -> None:
    graph = two_layers()
    assert [step.name for step in graph.steps[6:8]] == ["out-0", "key-1"]
    cut = graph.best(0, 7)
    assert cut is not None
    assert (cut.index, cut.name, cut.kept, cut.size) == (6, "out-0", ("out-0",), 10)


def test_within_a_layer_everything_that_later_nodes_read_is_kept() -> None:
    cut = two_layers().cut(5)
    assert (cut.name, cut.kept, cut.size) == ("up-0", ("middle-0", "up-0"), 20)


def test_nothing_is_kept_that_needs_no_weights() -> None:
    steps = Steps()
    mask = steps.add("mask", [TOKENS], "CPY")
    embedding = steps.add("embedding", [TOKENS], "GET_ROWS")
    first = steps.add("first", [WEIGHT, embedding], "MUL_MAT")
    steps.add("second", [WEIGHT, first, mask, embedding], "MUL_MAT")
    cut = Graph(steps.steps).best(0, 3)
    assert cut is not None
    assert cut.kept == ("first",)


def test_a_place_between_the_uses_of_a_cache_is_no_cut() -> None:
    graph = two_layers()
    assert graph.best(2, 3) is None  # between writing the cache and reading it
    assert two_layers(second_cache=CACHE).best(4, 7) is None  # the second layer reads the cache of the first one


def test_a_changed_value_is_kept_although_it_began_as_a_light_one() -> None:
    steps = Steps()
    embedding = steps.add("embedding", [TOKENS], "GET_ROWS")
    product = steps.add("product", [WEIGHT, embedding], "MUL_MAT")
    steps.add("changed", [product, embedding], root=embedding)  # in place
    steps.add("end", [WEIGHT, embedding], "MUL_MAT")
    cut = Graph(steps.steps).best(0, 3)
    assert cut is not None
    assert (cut.name, cut.kept) == ("changed", ("embedding",))


def test_a_value_without_a_name_of_its_own_is_no_place_for_a_cut() -> None:
    for name in ("node_1", "", "twice"):  # numbers change with the length of the text
        steps = Steps()
        embedding = steps.add("embedding", [TOKENS], "GET_ROWS")
        first = steps.add(name, [WEIGHT, embedding], "MUL_MAT")
        view = steps.add("view", [first], "RESHAPE", root=first)
        second = steps.add("twice", [WEIGHT, view], "MUL_MAT")
        steps.add("end", [WEIGHT, second], "MUL_MAT")
        assert Graph(steps.steps).best(0, 3) is None
    assert two_layers().best(0, 0) is None


def test_a_part_ends_behind_the_caches_that_it_uses() -> None:
    graph = two_layers()
    assert graph.end(1) is None  # the product itself
    assert graph.end(2) == "attention-0"
    assert graph.end(5) is None


def test_nodes_that_depend_on_products_are_not_light() -> None:
    lightness = Lightness()
    assert lightness.is_light("GET_ROWS", 0, (TOKENS,))
    assert not lightness.is_light("MUL_MAT", 1, (WEIGHT, 0))
    assert not lightness.is_light("ADD", 2, (0, 1))
    assert lightness.is_light("VIEW", CACHE, (CACHE,))  # what is there from earlier passes
    assert not lightness.is_light("SET_ROWS", CACHE, (2,))
    assert not lightness.is_light("VIEW", CACHE, (CACHE,))
    assert lightness.is_light("ADD", 4, (0,))


def test_a_state_that_is_only_taken_before_the_cut_is_computed_behind_it() -> None:
    """As in Mamba: the state of the next layer is taken before the end of this one."""
    steps = Steps()
    embedding = steps.add("embedding", [TOKENS], "GET_ROWS")
    first = steps.add("first", [WEIGHT, embedding], "MUL_MAT")
    steps.add("cleared", [CACHE], "SCALE", root=CACHE)
    state = steps.add("node_3", [CACHE], "GET_ROWS")
    end = steps.add("end-0", [first, embedding])
    used = steps.add("used", [state, end])
    steps.add("kept", [used], "CPY", root=CACHE)
    steps.add("second", [WEIGHT, used], "MUL_MAT")
    graph = Graph(steps.steps)
    cut = graph.best(4, 6)
    assert cut is not None
    assert (cut.name, cut.kept) == ("end-0", ("end-0",))
    assert graph.best(5, 6) is None  # the state is used, and not kept yet


def test_the_digest_names_the_nodes() -> None:
    assert two_layers().digest == two_layers(second_cache=CACHE).digest
    assert two_layers().digest != Graph(two_layers().steps[:-1]).digest
