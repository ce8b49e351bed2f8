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
    """One crop for a person to verify.

    Attributes:
        crop_id: The crop.
        suggested: A class, ``unknown``, ``unusable``, or ``""`` for no suggestion.
        preselect: Whether a tool may present the suggestion as the answer, to be confirmed.
    """

    crop_id: str
    suggested: str = ""
    preselect: bool = True


@dataclass(frozen=True)
class WrittenTask:
    """A task whose picture has been written, with the details that a tool may show.

    Attributes:
        crop_id: The crop.
        suggested: A class, ``unknown``, ``unusable``, or ``""`` for no suggestion.
        preselect: Whether the tool may present the suggestion as the answer, to be confirmed.
        file: Name of its picture, without the folder.
        width: Width of the picture, in pixels.
        height: Height of the picture, in pixels.
        video: ``""`` for none.
        track: ``""`` for none.
        time: ISO 8601 in UTC, ``""`` if unknown.
    """

    crop_id: str
    suggested: str
    preselect: bool
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
        answers: The files that :meth:`read` accepts, as a phrase for messages.
        archive_member: Name of the file of tasks in an archive.
        takes_any_text: Whether :meth:`recognises` accepts every text; all other formats are then
            tried first.
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
        """Return a small file to write beside the tasks, such as a labelling interface.

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
            tasks: An iterator to consume once; taking a task writes its picture.
            file: A file opened for writing in UTF-8 with ``newline=""``.
            about: Facts about all of them.
        """

    @abstractmethod
    def instructions(self, to: Path, images: Path, count: int) -> list[str]:
        """Return lines for the user: what was written, and how to open it in the tool.

        Args:
            to: The file of tasks.
            images: The folder of the pictures; it does not exist if they are in an archive.
            count: Number of tasks.
        """

    # -- answers -----------------------------------------------------------------------------

    @abstractmethod
    def recognises(self, start: bytes) -> bool:
        """Return whether a file that begins like this may be an export of the tool.

        Args:
            start: Up to 64 bytes, without a byte order mark and leading white space.
        """

    @abstractmethod
    def read(self, file: Path, answers: AnswerCollector) -> None:
        """Read the tool's export, and no other file.

        The content may be damaged or hostile: do not follow any path or address in it.

        Args:
            file: A regular file whose start the format recognises.
            answers: Collects answers and problems.

        Raises:
            NotAnAnswerFile: It is not an export of the tool, or is larger than allowed.
        """


EXCHANGE_FORMATS: Registry[ExchangeFormat] = Registry(
    "exchange format",
    "collabteam.reviewing.exchange.base:ExchangeFormat",
    "collabteam.reviewing.exchange.formats",
)
"""All exchange formats."""
