"""Stages: long work as a list of steps, and the runner that executes them.

A stage is a frozen dataclass. Its fields are its inputs, :meth:`Stage.compute` makes its output
from them, and :meth:`Stage.save` leaves the output where :meth:`Stage.saved` finds it again. There
is no other state, so a killed command is simply run again: the runner loads the saved outputs and
computes the others.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import ClassVar, Generic, TypeVar

from collabteam.events import Listener

Output = TypeVar("Output")


class Stage(ABC, Generic[Output]):
    """One step of long work; subclasses are frozen dataclasses whose fields are the inputs.

    Attributes:
        name: The key for its time; stages may share a name.
    """

    name: ClassVar[str]

    def saved(self, listener: Listener) -> Output | None:
        """Return the saved output if exactly these inputs made it, else None.

        Without this method, a stage is computed each time.

        Args:
            listener: Receives the reason why a saved output is not used.
        """
        return None

    def discard(self) -> None:
        """Withdraw a saved output that other inputs made; called before :meth:`compute`."""

    @abstractmethod
    def compute(self, listener: Listener) -> Output:
        """Make the output.

        A stage that can save parts of its output does so here and resumes after the last saved
        part.

        Args:
            listener: Where progress goes.
        """

    def tell(self, output: Output, listener: Listener) -> None:
        """Tell a person about a new output; called before it is saved, so that nothing is lost."""

    def save(self, output: Output) -> None:
        """Save the output, whole or not at all."""

    def earlier_seconds(self, output: Output) -> float:
        """Return how long a saved output took to compute, where that is known."""
        return 0.0


class Runner:
    """Runs stages: loads saved outputs, computes the others, and records the time.

    Args:
        listener: Where progress, remarks and warnings go.
        lock: Held while a stage is computed and saved. Another process may have saved the output
            before the lock was free, so the runner looks again. None if the caller holds the lock.

    Attributes:
        seconds: Time so far by the stages' names.
    """

    def __init__(
        self,
        listener: Listener,
        lock: Callable[[], AbstractContextManager[object]] | None = None,
    ) -> None:
        self.listener, self._lock = listener, lock
        self.seconds: dict[str, float] = {}

    def run(self, stage: Stage[Output]) -> Output:
        """Return the output of a stage, saved or new."""
        began = time.perf_counter()
        output = stage.saved(self.listener)
        if output is not None:
            self._book(stage.name, stage.earlier_seconds(output))
        elif self._lock is None:
            output = self._make(stage)
        else:
            with self._lock():
                output = stage.saved(self.listener)
                if output is None:
                    output = self._make(stage)
        self._book(stage.name, time.perf_counter() - began)
        return output

    def _make(self, stage: Stage[Output]) -> Output:
        stage.discard()
        output = stage.compute(self.listener)
        stage.tell(output, self.listener)
        stage.save(output)
        return output

    def _book(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
