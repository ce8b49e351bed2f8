"""Read the labelled crops of a selection one by one, for all export formats."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from collabteam.catalog.catalog import Catalog
from collabteam.errors import UndecodableCrops
from collabteam.exporting.selection import Selection
from collabteam.pictures import UndecodablePicture, portable

READ_AT_ONCE = 256
"""The largest number of pictures in memory at a time."""

ATTRIBUTES = (
    *("label", "split", "source", "confidence", "round", "team", "proposed"),
    *("video", "track", "frame", "time"),
)
"""Attributes that every format writes besides picture, name and box, in this order."""
BOX_SIDES = ("box_left", "box_top", "box_width", "box_height")
"""Names of the four numbers of a box, for formats with one column for each."""


@dataclass(frozen=True)
class ExportedCrop:
    """One crop with its label.

    Attributes:
        crop_id: The crop.
        image: Encoded picture, unchanged from the catalog unless ``converted``.
        extension: Extension of a file with this picture, such as ``.jpg``.
        width: Width of the picture as programs show it, in pixels.
        height: Height of the picture as programs show it, in pixels.
        label: A class, or ``unknown``.
        split: ``train``, ``val``, ``test`` or ``held-out``.
        source: ``person``, ``import``, ``oracle`` or ``team``.
        confidence: The team's confidence, 0 to 1; None for labels of persons.
        round: The team's round; None for labels of persons.
        team: The team's fingerprint; ``""`` for labels of persons.
        proposed: The detector's proposal, ``""`` for none.
        video: Name of the video, ``""`` for none.
        track: Track of the object within its video, ``""`` for none.
        frame: Number of the frame in the video, from 0; None for none.
        time: Unix seconds; None if unknown.
        box: Left, top, width and height in the frame, in pixels; None if unknown.
        converted: Whether the picture became a PNG, because programs would not agree about it.
    """

    crop_id: str
    image: bytes
    extension: str
    width: int
    height: int
    label: str
    split: str
    source: str
    confidence: float | None
    round: int | None
    team: str
    proposed: str
    video: str
    track: str
    frame: int | None
    time: float | None
    box: list[float] | None
    converted: bool = False

    @property
    def file(self) -> str:
        """File name of the picture."""
        return self.crop_id + self.extension

    def attributes(self) -> dict[str, Any]:
        """Return the values of ``ATTRIBUTES``, in this order."""
        return {name: getattr(self, name) for name in ATTRIBUTES}

    def box_sides(self) -> dict[str, float | None]:
        """Return the box by ``BOX_SIDES``, with None for all sides if it is unknown."""
        if self.box is None:
            return dict.fromkeys(BOX_SIDES)
        return dict(zip(BOX_SIDES, self.box, strict=True))


def read_crops(
    catalog: Catalog, selection: Selection, advance: Callable[[int], None]
) -> Iterator[ExportedCrop]:
    """Read the selected crops, few pictures at a time.

    Args:
        catalog: The camera.
        selection: The crops to read, in order.
        advance: Called after each consumed part with its number of crops.

    Yields:
        Every crop of the selection once.

    Raises:
        UndecodableCrops: Pictures cannot be decoded; it names all of them in the selection.
        UserError: The catalog is damaged.
    """
    faults: dict[str, str] = {}
    for start in range(0, len(selection), READ_AT_ONCE):
        part = range(start, min(start + READ_AT_ONCE, len(selection)))
        rows = selection.rows[part.start : part.stop]
        pictures, origins = catalog.images(rows), catalog.origins(rows)
        for place, row, image, origin in zip(part, rows, pictures, origins, strict=True):
            crop_id = str(selection.index.crop_id[row])
            try:
                shown = portable(image)
            except UndecodablePicture as error:
                faults[crop_id] = str(error)
            if faults:  # from here on only search for the others
                continue
            round_, frame = int(selection.round[place]), int(origin["frame"])
            yield ExportedCrop(
                crop_id=crop_id,
                image=shown.image,
                extension=shown.extension,
                width=shown.width,
                height=shown.height,
                label=str(selection.label[place]),
                split=str(selection.split[place]),
                source=str(selection.source[place]),
                confidence=_number(selection.confidence[place]),
                round=None if round_ < 0 else round_,
                team=str(selection.team[place]),
                proposed=str(selection.index.proposed[row]),
                video=origin["video"],
                track=origin["track"],
                frame=None if frame < 0 else frame,
                time=_number(origin["time"]),
                box=origin["box"],
                converted=shown.converted,
            )
        if not faults:
            advance(len(part))
    if faults:
        raise UndecodableCrops(faults)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
