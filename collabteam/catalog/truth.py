"""Hidden truth: the true label of crops, for the oracle and for measurements.

Training and selection never import this module; a test checks this.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from collabteam.catalog.catalog import Catalog
from collabteam.catalog.records import TRUTH_SCHEMA
from collabteam.catalog.texts import LabelsByRow, Names, TextColumn


def read_truth(catalog: Catalog, names: Names) -> TextColumn:
    """Read the true label of each crop.

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
    # Reversed, so that the first label of a crop stands even if two processes wrote at once.
    codes[rows[known][::-1]] = label.indices.to_numpy()[known][::-1] + 1
    return TextColumn(codes, pa.array(["", *label.dictionary.to_pylist()], pa.string()))


def append_truth(
    catalog: Catalog, pairs: Iterable[tuple[str, str]], known: LabelsByRow | None = None
) -> int:
    """Add hidden truth; a crop whose truth is known keeps it.

    Args:
        catalog: The camera.
        pairs: Crop and label.
        known: The truth by row, if the caller has read it already; new labels are added to it.

    Returns:
        The number of new labels.

    Raises:
        ValueError: The catalog does not have a crop.
        UserError: A label is not valid for the camera, or the disk is full.
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
