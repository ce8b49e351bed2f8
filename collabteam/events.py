"""Events that long work emits: remarks, warnings and progress.

The domain tells a :class:`Listener`, and knows nothing of terminals or W&B. Commands choose who
listens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Tells how far a stage is."""

    def __call__(self, count: int, note: str = "") -> None:
        """Report progress.

        Args:
            count: Units just finished.
            note: A text that takes the place of the rate; empty for none.
        """


class Listener:
    """Hears what long work has to tell; this one ignores all of it.

    Subclasses override the events that they care about.
    """

    def say(self, text: str) -> None:
        """Hear a remark of one line."""

    def warn(self, text: str) -> None:
        """Hear a warning of one line."""

    @contextmanager
    def stage(self, title: str, total: int | None, unit: str) -> Iterator[Advance]:
        """Follow one stage of the work.

        Args:
            title: The stage's name for a person.
            total: Number of units; None if it is not known.
            unit: Name of the units, in plural.

        Yields:
            A function to call with the number of units just finished.
        """
        yield _ignore


def _ignore(count: int, note: str = "") -> None:
    pass


def counting(advance: Callable[[int], None]) -> Callable[[int, int], None]:
    """Adapt an :class:`Advance` to callers that report totals so far.

    Args:
        advance: Called with the number of units just finished.

    Returns:
        A function of the units finished so far, and of the total, which it ignores.
    """
    before = 0

    def so_far(done: int, total: int) -> None:
        nonlocal before
        advance(done - before)
        before = done

    return so_far
