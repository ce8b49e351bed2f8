"""A folder per split with a folder per class, the layout of torchvision's ``ImageFolder``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from collabteam.exporting.base import ExportFormat, WriteReport
from collabteam.exporting.crops import ExportedCrop
from collabteam.exporting.metadata_table import METADATA_TABLE, MetadataTable
from collabteam.exporting.selection import HELD_OUT, Selection
from collabteam.pictures import as_png


class ImageFolder(ExportFormat):
    """``train/<class>/``, the same for every other split, and ``metadata.csv``.

    Attributes:
        as_png: Extensions that the loader cannot open; these pictures are converted to PNG.
    """

    name = "imagefolder"
    layout = "`train/<class>/<crop>.jpg` and the same for every other split; `metadata.csv`"
    notes = (
        '`torchvision.datasets.ImageFolder("{to}/train", allow_empty=True)`: each split has a '
        "folder for every class that occurs, even if empty, so that classes have the same "
        "numbers.",
    )
    as_png: ClassVar[tuple[str, ...]] = (".gif",)

    def splits(self, selection: Selection) -> list[str]:
        """Return the names of the splits that get a folder."""
        return sorted(set(selection.split.tolist()))

    def write(
        self, crops: Iterator[ExportedCrop], folder: Path, selection: Selection, camera: str
    ) -> WriteReport:
        """Write the pictures and the table."""
        present = [name for name in selection.classes if selection.count(name)]
        for split in self.splits(selection):
            # Loaders number the classes by the folders of a split, so every split has the same
            # folders. Held-out crops are for neither training nor measuring, so they need none.
            for name in present:
                if split != HELD_OUT or selection.count(name, split=split):
                    (folder / split / name).mkdir(parents=True)
        converted = 0
        with (folder / METADATA_TABLE).open("w", encoding="utf-8", newline="") as file:
            table = MetadataTable(file)
            for crop in crops:
                image, name = crop.image, crop.file
                if crop.extension in self.as_png:
                    image, name = as_png(image), f"{crop.crop_id}.png"
                    converted += 1
                place = f"{crop.split}/{crop.label}/{name}"
                (folder / place).write_bytes(image)
                table.add(crop, place)
        if not converted:
            return WriteReport()
        remark = (
            "Written as PNG, with the same pixels, because the loader cannot read "
            f"{' or '.join(self.as_png)}: {converted} of the pictures."
        )
        return WriteReport([remark], converted)
