"""The labels under audit: frozen before the sample is drawn, and compared with later labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from collabteam.audits.records import AuditRecord, Certificate
from collabteam.catalog import CropIndex
from collabteam.catalog.records import labels_hash
from collabteam.errors import UserError
from collabteam.storage.files import damaged
from collabteam.storage.workspace import Workspace


@dataclass(frozen=True)
class ReleaseCoverage:
    """A frozen release compared with the current one, in numbers of crops.

    Attributes:
        now: Crops released now.
        covered: Crops released now that were frozen with the same label.
        gone: Frozen crops that are now neither released with that label nor verified.
    """

    now: int
    covered: int
    gone: int


def released(index: CropIndex, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the rows of unverified crops that a team labelled for release, by ``crop_id``.

    Args:
        index: The camera's crops.
        classes: Its classes.
    """
    return index.crop_id.in_order(np.flatnonzero(index.released(classes)))


def read_release(workspace: Workspace, record: AuditRecord | Certificate) -> pa.Table:
    """Read the frozen labels of an audit or its certificate.

    Args:
        workspace: The camera's files.
        record: The audit or its certificate.

    Returns:
        ``crop_id``, ``label`` and ``confidence`` (0 to 1), by ``crop_id``.

    Raises:
        UserError: The file is missing, damaged, or not the one that was frozen.
    """
    file = workspace.folder / record.release.file
    try:
        table = pq.read_table(file)
        found = labels_hash(table["crop_id"].to_pylist(), table["label"].to_pylist())
    except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
        remedy = "restore it from a backup, or begin another audit with new=true"
        raise damaged(file, "the labels that were audited", error, remedy) from error
    if found != record.release.hash:
        raise UserError(
            f"{file} is not the release frozen for audit {record.audit} (its hash is {found}): "
            "restore it from a backup, or begin another audit with new=true"
        )
    return table


def release_coverage(
    workspace: Workspace,
    record: AuditRecord | Certificate,
    index: CropIndex,
    classes: Sequence[str],
) -> ReleaseCoverage:
    """Compare a frozen release with the labels that are released now.

    Args:
        workspace: The camera's files.
        record: The audit or its certificate.
        index: The camera's crops.
        classes: Its classes.

    Raises:
        UserError: See :func:`read_release`.
    """
    frozen = read_release(workspace, record)
    rows = index.crop_id.find(frozen["crop_id"].combine_chunks())
    rows, label = rows[rows >= 0], frozen["label"].to_numpy()[rows >= 0]
    now = index.released(classes)
    covered = int((now[rows] & (index.verdict[rows] == label)).sum())
    verified = int(index.verified()[rows].sum())
    return ReleaseCoverage(int(now.sum()), covered, len(frozen) - covered - verified)
