"""A small float network trained from random weights to imitate a large one: the control of ``distill``.

Plain torch. The inputs, those made of them and the loss are the pass's own, so that only the start and the
fake quantization differ.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from onnx_fhe.analysis.augmentation.images import image_sizes
from onnx_fhe.analysis.augmentation.pool import pool, split
from onnx_fhe.analysis.outputs.classes import kind_of, scores
from onnx_fhe.analysis.regions.linear import linear_of
from onnx_fhe.ir import runtime
from onnx_fhe.ir.batch_runner import Arrays
from onnx_fhe.ir.editing import GraphEditor
from onnx_fhe.ir.errors import UnsupportedError
from onnx_fhe.ir.graph import LINEAR, constant_of, variable_inputs
from onnx_fhe.passes.distill.distill import Distill
from onnx_fhe.passes.distill.training.losses import Loss, agreement
from onnx_fhe.passes.distill.training.operators import OPERATORS
from onnx_fhe.passes.distill.training.task import MANY_WEIGHTS_A_SAMPLE, UNCHANGED_SHARE

RATES = (0.003, 0.01)
"""Learning rates of Adam; each is tried with all the steps, and the samples held back choose."""
WARM_UP, LOOK = 0.02, 100
"""Share of the steps in which the rate grows, and steps between looks at the samples held back."""


class Network(nn.Module):
    """A float model of ONNX operators with weights and biases of its own.

    Weights are drawn as He et al. 2015 draw them ("Delving deep into rectifiers"), biases are 0.

    Args:
        model: Float level, normalized; gives operators and shapes, its weights are not read.

    Raises:
        UnsupportedError: An operator is none that can be differentiated.
    """

    def __init__(self, model: ir.Model) -> None:
        super().__init__()
        self.model, self.cut = model, scores(model)
        self.constants: dict[ir.Value, torch.Tensor] = {}
        for node in model.graph:
            if node.domain or node.op_type not in OPERATORS:
                raise UnsupportedError(
                    "this operator cannot be trained",
                    node=node.name or "",
                    op=node.op_type,
                    found=node.op_type,
                    allowed=", ".join(sorted(OPERATORS)),
                    do="leave the model out with --models, or the training with --methods",
                )
            self._add(node)
        self.trained = {v: t for v, t in self.constants.items() if isinstance(t, nn.Parameter)}
        self.learned = nn.ParameterList(self.trained.values())

    def _add(self, node: ir.Node) -> None:
        linear = linear_of(node)
        for index, value in enumerate(node.inputs):
            array = constant_of(value)
            if value is None or array is None or value in self.constants:
                continue
            fresh = torch.from_numpy(np.array(array))
            if linear is not None and index == 1:
                deviation = math.sqrt(2 / linear.matrix().shape[1])
                self.constants[value] = nn.Parameter(torch.randn_like(fresh) * deviation)
            elif (linear is not None and index == 2) or _is_bias(node):
                self.constants[value] = nn.Parameter(torch.zeros_like(fresh))
            else:
                self.constants[value] = fresh

    def forward(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """The scores for inputs in graph order."""
        env = {**self.constants, **dict(zip(self.model.graph.inputs, inputs, strict=True))}
        for node in self.model.graph:
            env[node.outputs[0]] = OPERATORS[node.op_type](
                node, [None if v is None else env[v] for v in node.inputs]
            )
        return [env[v] for v in self.cut]

    def write_back(self) -> None:
        """Put what was learned into the model, in place; the network cannot run after this."""
        edit = GraphEditor(self.model)
        for value, tensor in self.trained.items():
            new = edit.constant(f"{value.name}_trained", tensor.detach().numpy())
            ir.convenience.replace_all_uses_with(value, new)


def _is_bias(node: ir.Node) -> bool:
    producers = [v.producer() for v in variable_inputs(node)] if node.op_type == "Add" else []
    return any(p is not None and p.op_type == "MatMul" for p in producers)


@dataclass(frozen=True)
class Lessons:
    """What to learn from; as ``distill`` makes it of the same options and seed.

    Attributes:
        inputs, answers: To train on, in graph order, and what the teacher says of them.
        held, held_answers: To choose by.
        given: How many inputs, from the first on, are calibration samples as they are.
        given_share: Share of each batch that is taken from those alone.
        loss: The distance from the teacher.
    """

    inputs: list[torch.Tensor]
    answers: list[torch.Tensor]
    held: list[torch.Tensor]
    held_answers: list[torch.Tensor]
    given: int
    given_share: float
    loss: Loss


def lessons(options: Distill, model: ir.Model, teacher: ir.Model, calibration: Arrays, seed: int) -> Lessons:
    """Inputs made of the calibration samples, and the teacher's answers.

    Args:
        options: Of the pass that this is compared with.
        model: The small network.
        teacher: The network as imported.
        calibration: Inputs by name, samples on axis 0.
        seed: Of every random choice.
    """
    random = np.random.default_rng(seed)
    asked, names = scores(teacher), [str(v.name) for v in model.graph.inputs]
    parts = split(len(next(iter(calibration.values()))), options.validation_share, random)
    given = {k: np.asarray(v)[parts.train] for k, v in calibration.items()}
    kept = {k: np.asarray(v)[parts.held] for k, v in calibration.items()}
    sparse = _weights(model) / len(parts.train)
    inputs = pool(given, options.augment, random, image_sizes(given), sparse)[0]
    session = runtime.Session(teacher, [str(v.name) for v in asked])
    answers = list(session.run_batched(inputs).values())
    return Lessons(
        inputs=_tensors([inputs[n] for n in names]),
        answers=_tensors(answers),
        held=_tensors([kept[n] for n in names]),
        held_answers=_tensors(list(session.run_batched(kept).values())),
        given=len(parts.train),
        given_share=UNCHANGED_SHARE * math.exp(-sparse / MANY_WEIGHTS_A_SAMPLE),
        loss=Loss(
            kind_of(answers, asked, list(teacher.graph.outputs)),
            options.temperature,
            answers,
            label_share=0.0,
        ),
    )


def train_from_scratch(
    options: Distill, model: ir.Model, teacher: ir.Model, calibration: Arrays, seed: int
) -> float:
    """Give ``model`` new weights, learned from ``teacher``, in place.

    Args:
        options: Steps, batch, augmentation, temperature and share held back are taken from here.
        model: Float level, normalized.
        teacher: The network as imported.
        calibration: Inputs by name, samples on axis 0.
        seed: Of every random choice.

    Returns:
        Agreement with the teacher on the samples held back.
    """
    given = lessons(options, model, teacher, calibration, seed)
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.set_num_threads(1)  # as distill does: the same bits on every machine
        try:
            tries: list[tuple[float, Network]] = []
            for rate in RATES:
                torch.manual_seed(seed)
                network = Network(model)
                tries.append((_train(network, given, options, rate), network))
        finally:
            torch.set_num_threads(threads)
    _, best = min(tries, key=lambda t: t[0])
    with torch.no_grad():
        agreed = agreement(given.loss.kind, best(given.held), given.held_answers)
    best.write_back()
    return agreed


def _train(network: Network, given: Lessons, options: Distill, rate: float) -> float:
    """The least loss on the samples held back; the network ends in that state."""
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, betas=(0.9, 0.99))
    order, total = torch.Generator().manual_seed(int(torch.randint(2**31, (1,)))), len(given.inputs[0])
    best, state = math.inf, copy.deepcopy(network.state_dict())
    for step in range(options.steps):
        done = step / options.steps
        now = min(done / WARM_UP, 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = rate * now
        pick = torch.randint(total, (options.batch,), generator=order)
        as_they_are = torch.rand(options.batch, generator=order) < given.given_share
        pick = torch.where(as_they_are, pick % given.given, pick)
        value = given.loss(network([x[pick] for x in given.inputs]), [a[pick] for a in given.answers])
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        if step % LOOK == LOOK - 1 or step == options.steps - 1:
            with torch.no_grad():
                held = float(given.loss(network(given.held), given.held_answers))
            if held < best:
                best, state = held, copy.deepcopy(network.state_dict())
    network.load_state_dict(state)
    return best


def _weights(model: ir.Model) -> int:
    found = (constant_of(n.inputs[1]) for n in model.graph if n.op_type in LINEAR)
    return sum(c.size for c in found if c is not None)


def _tensors(arrays: list[np.ndarray]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(a)) for a in arrays]
