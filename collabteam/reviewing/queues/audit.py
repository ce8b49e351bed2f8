"""The queue of an audit of the team's labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from collabteam.audits.records import AuditRecord, open_audit, read_audit
from collabteam.audits.statement import command
from collabteam.catalog import CropIndex
from collabteam.catalog.records import seeded_hash
from collabteam.catalog.texts import TextColumn
from collabteam.reviewing.queue_order import group_by_class
from collabteam.reviewing.review_queue import QueuedCrops, ReviewQueue, ReviewState
from collabteam.settings import ReviewConfig


class Audit(ReviewQueue):
    """The sample of the open audit, or a sample of the team's labels if no audit is open."""

    title = "audit of the team's labels"
    purpose = "audit"
    position = 2

    def crops(self, state: ReviewState) -> QueuedCrops:
        """Return all crops of the sample."""
        catalog, index, config = state.catalog, state.index, state.config
        suggested: TextColumn | NDArray[np.object_]
        if number := open_audit(catalog.workspace):
            record = read_audit(catalog.workspace, number)
            rows, suggested = _frozen_sample(index, record)
            then, since = command(record), record.log_events
        else:
            rows, suggested = _random_sample(index, config), index.increment_label
            then, since = f"python -m collabteam.report camera={catalog.name}", 0
        rows = group_by_class(rows, suggested, catalog.classes, [config.seed, *b"audit"])
        return QueuedCrops(rows, list(map(str, suggested[rows])), then, since=since)

    def why_empty(self, camera: str) -> str:
        """Say that there are no labels to audit."""
        return (
            "no team has labelled a crop yet: "
            f"'python -m collabteam.train camera={camera} round=1' and 'collabteam.label' do"
        )


def _frozen_sample(
    index: CropIndex, record: AuditRecord
) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """Return the rows of an open audit's sample, and the frozen label of every row."""
    drawn = record.sampled()
    rows = index.crop_id.find(list(drawn))
    suggested = np.full(len(index), "", dtype=object)
    suggested[rows[rows >= 0]] = np.array(list(drawn.values()), dtype=object)[rows >= 0]
    return np.flatnonzero(suggested != ""), suggested


def _random_sample(index: CropIndex, config: ReviewConfig) -> NDArray[np.int64]:
    """Draw a simple random sample of the crops that a team labelled, for each class.

    Crops are ordered by a seeded hash of their names, and the sample is the first ones. Most crops
    that were audited before the team labelled more therefore stay in the sample.
    """
    chosen = []
    of_team = (index.increment_round >= 0) & ~index.held_out
    for name in np.unique(index.increment_label[of_team]):
        rows = np.flatnonzero(of_team & (index.increment_label == name))
        ranks = np.array([seeded_hash(str(index.crop_id[row]), config.seed) for row in rows])
        chosen.append(rows[np.argsort(ranks)[: config.audit_per_class]])
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.int64)
