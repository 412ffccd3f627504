"""What a progress bar tells besides how much is done."""

from __future__ import annotations

from rich.progress import ProgressColumn, Task
from rich.text import Text


class RateColumn(ProgressColumn):
    """How many are done a second, once that is known."""

    def render(self, task: Task) -> Text:
        """The rate of a task that counts more than a few steps."""
        rate = task.finished_speed or task.speed
        return Text("" if not rate or (task.total or 0) < 3 else f"{rate:.3g} a second")
