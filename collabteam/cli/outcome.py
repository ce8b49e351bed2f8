"""The result of a command."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """The result of a command, also for the table at the end of a sweep.

    Attributes:
        note: One line on it.
        state: ``done``, ``skipped`` (there was nothing to do) or ``failed``.
        code: The exit code of the command alone.
        seconds: How long it took.
    """

    note: str = ""
    state: str = "done"
    code: int = 0
    seconds: float = 0.0
