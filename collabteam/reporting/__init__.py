"""What people look at: terminal, figures, the fleet's page, W&B."""

from __future__ import annotations


def percent(rate: float | None, digits: int = 1) -> str:
    """Rate from 0 to 1 as percent without a sign, ``-`` for one that is not known."""
    return "-" if rate is None else f"{100 * rate:.{digits}f}"
