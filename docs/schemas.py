"""Writes the JSON schemas in this folder from the models of the records: python docs/schemas.py."""

from __future__ import annotations

import json
from pathlib import Path

from collabteam.audits.records import AuditRecord, Certificate
from collabteam.labelling.records import LabelRecord
from collabteam.rounds.records import RoundRecord
from collabteam.storage.records import Record

RECORDS: dict[str, type[Record]] = {
    "round": RoundRecord,
    "label": LabelRecord,
    "audit": AuditRecord,
    "certificate": Certificate,
}


def schemas() -> dict[str, str]:
    """Text of every schema by the name of its file."""
    return {
        f"{name}.schema.json": json.dumps(record.json_schema(), indent=2) + "\n"
        for name, record in RECORDS.items()
    }


if __name__ == "__main__":
    for name, text in schemas().items():
        Path(__file__).with_name(name).write_text(text, encoding="utf-8")
