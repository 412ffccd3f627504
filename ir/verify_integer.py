"""The rules of the integer level: what stands between Encrypt and Decrypt, and that every number is exact."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from .dialect import DOMAIN
from .errors import LimitError, VerificationError
from .graph import LAYOUT, LINEAR, MAXIMA, constant_of, extremes_of, int_of, is_dialect, once
from .interval_arithmetic import Bounds
from .intervals import LARGEST_FLOAT32_INTEGER, interval_of
from .movement import CANDIDATES, Movements, sample_shape
from .ops import Encrypt, PairLookup, RoundBits, TableLookup
from .placement import Placement, placements_of
from .reaches import Reaches

SUMS = frozenset({"Add", "Sub"})
_CODES = frozenset({ir.DataType.UINT8, ir.DataType.INT8, ir.DataType.UINT16, ir.DataType.INT16})
ALLOWED = CANDIDATES | LINEAR | SUMS | MAXIMA | {"Mul", "Neg", "ReduceSum"}
"""Operators of ONNX that may stand between Encrypt and Decrypt."""
PRODUCTS = frozenset({"Mul", "MatMul"})
"""Operators that may multiply two encrypted tensors."""
SIZES = frozenset({"Resize", "Upsample"})
"""Operators whose constants say how much, and are not among the values."""


def check(model: ir.Model) -> None:
    """Check the encrypted region of an integer model.

    Only allowed operators stand in it; no client value reaches it but through Encrypt, and none leaves it but
    through Decrypt; nothing is encrypted again after decryption; weights, tables and constants are integers;
    a RoundBits is read by TableLookups only; intervals from the declared ranges and the tables prove that no
    sum of absolute products reaches 2^24. Float operators in front of a quantizer that ``fuse-tlu`` has yet
    to make a table of are left alone.

    Raises:
        VerificationError: A rule is broken; the node is named.
        UnsupportedError: A value is encrypted that depends on a decrypted one.
        LimitError: A value may reach 2^24, so that float32 would not be exact.
    """
    placements = placements_of(model)
    marks = {n.op_type for n in model.graph if is_dialect(n, "Encrypt", "Decrypt")}
    if missing := {"Encrypt", "Decrypt"} - marks:
        raise VerificationError(
            "the model has no encrypted part", found=f"no {' and no '.join(sorted(missing))}", allowed="both"
        )
    ranges: dict[ir.Value, Bounds] = {}
    opset = model.graph.opset_imports.get("", 21)
    movements, reaches = Movements(opset), Reaches(ranges, opset)
    waiting = _waiting(model, placements)
    for node in model.graph:
        if placements[node.outputs[0]] is not Placement.SERVER or node in waiting:
            continue
        _check_server(node, {v: placements.get(v, Placement.CONSTANT) for v in node.inputs if v is not None})
        _check_movement(node, movements)
        interval = _interval(node, ranges, reaches)
        if interval is not None:
            ranges.update(dict.fromkeys(node.outputs, interval))


def require_exact(model: ir.Model) -> None:
    """Hold an integer model whose tables are all made to the rule that float32 is exact, and to no other.

    Raises:
        LimitError: A value may reach 2^24.
    """
    ranges: dict[ir.Value, Bounds] = {}
    reaches = Reaches(ranges, model.graph.opset_imports.get("", 21))
    for node in model.graph:
        interval = _interval(node, ranges, reaches)
        if interval is not None:
            ranges.update(dict.fromkeys(node.outputs, interval))


def _interval(node: ir.Node, ranges: dict[ir.Value, Bounds], reaches: Reaches) -> Bounds | None:
    """Bounds of what a node makes; where those of whole tensors are too wide, each element is looked at."""
    try:
        return interval_of(node, ranges)
    except LimitError:
        reach = reaches.of(node.outputs[0])
        largest = np.inf if reach is None else float(reach.max(initial=0))
        if largest >= LARGEST_FLOAT32_INTEGER:
            raise
        return -largest, largest


def _waiting(model: ir.Model, placements: Mapping[ir.Value, Placement]) -> set[ir.Node]:
    """The nodes that wait for ``fuse-tlu``: quantizers of encrypted values, and what belongs to them.

    Before them that is everything back to a linear or dialect operator or the Cast of an earlier quantizer,
    behind them Clip, Cast and DequantizeLinear.
    """
    encrypted = {v for v, side in placements.items() if side is Placement.SERVER}
    quantizers = [n for n in model.graph if n.op_type == "QuantizeLinear" and n.inputs[0] in encrypted]
    found, before, behind = set(quantizers), list(quantizers), list(quantizers)
    while before:
        for value in before.pop().inputs:
            source = value.producer() if value is not None and value in encrypted else None
            if source is None or source in found or _is_integer_operator(source):
                continue
            found.add(source)
            before.append(source)
    while behind:
        for reader in behind.pop().outputs[0].consumers():
            if (
                not reader.domain
                and reader.op_type in ("Clip", "Cast", "DequantizeLinear")
                and reader not in found
            ):
                found.add(reader)
                behind.append(reader)
    return found


def _is_integer_operator(node: ir.Node) -> bool:
    """Whether what waits begins behind ``node``: linear, of the dialect, or the Cast of a quantizer."""
    if node.domain:
        return node.domain == DOMAIN
    codes = node.inputs[0] if node.op_type == "Cast" else None
    if codes is None or codes.dtype not in _CODES:
        return node.op_type in LINEAR
    # A network may cast to whole numbers itself.
    source = codes.producer()
    return source is None or source.op_type in ("Clip", "QuantizeLinear")


def _broken(node: ir.Node, rule: str, found: str, allowed: str = "") -> VerificationError:
    return VerificationError(rule, node=node.name or "", op=node.op_type, found=found, allowed=allowed)


def _check_server(node: ir.Node, given: dict[ir.Value, Placement]) -> None:
    """Check a node of the encrypted part, all of whose inputs have a place."""
    _check_constants(node, [v for v, side in given.items() if side is Placement.CONSTANT])
    for value in (*given, *node.outputs):
        if given.get(value) is not Placement.CONSTANT and value.dtype not in (None, ir.DataType.FLOAT):
            raise _broken(
                node, "an encrypted value is not float32", f"{value.name!r}: {value.dtype}", "float32"
            )
    if node.domain == DOMAIN:
        if node.op_type in _DIALECT:
            _DIALECT[node.op_type](node)
        return
    if node.domain or node.op_type not in ALLOWED:
        raise _broken(node, "an operator that no circuit computes", node.op_type, ", ".join(sorted(ALLOWED)))
    if node.op_type in LINEAR:
        _check_linear(node, given)


def _check_constants(node: ir.Node, constants: list[ir.Value]) -> None:
    for value in constants:
        array = constant_of(value)
        if array is None:
            raise _broken(node, "a constant is not an initializer", repr(value.name), "folded constants")
        whole = array.dtype.kind != "f" or once(value, "whole", _is_integer)
        if node.op_type not in SIZES and not whole:
            raise _broken(
                node, "a constant of the encrypted part is not an integer", repr(value.name), "integers"
            )
        # Whole numbers are places and sizes: an end at 2^63 - 1 means all the rest.
        if array.dtype.kind == "f" and max(map(abs, extremes_of(value) or (0.0,))) >= LARGEST_FLOAT32_INTEGER:
            raise _broken(node, "a constant is too large to be exact", repr(value.name), "below 2^24")


def _check_linear(node: ir.Node, given: Mapping[ir.Value, Placement]) -> None:
    encrypted = sum(given.get(v) is Placement.SERVER for v in node.inputs if v is not None)
    if node.op_type not in PRODUCTS and encrypted != 1:
        raise _broken(
            node,
            "a linear operator of two encrypted values",
            f"{encrypted} encrypted inputs",
            "constant weights",
        )
    if len([v for v in node.inputs if v is not None]) > 2:
        raise _broken(node, "a linear operator has a bias", "3 inputs", "an Add behind it")
    if node.op_type in ("Gemm", "Conv") and given.get(node.inputs[0]) is not Placement.SERVER:  # type: ignore[arg-type]
        raise _broken(node, "weights stand first", "a constant first input", "weights as second input")
    if node.op_type == "Gemm":
        _check_gemm(node)


def _check_movement(node: ir.Node, movements: Movements) -> None:
    if node.domain or node.op_type not in CANDIDATES - LAYOUT:
        return
    known = all(sample_shape(v) is not None for v in node.inputs if v is not None and constant_of(v) is None)
    if known and movements(node) is None:
        raise _broken(
            node,
            "an operator that computes, or mixes samples, stands among those that move elements",
            node.op_type,
            "copies of elements of the same sample, and constants",
        )


def _is_integer(array: np.ndarray) -> bool:
    return bool(np.isfinite(array).all() and (array == np.rint(array)).all())


def _check_gemm(node: ir.Node) -> None:
    found = {
        "alpha": node.attributes["alpha"].as_float() if "alpha" in node.attributes else 1.0,
        "transA": int_of(node, "transA", 0),
        "transB": int_of(node, "transB", 0),
    }
    wanted = {"alpha": 1.0, "transA": 0, "transB": 1}
    if found != wanted:
        raise _broken(node, "a Gemm is not in its one form", str(found), str(wanted))


def _check_range(node: ir.Node) -> None:
    low, high = Encrypt.of(node).range
    if low > high or max(abs(low), abs(high)) >= LARGEST_FLOAT32_INTEGER:
        raise _broken(
            node, "a declared range is no range", f"{low} .. {high}", "low <= high, both below 2^24"
        )


def _check_rounding(node: ir.Node) -> None:
    rounding = RoundBits.of(node)
    bits, mode = rounding.lsbs_to_remove, rounding.mode
    if not 0 <= bits < 24 or mode not in ("exact", "approximate"):
        raise _broken(
            node,
            "a rounding that does not exist",
            f"{bits} bits, {mode}",
            "0 to 23 bits, exact or approximate",
        )
    result = node.outputs[0]
    readers = [u.node for u in result.uses()]
    others = [n for n in readers if n.domain != DOMAIN or n.op_type not in ("TableLookup", "Decrypt")]
    if result.is_graph_output() or others or not readers:
        place = repr(others[0].name) if others else "an output, or nothing"
        raise _broken(
            node,
            "a RoundBits not directly before a TableLookup or a Decrypt",
            f"read by {place}",
            "a TableLookup or a Decrypt",
        )


def _check_table(node: ir.Node) -> None:
    table, first = constant_of(node.inputs[1]), constant_of(node.inputs[2])
    if table is None or first is None:
        raise _broken(node, "a table is not constant", "a computed table", "initializers")
    if table.ndim != 2 or first.ndim != 1 or len(table) != len(first) or not table.size:
        found = f"table {table.shape}, first {first.shape}"
        raise _broken(node, "a table of the wrong shape", found, "(channels, size) and (channels)")
    x = node.inputs[0]
    assert x is not None
    lookup = TableLookup.of(node)
    step, axis, tolerated = lookup.step, lookup.axis, lookup.p_error or 0.0
    if not 0 <= tolerated < 1:
        raise _broken(node, "a tolerated error is no probability", str(tolerated), "0 (unsaid) to below 1")
    if step < 1 or step & (step - 1):
        raise _broken(node, "the step of a table is no power of two", str(step), "1, 2, 4, ...")
    if len(table) > 1 and x.shape is not None:
        size = x.shape[axis] if 0 <= axis < len(x.shape) else None
        if size != len(table):
            raise _broken(
                node, "tables and channels differ in number", f"{len(table)} tables for {size}", "one each"
            )
    lookup.check_rounding()


def _check_pairs(node: ir.Node) -> None:
    table, first = constant_of(node.inputs[2]), constant_of(node.inputs[3])
    if table is None or first is None:
        raise _broken(node, "a table is not constant", "a computed table", "initializers")
    if table.ndim != 3 or first.shape != (2,) or not table.size:
        found = f"table {table.shape}, first {first.shape}"
        raise _broken(
            node, "a table of the wrong shape", found, "(channels, values of x, values of y) and (2)"
        )
    shape, axis = node.outputs[0].shape, PairLookup.of(node).axis
    if len(table) > 1 and shape is not None:
        size = shape[axis] if 0 <= axis < len(shape) else None
        if size != len(table):
            raise _broken(
                node, "tables and channels differ in number", f"{len(table)} tables for {size}", "one each"
            )


_DIALECT: dict[str, Callable[[ir.Node], None]] = {
    "Encrypt": _check_range,
    "PairLookup": _check_pairs,
    "RoundBits": _check_rounding,
    "TableLookup": _check_table,
}
