"""A Dask cluster to compute on."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .extras import missing
from .ir.errors import UserError

WAIT = "20s"
"""For a cluster and its first worker."""


def connect(address: str, extra: str) -> Any:
    """A client of a Dask cluster whose workers have onnx-fhe.

    Args:
        address: Of the scheduler.
        extra: The extra of onnx-fhe that its workers need.

    Returns:
        A ``distributed.Client``.

    Raises:
        MissingPackageError: Dask is not installed here.
        UserError: There is no cluster, it has no workers, or they lack onnx-fhe.
    """
    try:
        make: Any = import_module("distributed").Client
    except ImportError as error:
        if (said := missing(error, "dask")) is None:
            raise
        raise said from error
    try:
        client: Any = make(address, timeout=WAIT, set_as_default=False)
    except Exception as error:
        raise UserError(
            "there is no Dask cluster at this address",
            found=f"{address}: {str(error) or type(error).__name__}",
            allowed="the address of a running scheduler, such as tcp://host:8786",
            do="start one with `dask scheduler`, and `dask worker ADDRESS` on each machine",
        ) from error
    try:
        client.wait_for_workers(1, timeout=WAIT)
        client.run(_version)
    except Exception as error:
        client.close()
        raise UserError(
            "the workers of this Dask cluster cannot compute for onnx-fhe",
            found=str(error) or "no workers",
            allowed="workers with the same version of onnx-fhe installed",
            do=f"pip install 'onnx-fhe[{extra}]' where the workers run; start `dask worker ADDRESS` there",
        ) from error
    return client


def _version() -> str:
    from importlib.metadata import version

    return version("onnx-fhe")
