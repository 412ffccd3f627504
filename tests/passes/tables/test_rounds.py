"""Rewrites of tables that are priced together: the same as one by one, and none hides behind another."""

from __future__ import annotations

import numpy as np
import pytest
from integer_networks import Network

from onnx_fhe.analysis.ranges.ranges import SoundRanges
from onnx_fhe.passes import PassManager
from onnx_fhe.passes.tables.common import pricing
from onnx_fhe.testing import texts

TWO = """
graph (float[N, 2] x) => (float[N, 1] y)
<float[3, 2] w = {1, 0, 1, 1, -1, -1}, float[3, 8] t = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 1, 2, 3, 3, 2, 1,
 5, 5, 5, 5, 5, 5, 5, 5}, float[3] f = {0, 0, -7}, float[3, 3] v = {1, 0, 1, 0, 1, 0, 1, 1, 1},
 float[3, 16] u = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4,
 4, 4, 0, 1, 1, 2, 3, 3, 2, 1, 0, 1, 1, 2, 3, 3, 2, 1}, float[3] g = {0, 0, 0}, float[1, 3] s = {1, 2, 3}>
{
    q = onnx_fhe.Encrypt <low = 0, high = 3> (x)
    a = Gemm <transB = 1> (q, w)
    b = onnx_fhe.TableLookup <step = 1, axis = 1> (a, t, f)
    c = Gemm <transB = 1> (b, v)
    d = onnx_fhe.TableLookup <step = 1, axis = 1> (c, u, g)
    e = Gemm <transB = 1> (d, s)
    y = onnx_fhe.Decrypt <low = 0, high = 50> (e)
}
"""


def constants_removed(model):
    return PassManager.parse("remove-constant-tables")(model).model


def test_every_layer_of_a_network_in_one_round(monkeypatch: pytest.MonkeyPatch):
    priced = []
    price = pricing.price
    monkeypatch.setattr(pricing, "price", lambda m: priced.append(m) or price(m))
    after = constants_removed(texts.load(TWO))
    assert texts.lookups(after) == 4
    assert len(priced) == 2, "before and after the round"


@pytest.mark.parametrize("seed", range(8))
def test_together_is_as_one_by_one(seed: int, monkeypatch: pytest.MonkeyPatch):
    together = constants_removed(Network(seed).build())
    rounds = []

    def refused(self: pricing.Price, after: pricing.Price) -> bool:
        rounds.append(after)
        return False

    monkeypatch.setattr(pricing.Price, "allows_each", refused)
    alone = constants_removed(Network(seed).build())
    assert texts.structure(together) == texts.structure(alone)
    before = Network(seed).build()
    assert bool(rounds) == (texts.structure(alone) != texts.structure(before))


def test_what_costs_more_at_one_layer_is_no_round():
    before = pricing.Price(10, {"a": 6, "b": 4}, 5, 1)
    assert before.allows_each(pricing.Price(9, {"a": 5, "b": 4}, 5, 1))
    assert before.allows(saved := pricing.Price(9, {"a": 4, "b": 5}, 5, 1))
    assert not before.allows_each(saved)
    assert not before.allows_each(pricing.Price(9, {"a": 4, "c": 5}, 5, 1))
    assert not before.allows_each(pricing.Price(9, {"a": 5, "b": 4}, 5, 0))


@pytest.mark.parametrize("seed", range(4))
def test_ranges_of_what_changed_are_computed_anew(seed: int):
    model = texts.load(TWO) if seed == 0 else Network(seed).build()
    sound = SoundRanges(model)

    def known() -> dict[str, tuple[np.ndarray, np.ndarray]]:
        return {v.name: sound.of(v) for n in model.graph for v in n.outputs if n.op_type != "Decrypt"}

    first = known()
    sound.forget_changed()
    assert all(known()[name] is bounds for name, bounds in first.items()), "nothing changed"
    modified = PassManager.parse("remove-constant-tables")(model).modified
    assert modified or seed
    sound.forget_changed()
    fresh = SoundRanges(model)
    for node in model.graph:
        if node.op_type != "Decrypt":
            for end in (0, 1):
                np.testing.assert_array_equal(sound.of(node.outputs[0])[end], fresh.of(node.outputs[0])[end])
