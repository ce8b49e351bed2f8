"""The machine's processors and clock."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime


def processors() -> int:
    """Number of processors that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def utc_time(seconds: float) -> datetime:
    """Convert Unix seconds to a date in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def utc_stamp(seconds: float | None = None) -> str:
    """Format a time as records do, in UTC, ISO 8601, whole seconds: ``2026-11-22T13:40:00Z``.

    Args:
        seconds: Unix time; None for now.
    """
    moment = utc_time(time.time() if seconds is None else seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
