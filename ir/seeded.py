"""``onnx_fhe.client::SeededNormal``: a tensor of normal random numbers that a few bytes stand for.

Features that are public and drawn by chance (``lift-features``) need large matrices that nobody has to send:
whoever runs the model draws the same again. ONNX's own ``RandomNormal`` gives other numbers with each version
of a runtime; this body reckons with whole numbers below 2^62 until the last step, so that every runtime gives
the same but for the rounding of a logarithm and a cosine.

Element numbers go through rounds of ``x -> (a x + c)^5 mod 2^31 - 1``, a permutation (the keyed power map of
Albrecht et al., MiMC, Asiacrypt 2016), and pairs of them through Box and Muller's transform. A tensor with
more rows begins with the rows of one with fewer.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    import onnx

DOMAIN = "onnx_fhe.client"
"""Operators that clients alone run."""
OPERATOR = "SeededNormal"
_MULTIPLIERS = (48271, 69621, 39373, 44485709)
"""Of each round: primitive roots of 2^31 - 1 (Park and Miller, 1988; L'Ecuyer, 1988)."""
_HEAD = f"""
<domain: "{DOMAIN}", opset_import: ["" : 18]>
{OPERATOR} <seed: int, shape: ints> () => (result)
{{
    zero = Constant <value_int = 0> ()
    one = Constant <value_int = 1> ()
    prime = Constant <value_int = 2147483647> ()
    key = Constant <value_int: int = @seed> ()
    wanted = Constant <value_ints: ints = @shape> ()
    count = ReduceProd <keepdims = 0> (wanted)
    twice = Add (count, count)
    x0 = Range (zero, twice, one)
"""
_ROUND = """
    by{n} = Constant <value_int = {multiplier}> ()
    scaled{n} = Mul (x{n}, by{n})
    keyed{n} = Add (scaled{n}, key)
    base{n} = Mod (keyed{n}, prime)
    squared{n} = Mul (base{n}, base{n})
    square{n} = Mod (squared{n}, prime)
    fourth_power{n} = Mul (square{n}, square{n})
    fourth{n} = Mod (fourth_power{n}, prime)
    fifth{n} = Mul (fourth{n}, base{n})
    x{next} = Mod (fifth{n}, prime)
"""
_TAIL = """
    half = Constant <value_float = 0.5> ()
    whole = Constant <value_float = 2147483648.0> ()
    numbers = Cast <to = 1> (x{last})
    middles = Add (numbers, half)
    uniform = Div (middles, whole)
    two_columns = Constant <value_ints = [-1, 2]> ()
    pairs = Reshape (uniform, two_columns)
    radii = Gather <axis = 1> (pairs, zero)
    angles = Gather <axis = 1> (pairs, one)
    minus_two = Constant <value_float = -2.0> ()
    turn = Constant <value_float = 6.2831853> ()
    logarithms = Log (radii)
    squares = Mul (logarithms, minus_two)
    lengths = Sqrt (squares)
    turned = Mul (angles, turn)
    cosines = Cos (turned)
    flat = Mul (lengths, cosines)
    result = Reshape (flat, wanted)
}}
"""


@cache
def bodies() -> dict[tuple[str, str], onnx.FunctionProto]:
    """The body, by (domain, name)."""
    from onnx import parser

    rounds = "".join(_ROUND.format(n=n, next=n + 1, multiplier=m) for n, m in enumerate(_MULTIPLIERS))
    text = _HEAD + rounds + _TAIL.format(last=len(_MULTIPLIERS))
    return {(DOMAIN, OPERATOR): parser.parse_function(text)}


def attributes(seed: int, shape: list[int]) -> list[ir.Attr]:
    """The attributes of a node.

    Args:
        seed: Below 2^31.
        shape: Of the tensor; fewer than 2^30 elements.
    """
    return [ir.AttrInt64("seed", seed), ir.AttrInt64s("shape", shape)]
