"""Events that long work emits: remarks, warnings, progress, figures and finished rounds.

The domain reports to a :class:`Listener` and does not depend on terminals or W&B. Commands choose
the listeners; without one, the work is silent and nothing is logged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


class Advance(Protocol):
    """Reports the progress of a stage."""

    def __call__(self, count: int, note: str = "") -> None:
        """Report progress.

        Args:
            count: Units just finished.
            note: A text shown instead of the rate; empty for none.
        """


@dataclass(frozen=True)
class Fit:
    """The training of the networks of one fold.

    Attributes:
        camera: The camera's name.
        round: The round, 0 or more.
        fold: The fold, 0 or more.
        folder: The round's folder.
        settings: Nested settings and facts that determine the training.
    """

    camera: str
    round: int
    fold: int
    folder: Path
    settings: Mapping[str, Any]


class Listener:
    """Receives the events of long work; this base class ignores them.

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
            title: The stage's name for display.
            total: Number of units; None if it is not known.
            unit: Name of the units, in plural.

        Yields:
            A function to call with the number of units just finished.
        """
        yield _ignore

    @contextmanager
    def fit(self, fit: Fit) -> Iterator[Logger | None]:
        """Follow the training of one fold.

        Args:
            fit: The training that begins.

        Yields:
            The Lightning logger that gets the curves; None for no curves.
        """
        yield None

    def metrics(self, round_: int, values: Mapping[str, float]) -> None:
        """Hear figures of the fit that is being followed.

        Args:
            round_: The round, 0 or more.
            values: Figures by key, as ``docs/tracking.md`` lists them.
        """

    def rounds_finished(self, folder: Path) -> None:
        """Hear that the rounds in a camera's folder are complete.

        It is called after each round and at the start of a command, so that a listener can catch up
        on rounds that an earlier command finished but was killed before reporting.

        Args:
            folder: The camera's folder; ``round-<k>/round.json`` holds the record of each round.
        """


class Listeners(Listener):
    """Several listeners; each receives all events.

    Args:
        listeners: The listeners. The curves of a fit go to the first one that has a logger.
    """

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def say(self, text: str) -> None:
        """Hear a remark of one line."""
        for one in self._listeners:
            one.say(text)

    def warn(self, text: str) -> None:
        """Hear a warning of one line."""
        for one in self._listeners:
            one.warn(text)

    @contextmanager
    def stage(self, title: str, total: int | None, unit: str) -> Iterator[Advance]:
        """Follow one stage of the work."""
        with ExitStack() as stack:
            all_of_them = [
                stack.enter_context(one.stage(title, total, unit)) for one in self._listeners
            ]

            def advance(count: int, note: str = "") -> None:
                for tell in all_of_them:
                    tell(count, note)

            yield advance

    @contextmanager
    def fit(self, fit: Fit) -> Iterator[Logger | None]:
        """Follow the training of one fold."""
        with ExitStack() as stack:
            loggers = [stack.enter_context(one.fit(fit)) for one in self._listeners]
            yield next((logger for logger in loggers if logger is not None), None)

    def metrics(self, round_: int, values: Mapping[str, float]) -> None:
        """Hear figures of the fit that is being followed."""
        for one in self._listeners:
            one.metrics(round_, values)

    def rounds_finished(self, folder: Path) -> None:
        """Hear that the rounds in a camera's folder are complete."""
        for one in self._listeners:
            one.rounds_finished(folder)


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
