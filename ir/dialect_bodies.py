"""The bodies of the dialect's operators, in ONNX's text, which is read at once: every command needs them."""

from __future__ import annotations

from onnx import FunctionProto, parser

_HEAD = '<domain: "onnx_fhe", opset_import: ["" : 18]> '

_IDENTITY = "{name} <low: int = 0, high: int = 1> (x) => (result) {{ result = Identity (x) }}"

_ROUND_BITS = """
RoundBits <lsbs_to_remove: int = 0, mode: string = "exact"> (x) => (result)
{
    two = Constant <value_float = 2.0> ()
    half = Constant <value_float = 0.5> ()
    count = Constant <value_int: int = @lsbs_to_remove> ()
    removed = Cast <to = 1> (count)
    unit = Pow (two, removed)
    scaled = Div (x, unit)
    shifted = Add (scaled, half)
    floor = Floor (shifted)
    result = Mul (floor, unit)
}
"""

_TABLE_LOOKUP = """
TableLookup <step: int = 1, axis: int = 1, p_error: float = 0.0> (x, table, first) => (result)
{
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    from_zero = Constant <value_int = 0> ()
    by_one = Constant <value_int = 1> ()
    flat = Constant <value_ints = [-1]> ()
    channels = Shape (first)
    size = Shape <start = 1, end = 2> (table)
    shape = Shape (x)
    rank = Size (shape)
    axes = Range (from_zero, rank, by_one)
    channel_axis = Constant <value_int: int = @axis> ()
    is_channel_axis = Equal (axes, channel_axis)
    along = Where (is_channel_axis, channels, one)
    start = Reshape (first, along)
    count = Squeeze (channels)
    numbers = Range (from_zero, count, by_one)
    offsets = Mul (numbers, size)
    base = Reshape (offsets, along)
    distance = Constant <value_int: int = @step> ()
    unit = Cast <to = 1> (distance)
    above = Sub (x, start)
    steps = Div (above, unit)
    position = Cast <to = 7> (steps)
    not_below = Max (position, zero)
    last = Sub (size, one)
    inside = Min (not_below, last)
    entries = Reshape (table, flat)
    index = Add (inside, base)
    result = Gather (entries, index)
}
"""

_PAIR_LOOKUP = """
PairLookup <axis: int = 1> (x, y, table, first) => (result)
{
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    from_zero = Constant <value_int = 0> ()
    by_one = Constant <value_int = 1> ()
    flat = Constant <value_ints = [-1]> ()
    channels = Shape <start = 0, end = 1> (table)
    rows = Shape <start = 1, end = 2> (table)
    columns = Shape <start = 2, end = 3> (table)
    shape = Shape (x)
    rank = Size (shape)
    axes = Range (from_zero, rank, by_one)
    channel_axis = Constant <value_int: int = @axis> ()
    is_channel_axis = Equal (axes, channel_axis)
    along = Where (is_channel_axis, channels, one)
    count = Squeeze (channels)
    numbers = Range (from_zero, count, by_one)
    cells = Mul (rows, columns)
    offsets = Mul (numbers, cells)
    base = Reshape (offsets, along)
    low = Cast <to = 7> (first)
    first_row = Gather (low, zero)
    first_column = Gather (low, one)
    whole_x = Cast <to = 7> (x)
    whole_y = Cast <to = 7> (y)
    row = Sub (whole_x, first_row)
    column = Sub (whole_y, first_column)
    last_row = Sub (rows, one)
    last_column = Sub (columns, one)
    row_not_below = Max (row, zero)
    row_inside = Min (row_not_below, last_row)
    column_not_below = Max (column, zero)
    column_inside = Min (column_not_below, last_column)
    row_begins = Mul (row_inside, columns)
    inside = Add (row_begins, column_inside)
    entries = Reshape (table, flat)
    index = Add (inside, base)
    result = Gather (entries, index)
}
"""

_TEXTS = (
    _IDENTITY.format(name="Encrypt"),
    _IDENTITY.format(name="Decrypt"),
    _ROUND_BITS,
    _TABLE_LOOKUP,
    _PAIR_LOOKUP,
)


def read(opset: int) -> tuple[FunctionProto, ...]:
    """The bodies, importing this ai.onnx opset."""
    protos = []
    for text in _TEXTS:
        proto = parser.parse_function(_HEAD + text)
        proto.opset_import[0].version = opset
        protos.append(proto)
    return tuple(protos)
