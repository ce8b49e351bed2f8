"""Crops and events in memory, as a catalog would have read them from its tables."""

from __future__ import annotations

import pyarrow as pa

from collabteam.catalog.annotations import LOG_COLUMNS
from collabteam.catalog.index import CROP_COLUMNS, IndexBuilder


def builder(crops: pa.Table, log: pa.Table) -> IndexBuilder:
    """An index builder that has read these tables."""
    read = IndexBuilder()
    for batch in crops.select(CROP_COLUMNS).to_batches():
        read.add_crops(batch)
    for batch in log.select(LOG_COLUMNS).to_batches():
        read.add_events(batch)
    return read
