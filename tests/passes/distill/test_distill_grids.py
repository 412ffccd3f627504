"""distill: scales of few inputs are set where borders lie between two cells of the grid."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from onnx_fhe.passes.distill.training.grids import Grids  # noqa: E402
from onnx_fhe.passes.distill.training.losses import Loss  # noqa: E402
from onnx_fhe.passes.distill.training.quantizers import FakeActivation  # noqa: E402
from onnx_fhe.passes.distill.training.samples import Samples  # noqa: E402

BORDERS = np.array([1 / 6, 1 / 2, 5 / 6])


def teacher(given):
    """Classes that change at the borders."""
    fields = (given[0] > torch.tensor(BORDERS, dtype=torch.float32)).sum(dim=1)
    score = 3.0 - 6.0 * (fields % 2)
    return [torch.stack([score, -score], dim=1)]


def student_of(scale, *, free=True, quantizers=1):
    value = object()
    activation = FakeActivation(scale, 0, 0, 31, free)
    reading = [SimpleNamespace(source=value, dequantize="dq") for _ in range(quantizers)]
    model = SimpleNamespace(graph=SimpleNamespace(inputs=[value]))
    return SimpleNamespace(model=model, quantizers=reading, activations={"dq": activation}), activation


def grids_of(student):
    inputs = [torch.rand(4000, 1, generator=torch.Generator().manual_seed(0))]
    answers = teacher(inputs)
    samples = Samples(inputs, answers, None, 4000)
    return Grids(student, samples, Loss("classes", 2.0, [a.numpy() for a in answers], 0.0), teacher)


@pytest.mark.parametrize("scale", [0.0320, 0.0345])
def test_borders_lie_between_cells(scale):
    student, activation = student_of(scale)
    grids = grids_of(student)
    grids.before(0, 0.0)
    found = float(activation.log_scale.detach().exp())
    places = BORDERS / found - 0.5
    assert np.abs(places - np.rint(places)).max() < 0.1
    assert not activation.log_scale.requires_grad
    grids.before(50, 0.1)
    assert float(activation.log_scale.detach().exp()) == found


@pytest.mark.parametrize("options", [{"free": False}, {"quantizers": 2}])
def test_what_is_not_one_scale_of_one_input_is_left_alone(options):
    student, activation = student_of(0.032, **options)
    grids_of(student).before(0, 0.0)
    assert float(activation.log_scale.detach().exp()) == pytest.approx(0.032)
    assert activation.log_scale.requires_grad == options.get("free", True)
