"""Reading the cryptographic parameters, and how often each is used, out of what Concrete compiled."""

from __future__ import annotations

from typing import Any

from concrete.compiler import KeyType, PrimitiveOperation

from ...analysis.cost.parameters import BootstrapParameters, KeyswitchParameters, Step

_MULTIPLIED = PrimitiveOperation.CLEAR_MULTIPLICATION


def steps_of(server: Any) -> tuple[Step, ...]:
    """The bootstraps and key switches of a circuit, in order.

    Empty where Concrete computes tables of many bits in a way of its own, whose parts it does not count.

    Args:
        server: Concrete's server.
    """
    bootstraps, keyswitches = _keys(server)
    found: list[Step] = []
    waiting: Step | None = None
    for operation in _statistics(server):
        kind, keys = operation.operation, dict(operation.keys)
        if kind == PrimitiveOperation.WOP_PBS:
            return ()
        if kind == PrimitiveOperation.KEY_SWITCH:
            found += [waiting] if waiting is not None else []
            waiting = Step(None, keyswitches[keys[KeyType.KEY_SWITCH]], int(operation.count))
        elif kind == PrimitiveOperation.PBS:
            bootstrap, count = bootstraps[keys[KeyType.BOOTSTRAP]], int(operation.count)
            if waiting is not None and waiting.count == count:
                found.append(Step(bootstrap, waiting.keyswitch, count))
            else:
                found += [waiting] if waiting is not None else []
                found.append(Step(bootstrap, None, count))
            waiting = None
    return (*found, *([waiting] if waiting is not None else ()))


def products_of(server: Any) -> int:
    """Coefficients of ciphertexts that are multiplied by a constant, for one sample."""
    dimensions = [k.dimension() for k in _info(server).secret_keys()]
    return sum(
        int(x.count) * (dimensions[dict(x.keys)[KeyType.SECRET]] + 1)
        for x in _statistics(server)
        if x.operation == _MULTIPLIED
    )


def _keys(server: Any) -> tuple[list[BootstrapParameters], list[KeyswitchParameters]]:
    info = _info(server)
    dimensions = [k.dimension() for k in info.secret_keys()]
    bootstraps = [
        BootstrapParameters(
            k.polynomial_size(), k.glwe_dimension(), k.input_lwe_dimension(), k.level(), k.base_log()
        )
        for k in info.bootstrap_keys()
    ]
    keyswitches = [
        KeyswitchParameters(
            dimensions[k.input_secret_key_id()], dimensions[k.output_secret_key_id()], k.level(), k.base_log()
        )
        for k in info.keyswitch_keys()
    ]
    return bootstraps, keyswitches


def _info(server: Any) -> Any:
    return server.program_info.get_keyset_info()


def _statistics(server: Any) -> Any:
    feedback = server._library.get_program_compilation_feedback()
    (name,) = server.program_info.function_list()
    return feedback.get_circuit_feedback(name).statistics
