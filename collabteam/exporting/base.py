"""The seam of export formats: one class writes one format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from collabteam.registry import Registry

if TYPE_CHECKING:  # listing the formats needs neither NumPy nor Pillow
    from collabteam.exporting.crops import ExportedCrop
    from collabteam.exporting.selection import Selection

IMAGES = "images"
"""Folder of the pictures, in formats that have one."""


def labels_become_a_persons(command: str) -> str:
    """Return the note for a format that one of our commands can read.

    Args:
        command: The command without ``python -m collabteam.``.
    """
    return (
        f"`python -m collabteam.{command}` takes every label in it as a person's, even the team's: "
        "remove the rows with `source` `team` first."
    )


@dataclass(frozen=True)
class WriteReport:
    """A format's report about the crops that it wrote.

    Attributes:
        remarks: Sentences for the dataset's ``README.md``.
        converted: Number of pictures that were not written byte for byte from the catalog.
    """

    remarks: list[str] = field(default_factory=list)
    converted: int = 0


class ExportFormat(ABC):
    """Writes labelled crops in the format of one tool.

    A format is one module of ``collabteam.exporting.formats``, or a class of another package that
    ``format=package.module:Class`` or an entry point of the group ``collabteam.export_format``
    names. Texts for ``README.md`` are Markdown; ``{to}`` in them stands for the folder.

    Attributes:
        name: The format's name in the dataset's ``README.md``.
        layout: The files and their content, as a phrase for ``README.md``.
        notes: Paragraphs for ``README.md`` about using the files.
        crop_column: The key of the crop's name in the files.
        box_columns: The keys of the crop's box in the files, as Markdown.
    """

    name: ClassVar[str]
    layout: ClassVar[str]
    notes: ClassVar[tuple[str, ...]] = ()
    crop_column: ClassVar[str] = "crop_id"
    box_columns: ClassVar[str] = "`box_left`, `box_top`, `box_width`, `box_height`"

    def arrange(self, selection: Selection, seed: int) -> Selection:
        """Return the crops in the order and the splits that the format needs.

        Args:
            selection: The crops, in the order of arrival.
            seed: Seed of random draws.

        Returns:
            The same crops with the same labels.
        """
        return selection

    def front_matter(self, selection: Selection) -> str:
        """Return text for the top of ``README.md``, for tools that read metadata there."""
        return ""

    @abstractmethod
    def write(
        self, crops: Iterator[ExportedCrop], folder: Path, selection: Selection, camera: str
    ) -> WriteReport:
        """Write all crops.

        The folder is temporary, so nothing remains if the format raises. Equal crops must give
        equal bytes, and only a few pictures may be in memory at a time.

        Args:
            crops: The crops in the order of the selection, an iterator to consume once.
            folder: An empty folder; ``README.md`` is added to it afterwards.
            selection: The same crops without pictures, as :meth:`arrange` returned them.
            camera: The camera's name.
        """


EXPORT_FORMATS: Registry[ExportFormat] = Registry(
    "export format", "collabteam.exporting.base:ExportFormat", "collabteam.exporting.formats"
)
"""All export formats."""
