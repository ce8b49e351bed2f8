"""How each format writes a stream of labelled crops into an empty folder."""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from xml.sax.saxutils import escape, quoteattr

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from collabteam.catalog.catalog import Catalog
from collabteam.exporting.selection import HELD_OUT, TRAIN, VAL, Selection
from collabteam.reviewing.exchange import (
    cvat_head,
    cvat_labels,
    look,
    no_formula,
    studio_interface,
    studio_picture,
    studio_result,
)

CHUNK = 256
"""Pictures in memory, and rows of one Parquet row group."""

IMAGES = "images"
TABLE = "metadata.csv"

# What of a crop stands beside its picture and its name, in this order.
_ABOUT = (
    *("label", "split", "source", "confidence", "round", "team", "proposed"),
    *("video", "track", "frame", "time"),
)
_SIDES = ("box_left", "box_top", "box_width", "box_height")
_NOWHERE: tuple[float | None, ...] = (None,) * 4
_PNG_INSTEAD = {"imagefolder": (".gif",), "yolo": (".gif", ".ppm")}
_SMALLEST_YOLO = 10  # px a side; ultralytics passes over what is smaller

_PARQUET = pa.schema(
    [
        pa.field("image", pa.binary(), nullable=False),
        # Not 'crop_id': ingest would look for crops of these names in the camera that takes them.
        pa.field("crop", pa.string(), nullable=False),
        *(pa.field(name, pa.string(), nullable=False) for name in ("label", "split", "source")),
        pa.field("confidence", pa.float64()),
        pa.field("round", pa.int64()),
        *(
            pa.field(name, pa.string(), nullable=False)
            for name in ("team", "proposed", "video", "track")
        ),
        pa.field("frame", pa.int64()),
        pa.field("time", pa.float64()),
        # Of any length: Arrow writes no fixed-size lists to Parquet where one is missing.
        pa.field("box", pa.list_(pa.float64())),
        pa.field("width", pa.int64(), nullable=False),
        pa.field("height", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Record:
    """One crop with its label, as every format may show it.

    Attributes:
        crop_id: The crop.
        image: Encoded picture exactly as the catalog has it.
        extension: Of a file with this picture, such as ``.jpg``.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        label: A class, or ``unknown``.
        split: ``train``, ``val``, ``test`` or ``held-out``.
        source: ``person``, ``import``, ``oracle`` or ``team``.
        confidence: The team's, 0 to 1; None for labels of persons.
        round: The team's round; None for labels of persons.
        team: The team's fingerprint; ``""`` for labels of persons.
        proposed: What a detector proposed, ``""`` for nothing.
        video: ``""`` for none.
        track: Of the object within its video, ``""`` for none.
        frame: Number in the video, from 0; None for none.
        time: Unix seconds; None if nobody knows.
        box: Left, top, width and height in the frame, in pixels; None if nobody knows.
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

    @property
    def file(self) -> str:
        """Name of a file with the picture."""
        return self.crop_id + self.extension

    def about(self) -> dict[str, Any]:
        """Everything but the picture, the box and the name, in a fixed order."""
        return {name: getattr(self, name) for name in _ABOUT}


def records(
    catalog: Catalog, selection: Selection, advance: Callable[[int], None]
) -> Iterator[Record]:
    """The selected crops one after the other, few pictures in memory at a time.

    Args:
        catalog: The camera.
        selection: Which crops, in which order.
        advance: Called with the number of crops of each part that was consumed.

    Raises:
        UserError: A picture cannot be opened, or the catalog is damaged.
    """
    for start in range(0, len(selection), CHUNK):
        part = range(start, min(start + CHUNK, len(selection)))
        rows = selection.rows[part.start : part.stop]
        pictures, origins = catalog.images(rows), catalog.origins(rows)
        for place, row, image, origin in zip(part, rows, pictures, origins, strict=True):
            crop_id = str(selection.index.crop_id[row])
            extension, width, height = look(crop_id, image)
            round_, frame = int(selection.round[place]), int(origin["frame"])
            yield Record(
                crop_id=crop_id,
                image=image,
                extension=extension,
                width=width,
                height=height,
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
            )
        advance(len(part))


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


class Writer(Protocol):
    """Writes one format."""

    def __call__(
        self, crops: Iterator[Record], folder: Path, selection: Selection, camera: str
    ) -> list[str]:
        """Write all crops.

        Args:
            crops: To be consumed once.
            folder: Empty.
            selection: The same crops, for counting.
            camera: The camera's name.

        Returns:
            Remarks on these very crops, one sentence each.
        """


# -- tables and folders ------------------------------------------------------------------------


class _Table:
    """A CSV file with one line a crop."""

    def __init__(self, file: io.TextIOBase) -> None:
        # Lines end as RFC 4180 says: only then a lone carriage return in a name is quoted.
        self._rows = csv.writer(file, lineterminator="\r\n")
        self._rows.writerow(("file_name", "crop_id", *_ABOUT, *_SIDES))

    def add(self, crop: Record, file: str) -> None:
        about = crop.about()
        for name in ("video", "track"):
            about[name] = no_formula(about[name])
        cells = [file, crop.crop_id, *about.values(), *(crop.box or _NOWHERE)]
        self._rows.writerow(["" if cell is None else cell for cell in cells])


def _open(path: Path) -> io.TextIOWrapper:
    return path.open("w", encoding="utf-8", newline="")


def write_csv(
    crops: Iterator[Record], folder: Path, selection: Selection, camera: str
) -> list[str]:
    """``metadata.csv`` and ``images/``."""
    (folder / IMAGES).mkdir()
    with _open(folder / TABLE) as file:
        table = _Table(file)
        for crop in crops:
            (folder / IMAGES / crop.file).write_bytes(crop.image)
            table.add(crop, f"{IMAGES}/{crop.file}")
    return []


def write_imagefolder(
    crops: Iterator[Record], folder: Path, selection: Selection, camera: str
) -> list[str]:
    """A folder per split, in it one per class, as torchvision's ``ImageFolder`` takes them."""
    splits = sorted(set(selection.split.tolist()))
    return _write_folders(crops, folder, selection, splits, _PNG_INSTEAD["imagefolder"])


def write_yolo(
    crops: Iterator[Record], folder: Path, selection: Selection, camera: str
) -> list[str]:
    """The same with ``val``, as ultralytics' classification takes it."""
    # Without val/ ultralytics would validate on test/.
    splits = sorted({TRAIN, VAL, *selection.split.tolist()})
    small = 0

    def looked_at() -> Iterator[Record]:
        nonlocal small
        for crop in crops:
            small += min(crop.width, crop.height) < _SMALLEST_YOLO
            yield crop

    remarks = _write_folders(looked_at(), folder, selection, splits, _PNG_INSTEAD["yolo"])
    if small:
        remarks.append(
            f"Pictures with a side of less than {_SMALLEST_YOLO} px, which ultralytics passes "
            f"over: {small}."
        )
    return remarks


def _write_folders(
    crops: Iterator[Record],
    folder: Path,
    selection: Selection,
    splits: Sequence[str],
    as_png: Sequence[str],
) -> list[str]:
    present = [name for name in selection.classes if selection.count(name)]
    for split in splits:
        # Each split has the same folders, because loaders number classes by them; of what was held
        # out nobody learns or measures anything.
        for name in present:
            if split != HELD_OUT or selection.count(name, split=split):
                (folder / split / name).mkdir(parents=True)
    changed = 0
    with _open(folder / TABLE) as file:
        table = _Table(file)
        for crop in crops:
            image, name = crop.image, crop.file
            if crop.extension in as_png:
                image, name = _png(image), f"{crop.crop_id}.png"
                changed += 1
            place = f"{crop.split}/{crop.label}/{name}"
            (folder / place).write_bytes(image)
            table.add(crop, place)
    if not changed:
        return []
    kinds = " or ".join(as_png)
    return [
        f"Written as PNG, with the same pixels, because the loader takes no {kinds}: {changed} of "
        "the pictures."
    ]


def _png(image: bytes) -> bytes:
    """The (first) picture as PNG, without loss."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(image)) as picture:
        picture.save(buffer, "PNG")
    return buffer.getvalue()


# -- COCO --------------------------------------------------------------------------------------


def write_coco(
    crops: Iterator[Record], folder: Path, selection: Selection, camera: str
) -> list[str]:
    """``annotations.json`` and ``images/``; each picture is one object that fills it."""
    number_of = {name: number for number, name in enumerate(selection.classes, 1)}
    categories = [{"id": id_, "name": name} for name, id_ in number_of.items()]
    (folder / IMAGES).mkdir()
    # The list of annotations comes behind that of images: it waits in a file of its own.
    waiting = folder / ".annotations"
    with _open(folder / "annotations.json") as images, _open(waiting) as annotations:
        head = {"description": f"crops of camera {camera}"}
        images.write(f'{{"info": {_json(head)},\n"licenses": [],\n"categories": ')
        images.write(f'{_json(categories)},\n"images": [')
        separator = "\n"
        for number, crop in enumerate(crops, 1):
            (folder / IMAGES / crop.file).write_bytes(crop.image)
            size = {"width": crop.width, "height": crop.height}
            picture = {"id": number, "file_name": crop.file, **size}
            annotation = {
                "id": number,
                "image_id": number,
                "category_id": number_of[crop.label],
                "bbox": [0, 0, crop.width, crop.height],
                "area": crop.width * crop.height,
                "iscrowd": 0,
                "attributes": {"crop_id": crop.crop_id, **crop.about(), "frame_box": crop.box},
            }
            images.write(separator + _json(picture))
            annotations.write(separator + _json(annotation))
            separator = ",\n"
    with (folder / "annotations.json").open("a", encoding="utf-8") as file:
        file.write('\n],\n"annotations": [')
        with waiting.open(encoding="utf-8") as annotations:
            for line in annotations:
                file.write(line)
        file.write("\n]}\n")
    waiting.unlink()
    return []


def _json(value: object) -> str:
    return json.dumps(value, allow_nan=False)


# -- Parquet -----------------------------------------------------------------------------------


def write_parquet(
    crops: Iterator[Record], folder: Path, selection: Selection, camera: str
) -> list[str]:
    """``crops.parquet``, pictures inside."""
    about = {"camera": camera, "classes": _json(selection.classes)}
    schema = _PARQUET.with_metadata(about)
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    with pq.ParquetWriter(
        folder / "crops.parquet",
        schema,
        # Pictures are compressed already, and no two are equal.
        compression={name: "none" if name == "image" else "zstd" for name in schema.names},
        use_dictionary=[name for name in texts if name != "crop"],
        write_statistics=[name for name in schema.names if name != "image"],
    ) as writer:

        def write() -> None:
            writer.write_table(pa.table(columns, schema=schema), row_group_size=CHUNK)
            for column in columns.values():
                column.clear()

        for crop in crops:
            for name, column in columns.items():
                column.append(crop.crop_id if name == "crop" else getattr(crop, name))
            if len(columns["image"]) == CHUNK:
                write()
        if columns["image"]:
            write()
    return []


# -- labelling tools ---------------------------------------------------------------------------


def write_labelstudio(
    crops: Iterator[Record], folder: Path, selection: Selection, camera: str
) -> list[str]:
    """``tasks.json``, ``interface.xml`` and ``images/``."""
    (folder / IMAGES).mkdir()
    (folder / "interface.xml").write_text(studio_interface(selection.classes), encoding="utf-8")
    with _open(folder / "tasks.json") as file:
        separator = "[\n"
        for crop in crops:
            (folder / IMAGES / crop.file).write_bytes(crop.image)
            about = {"crop_id": crop.crop_id, "camera": camera, **crop.about(), "box": crop.box}
            task: dict[str, Any] = {
                "data": {"image": studio_picture(IMAGES, crop.file), **about},
            }
            said: dict[str, Any] = {"result": [studio_result(crop.crop_id, crop.label)]}
            if crop.source == "team":
                said["model_version"] = f"round {crop.round}, {crop.team}"
                if crop.confidence is not None:
                    said["score"] = crop.confidence
                task["predictions"] = [said]
            else:
                task["annotations"] = [said]
            file.write(separator + _json(task))
            separator = ",\n"
        file.write("\n]\n")
    return []


def write_cvat(
    crops: Iterator[Record], folder: Path, selection: Selection, camera: str
) -> list[str]:
    """``dataset.zip`` (CVAT for images 1.1, pictures inside) and ``labels.json``.

    The crops must come sorted by name: so CVAT numbers the pictures of an archive.
    """
    names = [name for name in ("crop_id", *_ABOUT, *_SIDES) if name != "label"]
    (folder / "labels.json").write_text(cvat_labels(selection.classes, names), encoding="utf-8")
    waiting = folder / ".annotations"
    with zipfile.ZipFile(folder / "dataset.zip", "w") as archive:
        with _open(waiting) as file:
            file.write(cvat_head(camera, selection.classes, len(selection), names))
            for number, crop in enumerate(crops):
                archive.writestr(zipfile.ZipInfo(f"{IMAGES}/{crop.file}"), crop.image)
                file.write(_cvat_image(number, crop, names))
            file.write("</annotations>\n")
        entry = zipfile.ZipInfo("annotations.xml")  # without the time, which would differ
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.file_size = waiting.stat().st_size
        with waiting.open("rb") as source, archive.open(entry, "w") as target:
            while piece := source.read(2**20):
                target.write(piece)
    waiting.unlink()
    return []


def _cvat_image(number: int, crop: Record, names: Sequence[str]) -> str:
    sides = dict(zip(_SIDES, crop.box or _NOWHERE, strict=True))
    values: dict[str, Any] = {"crop_id": crop.crop_id, **crop.about(), **sides}
    by = "auto" if crop.source == "team" else "manual"
    attributes = "".join(
        f"      <attribute name={quoteattr(name)}>{_xml(values[name])}</attribute>\n"
        for name in names
    )
    return (
        f'  <image id="{number}" name={quoteattr(crop.file)} width="{crop.width}" '
        f'height="{crop.height}">\n    <tag label={quoteattr(crop.label)} source="{by}">\n'
        f"{attributes}    </tag>\n  </image>\n"
    )


def _xml(value: object) -> str:
    """A value as text between tags; what XML cannot hold becomes U+FFFD."""
    text = "" if value is None else str(value)
    text = "".join(letter if _is_xml(ord(letter)) else "\ufffd" for letter in text)
    return escape(text, {"\r": "&#13;"})


def _is_xml(code: int) -> bool:
    return code in (9, 10, 13) or (code >= 32 and code not in (0xFFFE, 0xFFFF))


WRITERS: dict[str, Writer] = {
    "imagefolder": write_imagefolder,
    "coco": write_coco,
    "yolo": write_yolo,
    "parquet": write_parquet,
    "csv": write_csv,
    "labelstudio": write_labelstudio,
    "cvat": write_cvat,
}
"""The formats by name."""
