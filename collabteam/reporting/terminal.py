"""Progress of a command: bars on a terminal, occasional lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console as RichConsole
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from collabteam.errors import UserError, plain
from collabteam.events import Advance, Listener
from collabteam.reporting.output import console, tell
from collabteam.storage.files import read_json, write_json

_SILENCE = 30.0
"""Seconds between lines without a terminal."""


_REASON = 40
"""Columns that the reason of a failure needs beside the names of cameras."""


@dataclass
class Status:
    """The progress of a command, for a monitor of many commands.

    Attributes:
        stage: Title of the stage.
        done: Units finished.
        total: Units in all; None if unknown.
        rate: Units per second in words, or the stage's own note.
        left: Seconds left; None if unknown.
        time: Time of writing, Unix seconds.
    """

    stage: str
    done: float
    total: int | None
    rate: str
    left: float | None
    time: float

    def in_words(self) -> str:
        """One line: stage, share done, rate, time left."""
        parts = [f"{self.done / self.total:.0%}"] if self.total else []
        parts += [self.rate] if self.rate else []
        if self.left is not None:
            parts.append(f"{int(self.left) // 60}:{int(self.left) % 60:02d} left")
        return ", ".join([self.stage, *parts])


def read_status(file: Path) -> Status | None:
    """Read the file of a :class:`StatusFile`; None if there is none yet."""
    try:
        status = Status(**read_json(file))
        status.in_words()
        return status
    except (UserError, TypeError, ValueError, OverflowError):
        return None


class StatusFile(Listener):
    """Keeps the :class:`Status` of the work in a file for other processes.

    Args:
        file: Replaced at most once a second; read it with :func:`read_status`.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    @contextmanager
    def stage(self, title: str, total: int | None, unit: str) -> Iterator[Advance]:
        """Keep a stage's progress, rate and time left."""
        began = time.monotonic()
        written, done = -1.0, 0

        def advance(count: int, note: str = "") -> None:
            nonlocal written, done
            done += count
            now = time.monotonic()
            if now - written < 1:
                return
            written = now
            rate = done / max(1e-9, now - began)
            left = (total - done) / rate if total is not None and rate else None
            text = note or (f"{rate:.0f} {unit}/s" if rate else "")
            self._keep(Status(title, done, total, text, left, time.time()))

        advance(0)
        yield advance

    def _keep(self, status: Status) -> None:
        # Neither a full disk nor a lost file may stop the work, so errors are ignored.
        with suppress(UserError, OSError):
            write_json(self._file, asdict(status))


class Terminal(Listener):
    """Progress, remarks and warnings, on standard error so that output can be piped."""

    def __init__(self) -> None:
        self.rich = console(on_stderr=True, narrowest=1)

    def say(self, text: str) -> None:
        """One remark."""
        self.rich.print(plain(text), soft_wrap=True)

    def warn(self, text: str) -> None:
        """One warning."""
        self.rich.print(plain(f"warning: {text}"), style="yellow", soft_wrap=True)

    @contextmanager
    def stage(self, title: str, total: int | None, unit: str) -> Iterator[Advance]:
        """Show a stage's progress, rate and time left.

        Args:
            title: Title of the stage.
            total: Number of units; None if unknown.
            unit: Name of the units, in plural.

        Yields:
            A function to call with the number of units just finished.
        """
        if total is not None and total <= 0:
            with super().stage(title, total, unit) as ignore:
                yield ignore
        elif _redraws(self.rich):
            yield from self._bar(plain(title), total, unit)
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


