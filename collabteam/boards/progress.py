"""What a command shows while it works: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_SILENCE = 30.0
"""Seconds between lines where there is no terminal to redraw."""


class Advance(Protocol):
    """How a stage is told what was done."""

    def __call__(self, count: int, note: str = "") -> None:
        """Count units just done; a note, if there is one, stands where the rate would."""


class Console:
    """Progress, remarks and warnings, on standard error so that output can be piped.

    Args:
        quiet: Show nothing at all.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.rich = RichConsole(file=sys.stderr, highlight=False)

    def say(self, text: str) -> None:
        """One remark."""
        if not self.quiet:
            self.rich.print(text, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """One warning."""
        if not self.quiet:
            self.rich.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)

    @staticmethod
    def counting(advance: Callable[[int], None]) -> Callable[[int, int], None]:
        """Turn a function of what was just done into one of what is done so far and the total."""
        before = 0

        def so_far(done: int, total: int) -> None:
            nonlocal before
            advance(done - before)
            before = done

        return so_far

    @contextmanager
    def stage(self, title: str, total: int | None, unit: str) -> Iterator[Advance]:
        """Show how far a stage is, its rate and the time left.

        Args:
            title: What is being done.
            total: Number of units; None if nobody knows.
            unit: What is counted, in plural.

        Yields:
            A function to call with the number of units just done.
        """
        if self.quiet or (total is not None and total <= 0):
            yield _silent
        elif self.rich.is_terminal:
            yield from self._bar(title, total, unit)
        else:
            yield from self._lines(title, total, unit)

    def _bar(self, title: str, total: int | None, unit: str) -> Iterator[Advance]:
        bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(None), TaskProgressColumn(),
            TextColumn("{task.fields[rate]}", markup=False), TimeRemainingColumn(),
            console=self.rich, expand=True,
        )  # fmt: skip
        with bar:
            task = bar.add_task(title, total=total, rate="")
            began = time.monotonic()

            def advance(count: int, note: str = "") -> None:
                done = bar.tasks[0].completed + count
                rate = done / max(1e-9, time.monotonic() - began)
                bar.update(task, completed=done, rate=note or f"{rate:.0f} {unit}/s")

            yield advance

    def _lines(self, title: str, total: int | None, unit: str) -> Iterator[Advance]:
        began = spoke = time.monotonic()
        done, last_note = 0, ""

        def advance(count: int, note: str = "") -> None:
            nonlocal done, spoke, last_note
            last_note = note or last_note
            done += count
            now = time.monotonic()
            if now - spoke >= _SILENCE:
                spoke = now
                rate = done / (now - began)
                parts = [note or f"{rate:.0f} {unit}/s"]
                if total is not None:
                    left = int((total - done) / rate) if rate else 0
                    parts = [f"{done / total:.0%}", *parts, f"{left // 60}:{left % 60:02d} left"]
                self.say(f"{title}: {', '.join(parts)}")

        yield advance
        took = time.monotonic() - began
        rate = last_note or f"{done / max(1e-9, took):.0f} {unit}/s"
        self.say(f"{title}: done in {took:.0f} s ({rate})")


def _silent(count: int, note: str = "") -> None:
    """Tell nobody."""
