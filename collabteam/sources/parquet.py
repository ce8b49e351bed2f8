"""Parquet files as a source: each row has a picture, or the name of a crop in the catalog."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from collabteam.catalog.records import Crop
from collabteam.errors import UserError, first_line
from collabteam.settings import UNKNOWN
from collabteam.sources.base import Aside, Item, Labels, called_like_a_split
from collabteam.sources.columns import Columns, Row, decoded
from collabteam.sources.vocabulary import split_of

# Rows that Arrow decodes at a time, because a row group may be as large as the whole file.
_ROWS, _ROWS_WITHOUT_PICTURES = 256, 65_536


SHARD = re.compile(r"([a-z_]+)-\d{5}-of-\d{5}\.parquet")
"""Name of a shard of a Hugging Face dataset."""


class ParquetSource:
    """One Parquet file, or the shards of one dataset; see :class:`~.base.Source`.

    Args:
        paths: The files, at least one.
        labels: Meaning of their labels.
        classes: The camera's classes, if known.
        export: Whether they lie in a folder that may be one of our exports; else they are tables
            whose labels are what the user says.
        aside: Takes what is left aside.

    Raises:
        UserError: A file cannot be read or used.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Labels,
        classes: Collection[str],
        export: bool = False,
        aside: Aside | None = None,
    ) -> None:
        self.meaning: Labels = labels
        self.aside = Aside() if aside is None else aside
        self._tables = [_Table(path, labels, classes, self.aside, export) for path in paths]
        self.total = sum(table.total for table in self._tables)
        if not self.total:
            raise UserError(f"path={paths[0]} has no rows")
        for table in self._tables:
            table.survey()
        self.labels = set().union(*(table.columns.labels for table in self._tables))
        self.answers = any(table.columns.answers for table in self._tables)
        self.ours = all(table.columns.ours for table in self._tables)
        named = self._tables[0].classes if self.ours else []
        self.classes = [name for name in named if name != UNKNOWN]

    def items(self) -> Iterator[Item]:
        """Yield the pictures in the order of the rows."""
        for table in self._tables:
            yield from table.items()


class _Table:
    """One file."""

    def __init__(
        self, path: Path, labels: Labels, classes: Collection[str], aside: Aside, export: bool
    ) -> None:
        self._path = path
        try:
            # Without these options, Arrow holds whole row groups in memory.
            self._file = pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20)
            self._schema = self._file.schema_arrow
            names = list(self._schema.names)
        except (OSError, ValueError, pa.ArrowException) as error:
            reason = first_line(error)
            raise UserError(f"path={path} cannot be read as a Parquet file: {reason}") from error
        self.total = self._file.metadata.num_rows
        numbered, self.classes = _declared(self._schema)
        self.columns = Columns(str(path), names, labels, classes, aside, numbered, export)
        # Our shards of a Hugging Face dataset are called by their split.
        shard = SHARD.fullmatch(path.name)
        self._split = split_of(shard[1]) if shard and self.columns.ours else ""
        if not self._split and "split" not in names:
            aside.remarks += called_like_a_split(path, shard[1] if shard else path.stem)
        # A table that is not ours and names crops means those of the catalog.
        self._pictured = "image" in names and (self.columns.ours or "crop_id" not in names)
        if self._pictured:
            self._check_images()
        elif "crop_id" not in names:
            raise UserError(
                f"path={path} has no column 'image'; its columns are {', '.join(names[:12])}"
            )

    def _check_images(self) -> None:
        kind = self._schema.field("image").type
        while isinstance(kind, pa.DictionaryType):
            kind = kind.value_type
        self._struct = pa.types.is_struct(kind)
        if self._struct and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or _is_view(kind)):
            raise UserError(
                f"path={self._path}: column 'image' is {kind}, expected bytes of encoded pictures"
            )

    def survey(self) -> None:
        """Read everything but the pictures, and raise if it cannot be used."""
        if self.columns.surveyed:
            for batch in self._batches(self.columns.surveyed, _ROWS_WITHOUT_PICTURES):
                self.columns.survey(batch)
        self.columns.finish()

    def items(self) -> Iterator[Item]:
        """Yield the rows in order."""
        number = 0
        names = [*self.columns.used, *(["image"] if self._pictured else [])]
        for batch in self._batches(names, _ROWS):
            for row, image in zip(self.columns.rows(batch), self._pictures(batch), strict=True):
                yield Item(
                    f"{self._path} row {number}",
                    image or b"",
                    "no picture" if image is None and (self._pictured or not row.crop_id) else "",
                    row.given, row.split or self._split, row.origin, _name(row, image),
                )  # fmt: skip
                number += 1

    def _pictures(self, batch: pa.RecordBatch) -> list[bytes | None]:
        """Return the encoded pictures; None for a row without one."""
        if not self._pictured:
            return [None] * batch.num_rows
        images = decoded(batch.column("image"))
        if self._struct:
            images = decoded(pc.struct_field(images, "bytes"))
        pictures: list[bytes | None] = images.to_pylist()
        return pictures

    def _batches(self, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._file.iter_batches(rows, columns=list(names))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"path={self._path} is damaged: {first_line(error)}") from error


def _name(row: Row, image: bytes | None) -> str:
    """Return the name under which the catalog may have the crop already, ``""`` if it is new."""
    if row.before and image:
        return Crop(image, **{**row.origin, **row.before}).crop_id
    return row.crop_id


def _is_view(kind: pa.DataType) -> bool:
    return bool(kind == pa.binary_view())


def _declared(schema: pa.Schema) -> tuple[dict[str, list[str]], list[str]]:
    """Return the names of Hugging Face's ``ClassLabel`` columns, and the classes in order."""
    metadata = schema.metadata or {}
    numbered: dict[str, list[str]] = {}
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        numbered = {
            # JSON may hold halves of letters, which are no text.
            name: [
                str(text).encode("utf-8", "backslashreplace").decode() for text in feature["names"]
            ]
            for name, feature in features.items()
            if isinstance(feature, dict) and isinstance(feature.get("names"), list)
        }
    except (TypeError, KeyError, ValueError, AttributeError, RecursionError):
        pass
    try:
        classes = [str(name) for name in json.loads(metadata[b"classes"])]
    except (TypeError, KeyError, ValueError, RecursionError):
        classes = numbered.get("label", [])
    return numbered, classes
