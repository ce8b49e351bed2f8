"""How far a camera is, from its records alone.

Cheap enough to ask for every camera of a root whenever somebody types ``collabteam``: no table is
opened. :mod:`collabteam.monitoring.facts` also looks at the crops and the log.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collabteam.storage.layout import CameraFiles


@dataclass(frozen=True)
class Progress:
    """How far a camera is.

    Attributes:
        state: In words, such as ``round 2, labelled, certified``.
        next: The command that comes next, without ``python -m collabteam.``; empty if a file is
            damaged.
    """

    state: str
    next: str


def progress(folder: Path) -> Progress:
    """How far a camera is.

    Args:
        folder: The camera's folder on this machine.
    """
    try:
        return _progress(CameraFiles(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        # Records that were edited, or that a later version wrote.
        return Progress(f"a record is damaged ({type(error).__name__}: {error})", "")


def _progress(files: CameraFiles) -> Progress:
    camera = f"camera={files.folder.name}"
    crops = files.table_folder("crops")
    # Of a camera in an object store, the tables are not on this machine.
    if crops.exists() and not any(crops.glob("data/*")):
        return Progress("no crops", f"ingest {camera} path=...")
    finished = [number for number in files.round_numbers() if files.round(number).record.exists()]
    if not finished:
        if not files.round(0).sample.exists():
            return Progress("not trained", f"review {camera}")
        return Progress("i0 is drawn, not trained", f"train {camera} round=0")
    record = _read(files.round(finished[-1]).record)
    state = f"round {record['round']}"
    if (coverage := record.get("coverage")) is not None:
        state += f", coverage {coverage:.0%}"
    label = _read(files.label_record) if files.label_record.exists() else None
    if label is None or label["team"] != record["fingerprint"]:
        return Progress(f"{state}, not labelled by this team", f"label {camera}")
    state += ", labelled"
    begun = [number for number in files.audit_numbers() if files.audit(number).record.exists()]
    if not begun:
        return Progress(f"{state}, not audited", f"audit {camera}")
    certificate = files.audit(begun[-1]).certificate
    if not certificate.exists():
        return Progress(f"{state}, audit {begun[-1]} is open", f"review {camera} queue=audit")
    if not _read(certificate)["passed"]:
        return Progress(f"{state}, audit {begun[-1]} failed", f"review {camera} queue=unsure")
    return Progress(f"{state}, certified", f"export {camera} certified=true to=FOLDER")


def _read(file: Path) -> dict[str, Any]:
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{file.name}: expected an object")
    return content
