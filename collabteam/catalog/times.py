"""When crops were taken: Unix seconds from 1970 to 2100, and how numbers in other units are told.

Trackers and data frames count in milliseconds, microseconds or nanoseconds as well. Between 1973
and 2100 the numbers of no two units overlap, so a number that is too large for seconds tells its
unit.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

BEGIN, END = 0.0, 4_102_444_800.0
"""The times that a catalog takes: from 1970 until 2100, in Unix seconds."""
UNITS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
"""The units that are told apart, and how many of them make a second."""

# 1973 in Unix seconds: from here on, no number is a time in two units.
_CLEAR = 1e8


def is_time(seconds: float) -> bool:
    """Whether a catalog takes a time: NaN, which means unknown, or from 1970 until 2100."""
    return math.isnan(seconds) or BEGIN <= seconds < END


def units(numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    """Tell the unit of each number.

    Args:
        numbers: Shape ``(N,)``, times since 1970; no NaN.

    Returns:
        Shape ``(N,)``: the number of the unit in ``UNITS``, -1 for a time outside 1970 to 2100 in
        every unit.
    """
    found = np.full(len(numbers), -1, dtype=np.int8)
    for number, factor in enumerate(UNITS.values()):
        least = BEGIN if factor == 1 else _CLEAR * factor
        found[(numbers >= least) & (numbers < END * factor)] = number
    return found


def unix_seconds(stored: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Read the times of a catalog, which earlier versions let in in any unit.

    Args:
        stored: Shape ``(N,)``, NaN for unknown.

    Returns:
        Shape ``(N,)``: Unix seconds from 1970 until 2100; NaN for every other time.
    """
    usual = (stored >= BEGIN) & (stored < END)
    if (usual | np.isnan(stored)).all():
        return stored
    unit = units(np.nan_to_num(stored, nan=-1.0, posinf=-1.0, neginf=-1.0))
    factor = np.array([*UNITS.values(), np.nan], dtype=np.float64)[unit]
    seconds: npt.NDArray[np.float64] = stored / factor
    return seconds
