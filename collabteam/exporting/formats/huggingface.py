"""A Hugging Face dataset: Parquet shards by split, and a dataset card that names them.

The layout is documented at https://huggingface.co/docs/hub/datasets-manual-configuration, the
schema's metadata is that of ``datasets.Features``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from collabteam.exporting.base import ExportFormat, WriteReport
from collabteam.exporting.crops import ExportedCrop
from collabteam.exporting.selection import Selection

ROW_GROUP = 100
"""Crops per row group; the library uses the same number for tables with pictures."""
SHARD_BYTES = 2**28
"""A new shard begins after this number of bytes of pictures."""

_DATA = "data"
_TYPES = {
    **dict.fromkeys(("crop_id", "source", "team", "proposed", "video", "track"), pa.string()),
    **dict.fromkeys(("round", "frame"), pa.int64()),
    **dict.fromkeys(("confidence", "time"), pa.float64()),
    **dict.fromkeys(("box_left", "box_top", "box_width", "box_height"), pa.float64()),
}


class HuggingFace(ExportFormat):
    """``data/train-00000-of-00001.parquet`` and the same for every other split."""

    name = "huggingface"
    layout = "`data/<split>-*.parquet`, pictures inside; this file is the dataset card"
    notes = (
        '`datasets.load_dataset("{to}")` opens the folder with its splits; `image` is an `Image`, '
        "`label` a `ClassLabel`.",
        "The split `held-out` is called `held_out`, because split names cannot contain a hyphen.",
    )

    def front_matter(self, selection: Selection) -> str:
        """Return the YAML header of the dataset card."""
        files = [
            {"split": _split_name(split), "path": f"{_DATA}/{_split_name(split)}-*"}
            for split in selection.splits_present()
        ]
        header = {
            "task_categories": ["image-classification"],
            "configs": [{"config_name": "default", "data_files": files}],
        }
        return f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n"

    def write(
        self, crops: Iterator[ExportedCrop], folder: Path, selection: Selection, camera: str
    ) -> WriteReport:
        """Write the shards of all splits in one pass."""
        (folder / _DATA).mkdir()
        splits = {
            split: _Split(folder / _DATA, _split_name(split), selection.classes)
            for split in selection.splits_present()
        }
        with ExitStack() as stack:
            for split in splits.values():
                stack.callback(split.close)
            for crop in crops:
                splits[crop.split].add(crop)
            for split in splits.values():
                split.finish()
        return WriteReport()


def _split_name(split: str) -> str:
    return split.replace("-", "_")


def _schema(classes: Sequence[str]) -> pa.Schema:
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"names": list(classes), "_type": "ClassLabel"},
        **{name: {"dtype": _dtype(type_), "_type": "Value"} for name, type_ in _TYPES.items()},
    }
    picture = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    columns = {"image": picture, "label": pa.int64(), **_TYPES}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(columns, metadata=about)


def _dtype(type_: pa.DataType) -> str:
    return "float64" if pa.types.is_floating(type_) else str(type_)


class _Split:
    """The shards of one split."""

    def __init__(self, folder: Path, name: str, classes: Sequence[str]) -> None:
        self._folder, self._name = folder, name
        self._schema = _schema(classes)
        self._number_of = {label: number for number, label in enumerate(classes)}
        self._rows: list[dict[str, Any]] = []
        self._shards: list[Path] = []
        self._writer: pq.ParquetWriter | None = None
        self._bytes = 0

    def add(self, crop: ExportedCrop) -> None:
        values = {"crop_id": crop.crop_id, **crop.attributes(), **crop.box_sides()}
        row = {name: values[name] for name in _TYPES}
        row["image"] = {"bytes": crop.image, "path": crop.file}
        row["label"] = self._number_of[crop.label]
        self._rows.append(row)
        self._bytes += len(crop.image)
        if len(self._rows) == ROW_GROUP or self._bytes >= SHARD_BYTES:
            self._flush()
        if self._bytes >= SHARD_BYTES:
            self.close()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._writer is None:
            # The final name includes the number of shards, which is not known yet.
            self._shards.append(self._folder / f"{self._name}-{len(self._shards)}")
            self._writer = pq.ParquetWriter(
                self._shards[-1],
                self._schema,
                # Pictures are already compressed.
                compression={
                    "image.bytes": "none",
                    **dict.fromkeys(("image.path", "label", *_TYPES), "zstd"),
                },
                use_dictionary=["label", *(n for n in _TYPES if n != "crop_id")],
                write_statistics=["label", *_TYPES],
            )
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()

    def close(self) -> None:
        """Close the open shard."""
        if self._writer is not None:
            self._writer.close()
        self._writer, self._bytes = None, 0

    def finish(self) -> None:
        """Write the remaining crops, and give the shards their final names."""
        self._flush()
        self.close()
        count = len(self._shards)
        for number, shard in enumerate(self._shards):
            shard.rename(self._folder / f"{self._name}-{number:05d}-of-{count:05d}.parquet")
