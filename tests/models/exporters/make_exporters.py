"""Small models as the tools write them; run by ``make models``.

Written by the tool itself: PyTorch (``torch.onnx.export``, TorchScript and dynamo) and scikit-learn
(skl2onnx). ``cntk_*`` is written here, node by node, as CNTK wrote: it installs on no Python of today.
``torch.npz`` and ``sklearn.npz`` hold inputs (``.x``) and what the tool itself makes of them (``.y``, and
``.scores`` of a classifier).

    PYTHONPATH=tests/models python tests/models/exporters/make_exporters.py [torch] [sklearn] [cntk]
"""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from signature import sign

HERE = Path(__file__).parent
FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def save(name: str, proto: onnx.ModelProto, *tools: str) -> None:
    """Write a file with the versions of the tools that made it."""
    del proto.metadata_props[:]
    proto.doc_string = ""
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    (HERE / f"{name}.onnx").write_bytes(sign(name, proto, *tools))


def torch_models() -> None:
    """A dense network and two convolutional ones, through both exporters and several opsets."""
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(4)
            self.second = nn.Conv2d(4, 4, 3, padding=1, groups=2)
            self.last = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.norm(self.first(x)))
            x = x + nn.functional.hardswish(self.second(x))
            return self.last(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))

    class Reshaping(nn.Module):
        """Sizes taken from the tensor, as people write them."""

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(2, 4, 3, padding=1)
            self.last = nn.Linear(20, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = nn.functional.gelu(self.conv(x))
            x = nn.functional.avg_pool1d(x, 2)
            return torch.softmax(self.last(x.view(x.size(0), -1)), dim=1)

    def trained(net: nn.Module, *shape: int) -> tuple[nn.Module, torch.Tensor]:
        for _ in range(3):  # so that batch normalization has statistics
            net(torch.randn(16, *shape))
        return net.eval(), torch.randn(2, *shape)

    mlp = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    cases = [
        ("mlp", *trained(mlp, 6)),
        ("residual", *trained(Residual(), 1, 8, 8)),
        ("reshaping", *trained(Reshaping(), 2, 10)),
    ]
    stored = {}
    for name, net, example in cases:
        random = np.random.default_rng(0)
        x = random.normal(0, 16, (32, *example.shape[1:])).round().astype(np.float32) / 16
        with torch.no_grad():
            stored |= {f"{name}.x": x, f"{name}.y": net(torch.from_numpy(x)).numpy()}
        for opset in (11, 17):
            buffer = io.BytesIO()
            torch.onnx.export(
                net,
                (example,),
                buffer,
                opset_version=opset,
                dynamo=False,
                input_names=["input"],
                output_names=["output"],
                dynamic_axes={"input": {0: "batch"}} if name != "mlp" or opset == 17 else None,
            )
            save(f"torchscript_{name}_{opset}", onnx.load_from_string(buffer.getvalue()), "torch")
        for kind, shapes in (("", ({0: "batch"},)), ("_static", None)):
            with contextlib.redirect_stdout(io.StringIO()):
                program = torch.onnx.export(
                    net, (example,), dynamo=True, dynamic_shapes=shapes, verbose=False
                )
            assert program is not None
            save(f"dynamo_{name}{kind}", program.model_proto, "torch", "onnxscript")
    np.savez_compressed(HERE / "torch.npz", **stored)


def sklearn_models() -> None:
    """Linear models, MLPs with scalers, and what is refused: a tree and a kernel machine."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_iris
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, Normalizer, StandardScaler
    from sklearn.svm import SVC, LinearSVC
    from sklearn.tree import DecisionTreeClassifier

    x, y = load_iris(return_X_y=True)
    x = x.astype(np.float32)
    names = np.array(["setosa", "versicolor", "virginica"])
    target = 2 * x[:, 0] + y
    mlp = {"hidden_layer_sizes": (8,), "max_iter": 300, "random_state": 0}
    cases = {
        "logistic": (LogisticRegression(max_iter=300), y, {}),
        "logistic_no_zipmap": (LogisticRegression(max_iter=300), y, {"options": {"zipmap": False}}),
        "logistic_names": (LogisticRegression(max_iter=300), names[y], {}),
        "logistic_two": (LogisticRegression(max_iter=300), (y == 0).astype(int), {}),
        "linear_svc": (LinearSVC(random_state=0), y, {}),
        "linear": (LinearRegression(), target, {}),
        "mlp": (make_pipeline(StandardScaler(), MLPClassifier(**mlp)), y, {}),
        "mlp_two": (make_pipeline(MinMaxScaler(), MLPClassifier(**mlp)), y == 1, {}),
        "mlp_names": (make_pipeline(Normalizer(), MLPClassifier(activation="tanh", **mlp)), names[y], {}),
        "mlp_regressor": (make_pipeline(StandardScaler(), PCA(3), MLPRegressor(**mlp)), target, {}),
        "tree": (DecisionTreeClassifier(max_depth=2), y, {}),
        "svc": (SVC(), y == 0, {}),
    }
    stored = {"sklearn.x": x[::3]}
    for name, (model, labels, options) in cases.items():
        model.fit(x, labels)
        stored[f"sklearn_{name}.y"] = model.predict(x[::3])
        for method in ("predict_proba", "decision_function"):
            if hasattr(model, method):
                stored[f"sklearn_{name}.scores"] = getattr(model, method)(x[::3]).astype(np.float32)
                break
        proto = to_onnx(model, x[:1], target_opset={"": 17, "ai.onnx.ml": 3}, **options)
        save(f"sklearn_{name}", proto, "scikit-learn", "skl2onnx")
    np.savez_compressed(HERE / "sklearn.npz", **stored)


def _model(nodes: list[onnx.NodeProto], x: list, y: list, weights: dict, opset: int) -> onnx.ModelProto:
    for number, node in enumerate(nodes):
        node.name = node.name or f"{node.op_type}_{number}"
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("input", FLOAT, x)],
        [helper.make_tensor_value_info("output", FLOAT, y)],
        [numpy_helper.from_array(a, k) for k, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)


def cntk_models() -> None:
    """As CNTK wrote MNIST: weights of four axes reshaped, biases of three, a batch of 1, opset 8, IR 3."""
    random = np.random.default_rng(0)
    node = helper.make_node
    weights = {
        "Parameter5": random.normal(size=(4, 1, 3, 3)).astype(np.float32),
        "Parameter6": random.normal(size=(4, 1, 1)).astype(np.float32),
        "Parameter193": random.normal(size=(4, 2, 2, 3)).astype(np.float32),
        "Parameter193_shape": np.int64([16, 3]),
        "Pooling160_shape": np.int64([1, 16]),
        "Parameter194": random.normal(size=(1, 3)).astype(np.float32),
    }
    nodes = [
        node("Div", ["input", "Constant339"], ["scaled"], name="Times340"),
        node(
            "Conv",
            ["scaled", "Parameter5"],
            ["conv"],
            name="Convolution28",
            kernel_shape=[3, 3],
            strides=[1, 1],
            auto_pad="SAME_UPPER",
            group=1,
            dilations=[1, 1],
        ),
        node("Add", ["conv", "Parameter6"], ["plus"], name="Plus30"),
        node("Relu", ["plus"], ["relu"], name="ReLU32"),
        node("AveragePool", ["relu"], ["pool"], name="Pooling66", kernel_shape=[4, 4], strides=[4, 4]),
        node("Reshape", ["pool", "Pooling160_shape"], ["flat"], name="Times212_reshape0"),
        node("Reshape", ["Parameter193", "Parameter193_shape"], ["matrix"], name="Times212_reshape1"),
        node("MatMul", ["flat", "matrix"], ["times"], name="Times212"),
        node("Add", ["times", "Parameter194"], ["output"], name="Plus214"),
    ]
    weights["Constant339"] = np.float32([255])
    proto = _model(nodes, [1, 1, 8, 8], [1, 3], weights, 8)
    proto.ir_version = 3
    for name, array in weights.items():  # IR 3 lists initializers among the inputs
        kind = INT64 if array.dtype == np.int64 else FLOAT
        proto.graph.input.append(helper.make_tensor_value_info(name, kind, list(array.shape)))
    save("cntk_cnn", proto)


MAKERS = {"torch": torch_models, "sklearn": sklearn_models, "cntk": cntk_models}


def main(wanted: list[str]) -> None:
    """Make the files of the tools named, of all by default."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    for name in wanted or list(MAKERS):
        try:
            MAKERS[name]()
        except (ImportError, PackageNotFoundError) as error:
            print(f"{name}: not remade, {error}; install it with pip in an environment of its own")


if __name__ == "__main__":
    main(sys.argv[1:])
