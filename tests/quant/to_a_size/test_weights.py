"""Groups of tensors, and their weights from probes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quant.sources.source import TensorSpec
from quant.to_a_size.weights import Group, Probe, fit, groups

A, B = Group("a", ("a1", "a2")), Group("b", ("b1",))


def test_groups_are_single_tensors_until_there_are_too_many() -> None:
    specs = [TensorSpec("token_embd.weight", (256, 64), "F16"), TensorSpec("output_norm.weight", (256,), "F32")]
    for layer in range(12):
        specs += [TensorSpec(f"blk.{layer}.{part}.weight", (256, 256), "F16") for part in ("attn_q", "ffn_up")]
    assert len(groups(specs, 25)) == 25
    thirds = groups(specs, 7)
    assert [group.name for group in thirds][:3] == ["token_embd.weight", "attn_q.weight 1/3", "ffn_up.weight 1/3"]
    assert thirds[1].tensors == tuple(f"blk.{layer}.attn_q.weight" for layer in range(4))
    assert len(groups(specs, 1)) == 3  # kinds are never mixed
    assert sorted(name for group in thirds for name in group.tensors) == sorted(
        spec.name for spec in specs if "norm" not in spec.name
    )


def test_a_group_that_was_probed_alone_has_the_weight_of_its_probe() -> None:
    found = fit((A, B), [Probe({"a1": 0.01, "a2": 0.03}, 0.2), Probe({"b1": 0.1}, 0.01)])
    assert found == {"a1": pytest.approx(5, rel=0.01), "a2": pytest.approx(5, rel=0.01), "b1": pytest.approx(0.1, 0.01)}


def test_probes_of_several_groups_are_solved_together() -> None:
    probes = [Probe({"a1": 0.01, "b1": 0.01}, 0.05), Probe({"a1": 0.01, "b1": 0.03}, 0.07)]
    found = fit((A, B), probes)
    assert (found["a1"], found["b1"]) == (pytest.approx(4, rel=0.02), pytest.approx(1, rel=0.02))


def test_a_group_that_no_probe_tells_of_is_like_the_others() -> None:
    found = fit((A, B), [Probe({"a1": 0.02}, 0.04), Probe({"b1": 0.0}, 0.0)])
    assert found["a1"] == found["b1"] == pytest.approx(2)
    assert fit((A, B), [Probe({"a1": 0.0}, 0.0)]) == {"a1": 1.0, "a2": 1.0, "b1": 1.0}


def test_no_weight_is_negative() -> None:
    found = fit((A, B), [Probe({"a1": 0.02}, 0.04), Probe({"a1": 0.02, "b1": 0.02}, 0.02)])
    assert found["b1"] == 0 and found["a1"] > 0


LOSS = st.floats(1e-4, 0.1)  # beyond, the prior pulls a weight by more than the twentieth that is allowed here


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0.1, 3), min_size=1, max_size=6), st.data())
def test_true_weights_are_found_again(weights: list[float], data: st.DataObject) -> None:
    found = [Group(str(number), (str(number),)) for number in range(len(weights))]
    probes = []
    for number, weight in enumerate(weights):  # each alone, and mixtures
        loss = data.draw(LOSS)
        probes.append(Probe({str(number): loss}, weight * loss))
        mixed = {str(n): data.draw(LOSS) for n in range(len(weights))}
        probes.append(Probe(mixed, sum(weights[int(name)] * loss for name, loss in mixed.items())))
    for name, weight in fit(found, probes).items():
        assert weight == pytest.approx(weights[int(name)], rel=0.05)
