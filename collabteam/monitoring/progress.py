"""The progress of a camera, from its records alone.

It opens no table, so ``collabteam`` can show the progress of every camera under a root.
:mod:`collabteam.monitoring.facts` also looks at the crops and the log.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from collabteam.audits.records import last_audit, read_certificate
from collabteam.errors import UserError, file_error
from collabteam.labelling.records import read_label
from collabteam.monitoring.next_step import Standing, next_step
from collabteam.rounds.records import RoundRecord, read_rounds
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
    except OSError as error:  # a folder of somebody else that cannot be looked into
        return Progress(str(file_error(Path(error.filename or folder), error, "read")), "")


def _progress(files: CameraFiles) -> Progress:
    classes = read_manifest(files.manifest)
    rounds, label = read_rounds(files), read_label(files)
    number = last_audit(files)
    certificate = read_certificate(files, number) if number else None
    standing = Standing(
        files.folder.name,
        crops=_may_have_rows(files.table_folder("crops")),
        classes=bool(classes),
        asked=files.round(0).sample.exists(),
        round=rounds[-1].round if rounds else -1,
        tested=not rounds or rounds[-1].test_size > 0,
    )
    if rounds and label is not None:
        by_last = label.team == rounds[-1].fingerprint
        standing = replace(standing, labelled="now" if by_last else "earlier")
    if number and certificate is None:
        standing = replace(standing, audited="open")
    elif certificate is not None:
        standing = replace(standing, audited="passed" if certificate.passed else "failed")
    return Progress(_state(standing, rounds, number), next_step(standing)[0])


def _may_have_rows(table: Path) -> bool:
    """Whether a table has rows, as far as its folder tells."""
    try:
        return any(os.scandir(table / "data"))
    except FileNotFoundError:
        return not table.exists()  # the tables of a camera in a store are not on this machine
    except PermissionError:
        return True  # somebody else's may be closed, which does not mean that it has none


def _state(standing: Standing, rounds: list[RoundRecord], number: int) -> str:
    if not standing.crops:
        return "no crops"
    if not rounds:
        return "i0 is drawn, not trained" if standing.asked else "not trained"
    state = f"round {standing.round}"
    if rounds[-1].coverage is not None:
        state += f", coverage {rounds[-1].coverage:.0%}"
    if standing.labelled != "now":
        return f"{state}, not labelled by this team"
    return f"{state}, labelled, " + {
        "not": "not audited",
        "open": f"audit {number} is open",
        "failed": f"audit {number} failed",
    }.get(standing.audited, "certified")
