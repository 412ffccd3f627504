"""Small Keras models as Keras exports them to ONNX; run by ``make models``.

``model.export(format="onnx")`` hands the model to tf2onnx where TensorFlow is Keras' backend
(``tf2onnx_*.onnx``) and to ``torch.onnx.export`` where PyTorch is (``keras_torch_*.onnx``). ``keras.npz``
holds the inputs of each network (``cnn.x``) and what Keras itself makes of them (``tf2onnx_cnn.y``,
``keras_torch_cnn.y``). A process has one backend, so that each gets its own.

    PYTHONPATH=tests/models python tests/models/exporters/make_keras.py [tensorflow] [torch]
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from signature import sign

if TYPE_CHECKING:
    import keras

HERE = Path(__file__).parent
# What each backend's files are called, and the packages that had a hand in them.
BACKENDS = {
    "tensorflow": ("tf2onnx", ("keras", "tensorflow-cpu", "tf2onnx")),
    "torch": ("keras_torch", ("keras", "torch")),
}
# Old ones and new ones.
OPSETS = {"mlp": 13, "cnn": 15, "depthwise": 17, "residual": 18}


def networks() -> dict[str, keras.Model]:
    """Networks of dense, convolutional (channels last) and depthwise layers, with random weights."""
    import keras
    from keras import layers

    def settled(model: keras.Model) -> keras.Model:
        """Biases and the statistics of batch normalization are not what they start with."""
        random = np.random.default_rng(0)
        for variable in model.variables:
            if variable.path.rsplit("/", 1)[-1] in ("bias", "beta", "moving_mean"):
                variable.assign(random.normal(0, 0.2, variable.shape))
            elif variable.path.rsplit("/", 1)[-1] in ("gamma", "moving_variance"):
                variable.assign(random.uniform(0.5, 1.5, variable.shape))
        return model

    mlp = keras.Sequential(
        [
            keras.Input((4, 4)),
            layers.Flatten(),
            layers.Dense(8, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(6, activation="tanh"),
            layers.BatchNormalization(),
            layers.Dense(3),
        ]
    )
    cnn = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(6, 2, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(max_value=6),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )
    depthwise = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.LeakyReLU(negative_slope=0.125),
            layers.AveragePooling2D(2),
            layers.SeparableConv2D(4, 3, padding="same", activation="sigmoid"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    x = keras.Input((6, 6, 2))
    y = layers.Conv2D(3, 3, padding="same", activation="relu")(x)
    z = layers.Conv2D(3, 1, activation="swish")(y)
    z = layers.Concatenate()([layers.Add()([y, z]), y])
    z = layers.ZeroPadding2D(1)(z)
    z = layers.Conv2D(3, 3, strides=2)(z)
    residual = keras.Model(x, layers.Dense(2)(layers.Reshape((27,))(z)))
    return {
        name: settled(model)
        for name, model in {"mlp": mlp, "cnn": cnn, "depthwise": depthwise, "residual": residual}.items()
    }


def write(backend: str, path: Path) -> None:
    """Export every network with this process' backend, and store inputs and outputs at ``path``."""
    import keras

    assert keras.backend.backend() == backend
    prefix, tools = BACKENDS[backend]
    keras.utils.set_random_seed(0)
    stored = {}
    for name, model in networks().items():
        random = np.random.default_rng(1)
        # Sixteenths, so that the file stays small.
        x = (random.normal(0, 16, (32, *model.input_shape[1:])).round() / 16).astype(np.float32)
        stored |= {f"{name}.x": x, f"{prefix}_{name}.y": model.predict(x, verbose=0)}
        target = path.parent / f"{prefix}_{name}.onnx"
        with contextlib.redirect_stdout(io.StringIO()):
            model.export(str(target), format="onnx", verbose=False, opset_version=OPSETS[name])
        (HERE / target.name).write_bytes(sign(target.stem, onnx.load(target), *tools))
    np.savez(path, **stored)


def main(wanted: list[str]) -> None:
    """Make the files of the backends named, of both by default."""
    known = HERE / "keras.npz"
    stored = dict(np.load(known)) if known.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for backend in wanted or list(BACKENDS):
            path = Path(folder) / f"{backend}.npz"
            own = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
            done = subprocess.run(
                [sys.executable, __file__, "--write", backend, str(path)],
                env=os.environ | own,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                stored |= dict(np.load(path))
            elif "ModuleNotFoundError" in done.stderr:
                print(f"keras with {backend}: not remade, {done.stderr.splitlines()[-1]}")
            else:
                sys.exit(done.stderr)
    if stored:
        np.savez_compressed(known, **stored)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        warnings.filterwarnings("ignore")
        write(sys.argv[2], Path(sys.argv[3]))
    else:
        main(sys.argv[1:])
