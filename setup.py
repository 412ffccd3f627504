"""Which packages there are; everything else stands in pyproject.toml.

The rooms lie in the root of the repository and are installed inside ``onnx_fhe``. setuptools' own discovery
does not follow such a mapping, so it is asked room by room.
"""

from setuptools import find_packages, setup

ROOMS = {
    "onnx_fhe": "onnx_fhe",
    "onnx_fhe.ir": "ir",
    "onnx_fhe.analysis": "analysis",
    "onnx_fhe.passes": "passes",
    "onnx_fhe.backends": "backends",
}

setup(
    package_dir=ROOMS,
    packages=[
        package
        for room, folder in ROOMS.items()
        for package in (room, *(f"{room}.{inner}" for inner in find_packages(folder)))
    ],
)
