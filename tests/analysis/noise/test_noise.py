"""The noise model against Concrete's simulation."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_fhe.analysis.noise.noise import NoisyModel, noise_steps, with_noise
from onnx_fhe.backends.reference import ReferenceBackend
from onnx_fhe.backends.registry import get_backend
from onnx_fhe.ir import load, runtime
from onnx_fhe.ir.ops import TableLookup
from onnx_fhe.ir.partition import partition
from onnx_fhe.passes.framework.base import Context
from onnx_fhe.passes.framework.manager import PassManager
from onnx_fhe.testing.integers import IntegerBuilder


def _integer(example, text="insert-rounding{bits=4}"):
    pipeline = f"normalize,quantize{{weights=3}},lower-to-integer,fuse-tlu,{text}"
    context = Context(calibration=example.calibration_data)
    return PassManager.parse(pipeline).run(load.load(example.model), context).model


def test_noise_is_what_p_error_says():
    random = np.random.default_rng(0)
    for p_error in (1e-1, 1e-2):
        drawn = np.abs(random.standard_normal(400_000)) * noise_steps(p_error) > 0.5
        assert drawn.mean() == pytest.approx(p_error, rel=0.1)


def test_same_seed_same_errors_and_no_noise_no_errors(digits_mlp):
    model = _integer(digits_mlp)
    data = {k: v[:50] for k, v in digits_mlp.calibration_data.items()}
    noisy = NoisyModel(model, 1e-2)
    (name,) = noisy.run(data, seed=3)
    first, second = (noisy.run(data, seed=3)[name] for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, noisy.run(data, seed=4)[name])
    copy, scales = with_noise(model)
    silent = {str(v.name): np.zeros((50, *list(v.shape)[1:]), np.float32) for v in scales}
    found = runtime.run(copy, {**data, **silent})
    for name, array in runtime.run(model, data).items():
        assert np.array_equal(found[name], array)


@pytest.mark.parametrize("p_error", [1e-5, 1e-2])
def test_errors_are_as_large_as_in_concretes_simulation(digits_mlp, p_error):
    """Mean squared difference of the raw outputs to the exact ones, on 150 samples."""
    from onnx_fhe.backends.base import LowerOptions

    model = _integer(digits_mlp)
    data = {k: v[:150] for k, v in digits_mlp.calibration_data.items()}
    exact = next(iter(runtime.run(model, data).values()))
    modelled = next(iter(NoisyModel(model, p_error).run(data).values()))
    parts = partition(model)
    integers = runtime.run(parts.prologue, data)
    circuit = get_backend("concrete").lower(model, LowerOptions(p_error=p_error))
    simulated = runtime.run(
        parts.epilogue, {k: v.astype(np.float32) for k, v in circuit.simulate(integers).items()}
    )
    measured = float(((next(iter(simulated.values())) - exact) ** 2).mean())
    assert float(((modelled - exact) ** 2).mean()) == pytest.approx(measured, rel=0.4)


def _side_by_side(elements=64):
    """Lookups of 4 bits on the upper bits of 7, with nothing linear between them: they err independently."""
    b = IntegerBuilder(0)
    x = b.encrypt("x", (elements,), 0, 123)
    rounded = b.op("RoundBits", x, domain="onnx_fhe", lsbs_to_remove=3, mode="approximate")
    y = b.lookup(rounded, np.arange(16)[None], [0], step=8)
    b.decrypt(y, low=0, high=15)
    return b.model()


@pytest.mark.parametrize("p_error", [1e-5, 1e-2])
def test_as_many_lookups_err_as_in_concretes_simulation(p_error):
    """A two-proportion test on 6,400 lookups that err independently of each other."""
    from onnx_fhe.backends.base import LowerOptions

    model = _side_by_side()
    server = partition(model).server
    name = server.graph.inputs[0].name
    values = np.random.default_rng(0).integers(0, 124, (100, 64))
    circuit = get_backend("concrete").lower(model, LowerOptions(p_error=p_error))
    (exact,), (simulated,) = (f({name: values}).values() for f in (circuit.clear, circuit.simulate))
    (modelled,) = NoisyModel(server, p_error).run({name: values.astype(np.float32)}).values()
    a, b = float((modelled != exact).mean()), float((simulated != exact).mean())
    both = (a + b) / 2
    assert both > 0.05
    assert abs(a - b) < 4 * np.sqrt(both * (1 - both) * 2 / exact.size)
    # Only neighbours are confused, but for the error that was asked for.
    far = np.abs(modelled - exact) > 1
    assert far.mean() <= 2 * p_error


def test_what_lookups_say_goes_before_what_is_given():
    model = _side_by_side()
    data = {"x": np.random.default_rng(0).integers(0, 124, (200, 64)).astype(np.float32)}
    (exact,) = runtime.run(model, data).values()

    def wrong(noisy):
        return float((next(iter(noisy.run(data).values())) != exact).mean())

    usual = wrong(NoisyModel(model))
    for lookup in TableLookup.all_in(model):
        lookup.set_p_error(0.3)
    assert wrong(NoisyModel(model)) > 2 * usual
    assert wrong(NoisyModel(model, override=True)) == usual


def test_reference_backend_stays_exact(digits_mlp):
    model = _integer(digits_mlp)
    parts = partition(model)
    data = {k: v[:20] for k, v in digits_mlp.calibration_data.items()}
    integers = runtime.run(parts.prologue, data)
    circuit = ReferenceBackend().lower(model)
    for name, array in circuit.clear(integers).items():
        assert np.array_equal(array, circuit.simulate(integers)[name])
