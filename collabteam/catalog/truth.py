"""Hidden truth: what a crop really shows, for the oracle and for measuring.

Training and selection never import this module; a test holds that.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from collabteam.catalog.catalog import Catalog
from collabteam.catalog.records import TRUTH_SCHEMA
from collabteam.catalog.texts import LabelsByRow, Names, TextColumn


def read_truth(catalog: Catalog, names: Names) -> TextColumn:
    """What each crop really shows.

    Args:
        catalog: The camera.
        names: Its N crops, as :class:`~collabteam.catalog.CropIndex` has them.

    Returns:
        Shape ``(N,)``: a class, ``unknown`` or ``unusable``; ``""`` where it is not known.

    Raises:
        UserError: The table is damaged.
    """
    table = catalog.workspace.table("truth").read(["crop_id", "label"])
    rows = names.find(table["crop_id"].combine_chunks())
    label = table["label"].combine_chunks().dictionary_encode()
    known = rows >= 0
    codes = np.zeros(len(names), dtype=np.int32)
    # From behind, so that the first word on a crop stands, also if two processes wrote at once.
    codes[rows[known][::-1]] = label.indices.to_numpy()[known][::-1] + 1
    return TextColumn(codes, pa.array(["", *label.dictionary.to_pylist()], pa.string()))


def append_truth(
    catalog: Catalog, pairs: Iterable[tuple[str, str]], known: LabelsByRow | None = None
) -> int:
    """Add hidden truth; a crop whose truth is known keeps it.

    Args:
        catalog: The camera.
        pairs: Crop and label.
        known: What is known already, by row, where it need not be read again; what is new is added
            to it.

    Returns:
        How many were new.

    Raises:
        ValueError: The catalog does not have a crop.
        UserError: A label is none of the camera's, or the disk is full.
    """
    pairs = list(pairs)
    rows = catalog.rows([crop_id for crop_id, _ in pairs])
    if (rows < 0).any():
        raise ValueError(f"{(rows < 0).sum()} crops are not in {catalog.workspace}")
    if known is None:
        known = LabelsByRow(read_truth(catalog, catalog.annotations().names))
    new: dict[int, tuple[str, str]] = {}
    for row, pair in zip(rows.tolist(), pairs, strict=True):
        if not known[row]:
            new.setdefault(row, pair)
    crop_ids, labels = zip(*new.values(), strict=True) if new else ((), ())
    catalog.check_labels(labels)
    columns = {"crop_id": list(crop_ids), "label": list(labels)}
    catalog.workspace.table("truth").append(pa.table(columns, schema=TRUTH_SCHEMA))
    for row, (_, label) in new.items():
        known[row] = label
    return len(new)
