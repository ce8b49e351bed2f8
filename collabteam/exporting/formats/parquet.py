"""One Parquet file with the pictures inside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from collabteam.exporting.base import ExportFormat, WriteReport
from collabteam.exporting.crops import ExportedCrop
from collabteam.exporting.selection import Selection

ROW_GROUP = 256
"""The number of crops per row group."""

_SCHEMA = pa.schema(
    [
        pa.field("image", pa.binary(), nullable=False),
        # Not 'crop_id': in a table that is not an export, that means crops of the catalog.
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
        # Lists of any length: Arrow cannot write nullable fixed-size lists to Parquet.
        pa.field("box", pa.list_(pa.float64())),
        pa.field("width", pa.int64(), nullable=False),
        pa.field("height", pa.int64(), nullable=False),
    ]
)


class Parquet(ExportFormat):
    """``crops.parquet``."""

    name = "parquet"
    layout = "`crops.parquet`, pictures inside"
    notes = (
        f"Row groups of {ROW_GROUP} crops; the schema's metadata has `classes` (JSON) and "
        "`camera`.",
        "`python -m collabteam.ingest camera=ANOTHER path={to} labels=person` takes it into "
        "another camera as what it is: the same names, the test set as such, the team's labels as "
        "proposals. With `path={to}/crops.parquet` it is a plain table, and even the team's labels "
        "become a person's.",
    )
    crop_column = "crop"
    box_columns = "`box` (left, top, width, height)"

    def write(
        self, crops: Iterator[ExportedCrop], folder: Path, selection: Selection, camera: str
    ) -> WriteReport:
        """Write the file, a row group at a time."""
        about = {"camera": camera, "classes": json.dumps(selection.classes)}
        schema = _SCHEMA.with_metadata(about)
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        with pq.ParquetWriter(
            folder / "crops.parquet",
            schema,
            # Pictures are already compressed, and no two are equal.
            compression={name: "none" if name == "image" else "zstd" for name in schema.names},
            use_dictionary=[name for name in texts if name != "crop"],
            write_statistics=[name for name in schema.names if name != "image"],
        ) as writer:

            def write() -> None:
                writer.write_table(pa.table(columns, schema=schema), row_group_size=ROW_GROUP)
                for column in columns.values():
                    column.clear()

            for crop in crops:
                for name, column in columns.items():
                    column.append(crop.crop_id if name == "crop" else getattr(crop, name))
                if len(columns["image"]) == ROW_GROUP:
                    write()
            if columns["image"]:
                write()
        return WriteReport()
