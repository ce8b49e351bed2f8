"""The seam of exchange formats: one class writes tasks for a tool and reads its answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TextIO

from collabteam.errors import UserError
from collabteam.registry import Registry

if TYPE_CHECKING:
    from collabteam.reviewing.exchange.answers import AnswerCollector


@dataclass(frozen=True)
class Task:
    """One crop for a person to judge.

    Attributes:
        crop_id: The crop.
        suggested: A class, ``unknown``, ``unusable``, or ``""`` for no suggestion.
    """

    crop_id: str
    suggested: str = ""


@dataclass(frozen=True)
class WrittenTask:
    """A task whose picture has been written, and what a tool may show of it.

    Attributes:
        crop_id: The crop.
        suggested: A class, ``unknown``, ``unusable``, or ``""`` for no suggestion.
        file: Name of its picture, without the folder.
        width: Width of the picture, in pixels.
        height: Height of the picture, in pixels.
        video: ``""`` for none.
        track: ``""`` for none.
        time: ISO 8601 in UTC, ``""`` if nobody knows.
    """

    crop_id: str
    suggested: str
    file: str
    width: int
    height: int
    video: str
    track: str
    time: str


@dataclass(frozen=True)
class TaskList:
    """Facts about all tasks of a file.

    Attributes:
        camera: The camera's name.
        labels: The possible answers: the classes, ``unknown`` and ``unusable``.
        count: Number of tasks.
        images: Name of the folder with the pictures, beside the file or inside the archive.
    """

    camera: str
    labels: Sequence[str]
    count: int
    images: str


class ExchangeFormat(ABC):
    """Writes crops as tasks of one annotation tool, and reads what the tool exports.

    A format is one module of ``collabteam.reviewing.exchange.formats``, or a class of another
    package that ``format=package.module:Class`` or an entry point of the group
    ``collabteam.exchange_format`` names.

    Attributes:
        name: As the user types it.
        suffixes: Endings of a file of tasks, such as ``.json``; with ``.zip`` the pictures are in
            the archive, with any other ending in a folder beside the file.
        answers: The files that :meth:`read` takes, a phrase for messages.
        archive_member: Name of the file of tasks in an archive.
        takes_any_text: Whether :meth:`recognises` accepts every text, so that all other formats
            are asked first.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    answers: ClassVar[str]
    archive_member: ClassVar[str] = "tasks"
    takes_any_text: ClassVar[bool] = False

    # -- tasks -------------------------------------------------------------------------------

    def check_target(self, to: Path) -> None:
        """Raise unless tasks can go into a file of this name.

        Raises:
            UserError: Another ending is needed, or there is no such folder.
        """
        if to.suffix.lower() not in self.suffixes:
            raise UserError(
                f"{to}: format={self.name} needs a file name that ends with "
                f"{' or '.join(self.suffixes)}"
            )
        if not to.parent.is_dir():
            raise UserError(
                f"{to} cannot be written: there is no folder {to.parent}; make it first"
            )

    def arrange(self, tasks: Sequence[Task]) -> Sequence[Task]:
        """Put tasks into the order that the tool needs."""
        return tasks

    def companion(self, to: Path, labels: Sequence[str]) -> tuple[Path, str] | None:
        """A small file beside the tasks, such as a labelling interface.

        Args:
            to: The file of tasks.
            labels: The possible answers.

        Returns:
            Its path and its content; None if the tool needs none.
        """
        return None

    @abstractmethod
    def write(self, tasks: Iterator[WrittenTask], file: TextIO, about: TaskList) -> None:
        """Write all tasks.

        Args:
            tasks: To be consumed once; a task's picture is written when the task is taken.
            file: Opened for writing in UTF-8 with ``newline=""``.
            about: Facts about all of them.
        """

    @abstractmethod
    def instructions(self, to: Path, images: Path, count: int) -> list[str]:
        """Lines for the user: what was written, and how to open it in the tool.

        Args:
            to: The file of tasks.
            images: The folder of the pictures; not there if they are in an archive.
            count: Number of tasks.
        """

    # -- answers -----------------------------------------------------------------------------

    @abstractmethod
    def recognises(self, start: bytes) -> bool:
        """Whether a file that begins like this may be an export of the tool.

        Args:
            start: Up to 64 bytes, without a byte order mark and leading white space.
        """

    @abstractmethod
    def read(self, file: Path, answers: AnswerCollector) -> None:
        """Read what the tool exported, and nothing but this file.

        The content may be damaged or hostile. No path and no address in it may be followed.

        Args:
            file: A regular file whose start the format recognises.
            answers: Takes answers and problems.

        Raises:
            NotAnAnswerFile: It is no export of the tool, or larger than allowed.
        """


EXCHANGE_FORMATS: Registry[ExchangeFormat] = Registry(
    "exchange format",
    "collabteam.reviewing.exchange.base:ExchangeFormat",
    "collabteam.reviewing.exchange.formats",
)
"""All exchange formats."""
