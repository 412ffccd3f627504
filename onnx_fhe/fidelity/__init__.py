"""How faithful a circuit is to the network that it was made from: measured, judged and put into words.

``figures`` is what an artifact remembers, ``measure`` compares two sets of outputs, ``verdict`` says what
that is worth, ``words`` says it aloud. ``check`` does it all for a circuit, ``causes`` finds the step that
lost most, ``samples`` looks at the calibration data and its labels, and ``ciphertexts`` tries the circuit
encrypted.
"""
