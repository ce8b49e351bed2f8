"""What tests ask of a camera: its log and index, read from tables in memory, and its truth."""

from __future__ import annotations

import pyarrow as pa

from collabteam.catalog import Catalog
from collabteam.catalog.annotations import LOG_COLUMNS
from collabteam.catalog.index import CROP_COLUMNS, IndexBuilder
from collabteam.catalog.truth import read_truth


def builder(crops: pa.Table, log: pa.Table) -> IndexBuilder:
    """An index builder that has read these tables."""
    read = IndexBuilder()
    for batch in crops.select(CROP_COLUMNS).to_batches():
        read.add_crops(batch)
    for batch in log.select(LOG_COLUMNS).to_batches():
        read.add_events(batch)
    return read


def truth_of(catalog: Catalog) -> dict[str, str]:
    """What each crop really shows, by its name; crops without hidden truth are missing."""
    names = catalog.annotations().names
    truth = zip(names.tolist(), read_truth(catalog, names).tolist(), strict=True)
    return {crop_id: label for crop_id, label in truth if label}
