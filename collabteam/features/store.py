"""Features of a camera's crops, computed once for each backbone and kept with the camera."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from collabteam.catalog import Catalog
from collabteam.events import Listener
from collabteam.features.extractor import FeatureExtractor, FrozenBackbone
from collabteam.features.images import Transform, decoded_batches
from collabteam.settings import UNUSABLE
from collabteam.storage.layout import feature_table
from collabteam.storage.tables import Table

PART = 1024
"""Crops whose features are written at once, the most that a kill can lose."""
_COLUMN = "vector"


class FeatureStore:
    """Feature vectors by row, in tables beside the camera's crops, one for each backbone.

    Row *n* of a table belongs to row *n* of the catalog. Vectors are appended as crops come, in
    half precision: 2.5 kB a crop for 1,280 features. Other weights, another picture size, engine or
    projection have a table of their own. The caller holds the camera's lock.

    Args:
        catalog: The camera.
        extractor: The frozen backbones.

    Attributes:
        dim: Length D of a feature vector.
        digest: Hash of the backbones' weights, transforms and projections, in hexadecimal.
    """

    def __init__(self, catalog: Catalog, extractor: FeatureExtractor) -> None:
        self._tables = [
            _BackboneTable(catalog, part, extractor.transform) for part in extractor.parts
        ]
        self.dim, self.digest = extractor.dim, extractor.digest

    @property
    def missing(self) -> int:
        """Number of crops without features."""
        return max(table.missing for table in self._tables)

    @property
    def bytes_per_crop(self) -> int:
        """Bytes that the features of one crop take, without the table around them."""
        return 2 * self.dim

    @property
    def size(self) -> int:
        """Bytes that the tables take where the camera lives."""
        return sum(table.size for table in self._tables)

    def fill(self, listener: Listener) -> None:
        """Compute the features of all crops that have none.

        A killed call leaves whole parts behind, and the next one continues after them.

        Args:
            listener: Where progress goes.

        Raises:
            UserError: A picture cannot be decoded, or the disk is full.
        """
        for table in self._tables:
            table.fill(listener)

    def __getitem__(self, rows: NDArray[np.int64]) -> Tensor:
        """Features (n, D) float32 of these rows, in this order, on the processor.

        Raises:
            UserError: A table is damaged.
            IndexError: A row has no features yet; call :meth:`fill` first.
        """
        return torch.cat([table[rows] for table in self._tables], dim=1)


class _BackboneTable:
    """The features of one backbone."""

    def __init__(self, catalog: Catalog, frozen: FrozenBackbone, decoded: Transform) -> None:
        self._catalog, self._frozen, self._decoded = catalog, frozen, decoded
        self._name = feature_table(frozen.digest)

    @cached_property
    def _table(self) -> Table:
        schema = pa.schema([(_COLUMN, pa.list_(pa.float16(), self._frozen.dim))])
        self._catalog.workspace.create_table(self._name, schema)
        return self._catalog.workspace.table(self._name)

    @property
    def missing(self) -> int:
        return max(0, len(self._catalog) - len(self._table))

    @property
    def size(self) -> int:
        return self._catalog.workspace.table_size(self._name).bytes

    def fill(self, listener: Listener) -> None:
        if not self.missing:
            return
        index = self._catalog.index()
        rows = np.arange(len(self._table), len(index))
        # A picture that a person called unusable may be one that cannot be decoded.
        usable = index.human[rows] != UNUSABLE
        title = f"features of {len(rows):,} crops, {self._frozen.name}"
        with listener.stage(title, len(rows), "crops") as advance:
            for start in range(0, len(rows), PART):
                here = slice(start, start + PART)
                wanted = rows[here][usable[here]]
                found = torch.zeros(len(rows[here]), self._frozen.dim)
                parts = [torch.zeros(0, self._frozen.dim)]
                for images in decoded_batches(self._catalog, wanted, self._decoded, PART // 4):
                    parts.append(self._frozen(images))
                    advance(len(images))
                found[torch.from_numpy(usable[here])] = torch.cat(parts)
                self._append(found)
                advance(len(found) - len(wanted))

    def _append(self, vectors: Tensor) -> None:
        flat = pa.array(vectors.numpy().astype(np.float16).ravel())
        column = pa.FixedSizeListArray.from_arrays(flat, self._frozen.dim)
        self._table.append_few(pa.table({_COLUMN: column}))

    def __getitem__(self, rows: NDArray[np.int64]) -> Tensor:
        if not len(rows):
            return torch.zeros(0, self._frozen.dim)
        column = self._table.take(rows.tolist(), [_COLUMN])[_COLUMN].combine_chunks()
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return torch.from_numpy(flat.astype(np.float32).reshape(len(rows), self._frozen.dim))
