"""How a process ends in which Concrete's runtime ran: with the status that Python gives it."""

from __future__ import annotations

import atexit

from concrete import compiler


def leave_exit_status() -> None:
    """Take away what Concrete does when Python ends: once its runtime has run, it ends the process with 0.

    A program that failed would look as if it had not. What is taken away stops the runtime's data-flow
    scheduler, which nothing here starts.
    """
    atexit.unregister(compiler._terminate_df_parallelization)
