"""The progress of a camera, from its records alone.

It opens no table, so ``collabteam`` can show the progress of every camera under a root.
:mod:`collabteam.monitoring.facts` also looks at the crops and the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from collabteam.audits.records import last_audit, read_certificate
from collabteam.errors import UserError
from collabteam.labelling.records import read_label
from collabteam.rounds.records import read_rounds
from collabteam.storage.layout import CameraFiles
from collabteam.storage.manifest import read_manifest


@dataclass(frozen=True)
class Progress:
    """The progress of a camera.

    Attributes:
        state: In words, such as ``round 2, labelled, certified``.
        next: The command that comes next, without ``python -m collabteam.``; empty if a file is
            damaged.
    """

    state: str
    next: str


def progress(folder: Path) -> Progress:
    """Read the progress of a camera.

    Args:
        folder: The camera's folder on this machine.
    """
    try:
        return _progress(CameraFiles(folder))
    except UserError as error:
        return Progress(f"damaged: {error}", "")


def _progress(files: CameraFiles) -> Progress:
    read_manifest(files.manifest)
    camera = f"camera={files.folder.name}"
    crops = files.table_folder("crops")
    # The tables of a camera in an object store are not on this machine.
    if crops.exists() and not any(crops.glob("data/*")):
        return Progress("no crops", f"ingest {camera} path=...")
    rounds = read_rounds(files)
    if not rounds:
        if not files.round(0).sample.exists():
            return Progress("not trained", f"review {camera}")
        return Progress("i0 is drawn, not trained", f"train {camera} round=0")
    state = f"round {rounds[-1].round}"
    if rounds[-1].coverage is not None:
        state += f", coverage {rounds[-1].coverage:.0%}"
    label = read_label(files)
    if label is None or label.team != rounds[-1].fingerprint:
        return Progress(f"{state}, not labelled by this team", f"label {camera}")
    state += ", labelled"
    number = last_audit(files)
    if not number:
        return Progress(f"{state}, not audited", f"audit {camera}")
    certificate = read_certificate(files, number)
    if certificate is None:
        return Progress(f"{state}, audit {number} is open", f"review {camera} queue=audit")
    if not certificate.passed:
        return Progress(f"{state}, audit {number} failed", f"review {camera} queue=unsure")
    return Progress(f"{state}, certified", f"export {camera} certified=true to=FOLDER")