class SweepMonitor:
    """Shows a sweep: one line per job while it runs, and a table at the end.

    Args:
        command: The command.
        titles: The name of each job.
        state: Returns, for a job's number, ``waits``, ``runs`` or its outcome, and its progress.
    """

    def __init__(
        self, command: str, titles: list[str], state: Callable[[int], tuple[str, str]]
    ) -> None:
        self.command = command
        self.titles = titles
        self.state = state
        self.rich = console(on_stderr=True, narrowest=1)
        self._over = threading.Event()
        self._began = time.monotonic()

    def __enter__(self) -> SweepMonitor:
        """Start the display."""
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop showing."""
        self._over.set()
        self._thread.join()

    def _follow(self) -> None:
        if _redraws(self.rich):
            with Live(console=self.rich, transient=True, auto_refresh=False) as live:
                while not self._over.wait(1):
                    live.update(self._lines(), refresh=True)
            return
        said: dict[int, str] = {}
        spoke = time.monotonic()
        while not self._over.wait(1):
            periodic = time.monotonic() - spoke >= _SILENCE
            spoke = time.monotonic() if periodic else spoke
            self._say_news(said, periodic)
        self._say_news(said, False)

    def _say_news(self, said: dict[int, str], running: bool) -> None:
        for number, title in enumerate(self.titles):
            state, text = self.state(number)
            if state == "waits" or (
                said.get(number) == state and not (running and state == "runs")
            ):
                continue
            said[number] = state
            shown = text if state == "runs" else f"{state}{text and f', {text}'}"
            self.rich.print(plain(f"{title}: {shown}"), soft_wrap=True)

    def _lines(self) -> Table:
        """The running jobs, and the number of the others."""
        table = Table.grid(padding=(0, 2))
        states = [self.state(number) for number in range(len(self.titles))]
        for title, (state, text) in zip(self.titles, states, strict=True):
            if state == "runs":
                table.add_row(Text(plain(title)), Text(plain(text)))
        counts = Counter(state for state, _ in states)
        through = len(states) - counts["runs"] - counts["waits"]
        elapsed = int(time.monotonic() - self._began)
        rest = [f"{through} of {len(states)} through", f"{elapsed // 60}:{elapsed % 60:02d}"]
        if through and counts["waits"] + counts["runs"]:
            left = int(elapsed / through * (len(states) - through))
            rest.append(f"{left // 60}:{left % 60:02d} left")
        if counts["failed"]:
            rest.append(f"{counts['failed']} failed")
        table.add_row(Text(self.command), Text(", ".join(rest)))
        return table

    def table(self, outcomes: Sequence[tuple[str, float, str]], folder: Path) -> None:
        """Print the outcome of each job on standard output.

        Args:
            outcomes: Per job its state, its duration in seconds, and one line.
            folder: The folder of the jobs' logs.
        """
        out = console()
        rows = [
            (plain(title), state, f"{int(seconds) // 60}:{int(seconds) % 60:02d}", plain(note))
            for title, (state, seconds, note) in zip(self.titles, outcomes, strict=True)
        ]
        colours = {"failed": "red", "skipped": "dim"}
        # The names, the states, the times, and what rich puts between and around them.
        beside = (
            max(len(row[0]) for row in rows) + len("skipped") + max(len(row[2]) for row in rows)
        )
        if out.width - beside - 12 >= _REASON:
            table = Table(box=SIMPLE_HEAD)
            for column in ("camera", "", "time"):
                right = column == "time"
                table.add_column(column, no_wrap=True, justify="right" if right else "left")
            table.add_column("", overflow="fold")
            for title, state, took, note in rows:
                table.add_row(title, Text(state, colours.get(state, "green")), took, note)
            out.print(table)
        else:
            for title, state, took, note in rows:
                line = Text.assemble(title, " ", (state, colours.get(state, "green")), f" {took}")
                out.print(line, soft_wrap=True)
                out.print(f"  {note}", soft_wrap=True)
        counts = Counter(state for state, *_ in outcomes)
        summary = ", ".join(f"{counts[state]} {state}" for state in ("done", "skipped", "failed"))
        then = "; run the same command again for the missing ones" if counts["failed"] else ""
        tell((f"{self.command}: {summary}{then}", f"logs of the jobs: {folder}/*.log"))


def _redraws(on: RichConsole) -> bool:
    """Whether a console can draw over what it drew before."""
    return on.is_terminal and not on.is_dumb_terminal
