"""Typed views of the operators that make a circuit, and of quantizers: what a node says, by name.

A view holds a node and reads it each time it is asked, so it is never out of date.
``TableLookup.match(node)`` is None for any other node, ``TableLookup.of(node)`` is for a node that is known
to be one, and ``TableLookup.all_in(model)`` lists those of a model. ``TableLookup.make(...)`` builds a node,
which an editor of graphs then names and inserts. Attributes that a node leaves out have the defaults of the
schemas (``ir.dialect``); nothing else repeats these.
"""

from __future__ import annotations

from .boundary import Decrypt, Encrypt, decrypts_by_output, encrypts_by_input
from .lookup import TableLookup, along_axis
from .pair_lookup import PairLookup
from .quantizer import ActivationQuantizer, DequantizeLinear, QuantizeLinear
from .rounding import RoundBits

__all__ = [
    "ActivationQuantizer",
    "Decrypt",
    "DequantizeLinear",
    "Encrypt",
    "PairLookup",
    "QuantizeLinear",
    "RoundBits",
    "TableLookup",
    "along_axis",
    "decrypts_by_output",
    "encrypts_by_input",
]
