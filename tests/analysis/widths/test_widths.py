"""Widths that meet: narrow tables are parted from wide accumulators, or named before Concrete is asked."""

from __future__ import annotations

import gc
import re
import weakref
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnx_fhe.analysis.cost.cost import estimate
from onnx_fhe.analysis.cost.lookup_cost import lookup_costs
from onnx_fhe.analysis.expansion.expand import expanded
from onnx_fhe.analysis.widths.groups import group_widths
from onnx_fhe.backends.base import LowerOptions
from onnx_fhe.backends.checking import check_against
from onnx_fhe.backends.concrete import backend as concrete
from onnx_fhe.backends.registry import get_backend
from onnx_fhe.ir.errors import LimitError, OnnxFheError, UserError
from onnx_fhe.ir.graph import is_dialect
from onnx_fhe.ir.partition import partition
from onnx_fhe.ir.runtime import run
from onnx_fhe.testing.integers import IntegerBuilder

QUICK = LowerOptions(parameter_strategy="mono")


def pooled(weights: int, operator: str = "MaxPool", direct: bool = False) -> Any:
    """Maxima of 3-bit values in front of a convolution with large weights, and a table of 4 bits behind."""
    b = IntegerBuilder(samples=6)
    x = b.encrypt("x", (2, 4, 4))
    h = x if direct else b.lookup(x, [np.arange(8)[::-1]], [0])
    if operator == "MaxPool":
        h = b.op("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2], name="/pool")
    else:
        sides = [b.op("Slice", h, *(b.constant([k], np.int64) for k in (i, i + 2, 2))) for i in (0, 2)]
        h = b.op(operator, *sides, name="/pool")
    h = b.op("Conv", h, b.constant(b.rng.integers(-weights, weights + 1, (2, 2, 1, 1))), name="/wide")
    b.decrypt(b.activate(h, 4, "approximate"))
    return b


def assigned(model: ir.Model) -> dict[str, int]:
    """Bits that Concrete gave the input of each plain table, by the name of the table."""
    backend = get_backend("concrete")
    plan = backend._plan(model)
    compiled = concrete.compile_plan(plan, QUICK)
    indexes = compiled.emitter.scope.indexes
    plain = [x for x in plan.lookups.values() if not x.lsbs_to_remove]
    return {str(x.node.name): indexes[x.node].computation.output.dtype.bit_width for x in plain}


@pytest.mark.parametrize("weights", [6000, 20_000])
@pytest.mark.parametrize("operator", ["MaxPool", "Min"])
def test_maxima_are_as_narrow_as_what_they_compare(weights: int, operator: str) -> None:
    """At 20,000 the accumulator takes 19 bits: a table of so many is none."""
    model = pooled(weights, operator).model()
    widths = assigned(model)
    assert widths, "the maximum is a table"
    assert max(widths.values()) == 4
    check_against(model, get_backend("concrete").lower(model, QUICK), pooled(weights, operator).samples)


@pytest.mark.parametrize("weights", [1, 9, 6000])
@pytest.mark.parametrize("direct", [False, True])
def test_widths_are_known_before_concrete_assigns_them(weights: int, direct: bool) -> None:
    model = pooled(weights, direct=direct).model()
    server = partition(expanded(model)).server
    expected = group_widths(server)
    found = assigned(model)
    assert found
    assert found == {
        str(n.name): expected[n.inputs[0]]
        for n in server.graph
        if is_dialect(n, "TableLookup") and str(n.name) in found
    }


def test_parting_keeps_the_integers_and_pays() -> None:
    b = pooled(6000)
    model = b.model()
    server = partition(model).server
    values = {k: v.astype(np.float32) for k, v in b.samples.items()}
    apart = expanded(model).clone()
    for name, array in run(partition(apart).server, values).items():
        np.testing.assert_array_equal(array, run(server, values)[name])
    identities = [n for n in apart.graph if str(n.name).endswith("_apart")]
    (identity,) = identities
    assert identity.metadata_props["onnx_fhe.layer"] == "/pool"
    # One for each result of the pooling: 2 channels of 2x2; nothing cheaper parts the two.
    assert np.prod(list(identity.outputs[0].shape or [])[1:]) == 8
    for reader in identity.outputs[0].consumers():
        assert identity.inputs[0] is not None
        reader.replace_input_with(0, identity.inputs[0])
    together = sum(x.complexity for x in lookup_costs(apart, 1e-5))
    assert estimate(model).complexity < 0.95 * together


def test_nothing_is_parted_where_it_does_not_pay() -> None:
    model = pooled(1).model()
    assert not any(str(n.name).endswith("_apart") for n in expanded(model).graph)
    b = IntegerBuilder()
    b.decrypt(b.activate(b.dense(b.encrypt("x", (4,)), 3)))
    model = b.model()
    assert expanded(model) is model


def test_a_model_is_expanded_once_until_it_is_edited() -> None:
    model = pooled(6000).model()
    found = expanded(model)
    assert expanded(model) is found
    assert estimate(model) == estimate(model)
    assert expanded(model.clone()) is not found
    lookup = next(n for n in model.graph if is_dialect(n, "TableLookup"))
    lookup.attributes["p_error"] = ir.AttrFloat32("p_error", 0.01)
    again = expanded(model)
    assert again is not found
    kept = weakref.ref(again)
    del model, again, lookup
    gc.collect()
    assert kept() is None, "an expansion goes with its model"


def too_wide() -> Any:
    """A table of the few values that an 18-bit input declares to it: there is nothing to part."""
    b = IntegerBuilder(samples=4)
    x = b.encrypt("x", (3,), high=3)
    z = b.encrypt("z", (3,), high=2**17)
    total = b.op("Add", x, z, name="/sum")
    b.decrypt(b.lookup(total, [np.arange(16)], [0]))
    return b


def test_what_cannot_be_parted_is_named_before_concrete_is_asked() -> None:
    with pytest.raises(LimitError, match="shares its width") as caught:
        get_backend("concrete").lower(too_wide().model(), QUICK)
    assert caught.value.where.node == "/sum"
    assert "18 bits instead of 4" in caught.value.found
    assert "'z_q'" in caught.value.found
    assert "16" in caught.value.allowed


def test_concretes_own_page_of_graph_becomes_a_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concrete, "check", lambda plan, limits: None)
    with pytest.raises(UserError) as caught:
        get_backend("concrete").lower(too_wide().model(), QUICK)
    message = str(caught.value)
    assert "18-bit value" in message
    assert caught.value.where.node == "/sum"
    assert not re.search(r"%\d|EncryptedTensor|\^\^", message)
    assert len(message.splitlines()) <= 6


@pytest.mark.parametrize("words", ["Unfeasible noise constraint encountered\nat 3", "", "\n" + 5000 * "x"])
def test_any_other_failure_names_a_layer(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from concrete import fhe

    def fail(*_: object) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(fhe.Compiler, "compile", fail)
    with pytest.raises(OnnxFheError) as caught:
        get_backend("concrete").lower(pooled(9).model(), QUICK)
    assert caught.value.where.node
    assert len(str(caught.value)) < 700
    assert words.strip()[:20] in str(caught.value)
