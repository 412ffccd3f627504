"""Keys, encryption, evaluation and decryption with Concrete's runtime.

Its tracer (``concrete.fhe``, and so torch) is not imported here: neither a client nor a server needs it.
"""

from __future__ import annotations

from .ending import leave_exit_status

leave_exit_status()
