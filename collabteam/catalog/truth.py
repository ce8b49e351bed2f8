"""Hidden truth: what a crop really shows, for the oracle and for measuring.

Training and selection never import this module; a test holds that.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from collabteam.catalog.catalog import Catalog
from collabteam.catalog.records import TRUTH_SCHEMA


def read_truth(catalog: Catalog) -> dict[str, str]:
    """What each crop really shows, by the crop's name; crops without truth are missing.

    Raises:
        UserError: The table is damaged.
    """
    rows = catalog.workspace.table("truth").read(["crop_id", "label"])
    names, labels = rows["crop_id"].to_pylist(), rows["label"].to_pylist()
    # Reversed, so that the first word on a crop stands, also if two processes wrote at once.
    return dict(zip(reversed(names), reversed(labels), strict=True))


def append_truth(
    catalog: Catalog, pairs: Iterable[tuple[str, str]], known: dict[str, str] | None = None
) -> int:
    """Add hidden truth; a crop whose truth is known keeps it.

    Args:
        catalog: The camera.
        pairs: Crop and label.
        known: What :func:`read_truth` returned, where it need not be read again; what is new is
            added to it.

    Returns:
        How many were new.

    Raises:
        UserError: A label is none of the camera's, or the disk is full.
    """
    known = read_truth(catalog) if known is None else known
    new: dict[str, str] = {}
    for crop_id, label in pairs:
        if crop_id not in known:
            new.setdefault(crop_id, label)
    catalog.check_labels(new.values())
    columns = {"crop_id": list(new.keys()), "label": list(new.values())}
    catalog.workspace.table("truth").append(pa.table(columns, schema=TRUTH_SCHEMA))
    known.update(new)
    return len(new)
