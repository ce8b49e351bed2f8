"""The answers that count in an audit, and the stage that answers as the oracle."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from collabteam.audits.records import AuditRecord
from collabteam.catalog import Catalog, CropIndex, LabelEvent
from collabteam.catalog.annotations import Annotation
from collabteam.events import Listener
from collabteam.rounds.oracle import oracle_answers
from collabteam.stages import Stage


def answers(catalog: Catalog, record: AuditRecord) -> dict[str, Annotation]:
    """Collect the standing answers for an audit, by sampled crop.

    Raises:
        UserError: The log is damaged.
    """
    annotations, sample = catalog.annotations(), list(record.sampled())
    # Answers of a simulated reviewer do not count in an audit by persons.
    is_simulated = record.settings.reviewer == "oracle"
    said = annotations.audit_answers(record.log_events, is_simulated)
    rows = annotations.names.find(sample).tolist()
    last = {crop: said.last(row) for crop, row in zip(sample, rows, strict=True) if row >= 0}
    return {crop: answer for crop, answer in last.items() if answer is not None}


def labels_of(heard: Mapping[str, Annotation]) -> dict[str, str]:
    """Return the label of each answered crop."""
    return {crop: answer.label for crop, answer in heard.items()}


def answers_hash(heard: Mapping[str, Annotation]) -> str:
    """Hash answers: SHA-256 of one line 'crop_id, tab, label, tab, reviewer' each, by crop_id."""
    lines = (f"{crop}\t{answer.label}\t{answer.by}\n" for crop, answer in sorted(heard.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def simulated_answers(
    catalog: Catalog, index: CropIndex, record: AuditRecord, heard: Mapping[str, Annotation]
) -> list[LabelEvent]:
    """Let the oracle answer for all sampled crops without an answer.

    Args:
        catalog: The camera.
        index: Its crops.
        record: The audit.
        heard: Answers so far.

    Raises:
        UserError: A crop has no hidden truth.
    """
    rows = index.crop_id.find([crop for crop in record.sampled() if crop not in heard])
    error, seed = record.settings.oracle_error, record.settings.seed
    return oracle_answers(catalog, index, np.unique(rows[rows >= 0]), error, seed, "audit")


@dataclass(frozen=True, eq=False)
class AnswerAsOracle(Stage[list[LabelEvent]]):
    """Let the oracle answer the unanswered crops; the answers go to the log in one commit.

    Attributes:
        catalog: The camera.
        record: The audit.
    """

    catalog: Catalog
    record: AuditRecord
    name = "answer"

    def saved(self, listener: Listener) -> list[LabelEvent] | None:
        """Return an empty list if every crop is answered."""
        heard = answers(self.catalog, self.record)
        return [] if self.record.sampled().keys() <= heard.keys() else None

    def compute(self, listener: Listener) -> list[LabelEvent]:
        """Answer from hidden truth.

        Raises:
            UserError: A crop has no hidden truth.
        """
        heard = answers(self.catalog, self.record)
        return simulated_answers(self.catalog, self.catalog.index(), self.record, heard)

    def save(self, output: list[LabelEvent]) -> None:
        """Append the answers."""
        self.catalog.append_labels(output)
