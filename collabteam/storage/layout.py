"""The names of a camera's files, and the files that an object store shares.

Only this module spells these names. All existing cameras use them, on disks and in object stores,
so none of them may change.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NewType

FeatureTable = NewType("FeatureTable", str)
"""Name of a table of features, see :func:`feature_table`."""
TableName = Literal["crops", "labels", "truth"] | FeatureTable
TABLES: tuple[TableName, ...] = ("crops", "labels", "truth")

MANIFEST = "camera.yaml"
LOCK = "lock"
ROUND = "round-"
ROLLED_BACK = "rolled-back"
AUDITS = "audits"
REVIEW = "review"
INCOMING = "incoming"
VIDEOS = "videos"
TABLE = ".lance"
TABLES_LOCK = "labels.lock"
"""One lock for all tables of a camera: appends share it, a merge holds it exclusively."""

ROUND_RECORD = "round.json"
AUDIT_RECORD = "audit.json"
CERTIFICATE = "certificate.json"
LABEL_RECORD = "label.json"

# On this machine only: locks, review sessions, crops of footage that wait for the catalog.
_LOCAL = {LOCK, REVIEW, INCOMING}
# Each says that the files beside it are complete.
_MARKS = {MANIFEST, ROUND_RECORD, AUDIT_RECORD, CERTIFICATE, LABEL_RECORD}
_UNDER_LOCK = re.compile(rf"({ROUND}\d+|{AUDITS})/")


@dataclass(frozen=True)
class RoundFiles:
    """The files of one round.

    Attributes:
        folder: The round's folder, ``<root>/<camera>/round-<k>``.
    """

    folder: Path

    @property
    def record(self) -> Path:
        """The round's record, written last: it marks the round as finished."""
        return self.folder / ROUND_RECORD

    @property
    def sample(self) -> Path:
        """The draw of i0, in round 0."""
        return self.folder / "sample.json"

    @property
    def increment(self) -> Path:
        """The draw from the pool; not in round 0."""
        return self.folder / "increment.json"

    @property
    def folds(self) -> Path:
        """The fold of each track."""
        return self.folder / "folds.json"

    def fold_predictions(self, fold: int) -> Path:
        """Out-of-fold probabilities of one fold."""
        return self.folder / f"fold-{fold}.npz"

    def all_fold_predictions(self) -> dict[int, Path]:
        """The existing files of out-of-fold probabilities, by fold in ascending order."""
        found = {
            int(file.stem.removeprefix("fold-")): file for file in self.folder.glob("fold-*.npz")
            if file.stem.removeprefix("fold-").isdecimal()
        }  # fmt: skip
        return dict(sorted(found.items()))

    @property
    def features_choice(self) -> Path:
        """What ``features.backbone=auto`` and ``features.engine=auto`` came to."""
        return self.folder / "features.json"

    @property
    def branches(self) -> Path:
        """Folder of the networks."""
        return self.folder / "branches"

    def branch(self, label: str, fold: int) -> Path:
        """The network of one class and fold, or of all classes if ``label`` is empty."""
        name = f"fold-{fold}.safetensors"
        return self.branches / (f"{label}.{name}" if label else name)

    def all_branches(self) -> list[Path]:
        """The existing networks."""
        return sorted(self.branches.glob("*.safetensors"))

    def unfinished_fit(self, fold: int, fingerprint: str) -> Path:
        """Folder of the checkpoints of a fit; hidden, so it stays on this machine."""
        return self.folder / f".fold-{fold}-{fingerprint}"

    def remove_unfinished_fits(self, but: str = "") -> None:
        """Remove the checkpoints of fits that no command will continue.

        Args:
            but: Fingerprint of those that stay.
        """
        for fit in self.folder.glob(".fold-*-*"):
            if not but or not fit.name.endswith(f"-{but}"):
                shutil.rmtree(fit, ignore_errors=True)

    def scores(self, engine: str = "") -> Path:
        """Folder of the team's probabilities for the pool.

        Args:
            engine: Kind and precision, such as ``openvino-int8``; empty for those of training.
        """
        return self.folder / (f"scores-{engine}" if engine else "scores")

    def scores_check(self, engine: str = "") -> Path:
        """Comparison of these scores with torch in fp32."""
        return self.folder / f"{self.scores(engine).name}-check.json"

    @property
    def openvino(self) -> Path:
        """Folder of networks that OpenVINO prepared."""
        return self.folder / "openvino"

    @property
    def logged(self) -> Path:
        """Marks that the round was logged to W&B; the files of W&B lie beside it."""
        return self.folder / "wandb" / "logged.json"

    def fold_log(self, fold: int) -> Path:
        """Folder of Lightning's CSV log of one fold."""
        return self.folder / "csv" / f"fold-{fold}"


@dataclass(frozen=True)
class AuditFiles:
    """The files of one audit.

    Attributes:
        folder: The audit's folder, ``<root>/<camera>/audits/<n>``.
    """

    folder: Path

    @property
    def record(self) -> Path:
        """The samples; written last at the start of an audit."""
        return self.folder / AUDIT_RECORD

    @property
    def release(self) -> Path:
        """The audited labels."""
        return self.folder / "release.parquet"

    @property
    def certificate(self) -> Path:
        """The result, written once the last class is decided."""
        return self.folder / CERTIFICATE


@dataclass(frozen=True)
class ReviewFiles:
    """The files of the review page, which never leave this machine.

    Attributes:
        folder: ``<root>/<camera>/review``, readable by its owner alone.
    """

    folder: Path

    @property
    def lock(self) -> Path:
        """Held by the process that serves the page; holds its address."""
        return self.folder / LOCK

    @property
    def sessions(self) -> Path:
        """The signed-in reviewers."""
        return self.folder / "sessions.json"

    def way_in(self, name: str) -> Path:
        """A file that leads a browser to the page; only the owner may read it."""
        return self.folder / f"open-{name}.html"

    def ways_in(self) -> list[Path]:
        """The files that :meth:`way_in` named and that exist."""
        return list(self.folder.glob("open-*.html"))


class CameraFiles:
    """The files of one camera.

    Attributes:
        folder: The camera's folder, ``<root>/<camera>``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def manifest(self) -> Path:
        """Name and classes, written last when a camera is registered."""
        return self.folder / MANIFEST

    @property
    def lock(self) -> Path:
        """The lock of the command that holds the camera."""
        return self.folder / LOCK

    def table_folder(self, name: TableName) -> Path:
        """Folder of a table."""
        return self.folder / f"{name}{TABLE}"

    @property
    def quarantine(self) -> Path:
        """The pictures that could not be ingested, one per line."""
        return self.folder / "quarantine.jsonl"

    def projection(self, key: str) -> Path:
        """The projection of the features of one backbone to fewer numbers."""
        return self.folder / f"features-{key}.safetensors"

    def round(self, number: int) -> RoundFiles:
        """The files of a round, 0 or more."""
        return RoundFiles(self.folder / f"{ROUND}{number}")

    def round_numbers(self) -> list[int]:
        """Numbers of the rounds that have a folder, finished or not, ascending."""
        names = (folder.name.removeprefix(ROUND) for folder in self.folder.glob(f"{ROUND}*"))
        return sorted(int(name) for name in names if name.isdecimal())

    def rolled_back(self, number: int) -> list[RoundFiles]:
        """Earlier attempts at a round that were taken back, newest first."""
        found = {
            int(folder.suffix[1:]): RoundFiles(folder)
            for folder in self.attic.glob(f"{ROUND}{number}.*")
            if folder.suffix[1:].isdecimal()
        }
        return [found[attempt] for attempt in sorted(found, reverse=True)]

    @property
    def attic(self) -> Path:
        """Folder of the rounds that were taken back."""
        return self.folder / ROLLED_BACK

    def set_rounds_aside(self, after: int) -> list[int]:
        """Move every round after ``after`` to the rounds that were taken back.

        The last round goes first, so that a kill in between leaves rounds without a gap.

        Args:
            after: The last round that stays; -1 moves all.

        Returns:
            The rounds that were moved, highest first.
        """
        moved = [number for number in reversed(self.round_numbers()) if number > after]
        for number in moved:
            self.attic.mkdir(exist_ok=True)
            self.round(number).remove_unfinished_fits()
            attempt = len(list(self.attic.glob(f"{ROUND}{number}.*")))
            self.round(number).folder.replace(self.attic / f"{ROUND}{number}.{attempt}")
        return moved

    def audit(self, number: int) -> AuditFiles:
        """The files of an audit, 1 or more."""
        return AuditFiles(self.folder / AUDITS / str(number))

    def audit_numbers(self) -> list[int]:
        """Numbers of the audits that have a folder, begun or not, ascending."""
        names = (folder.name for folder in (self.folder / AUDITS).glob("*"))
        return sorted(int(name) for name in names if name.isdecimal())

    @property
    def label_record(self) -> Path:
        """The record of the last labelling."""
        return self.folder / LABEL_RECORD

    @property
    def review(self) -> ReviewFiles:
        """The files of the review page."""
        return ReviewFiles(self.folder / REVIEW)

    @property
    def videos(self) -> Path:
        """Folder with a record of each video that was read, and with previews."""
        return self.folder / VIDEOS

    @property
    def incoming(self) -> Path:
        """Folder of crops that were cut from footage and wait for the catalog."""
        return self.folder / INCOMING

    @property
    def wandb(self) -> Path:
        """Folder of the camera's own W&B run."""
        return self.folder / "wandb"

    def report(self, name: str) -> Path:
        """A figure or table for people; no command reads it."""
        return self.folder / name


def feature_table(key: str) -> FeatureTable:
    """Name the table with the features of one backbone and transform."""
    return FeatureTable(f"features-{key}")


def is_shared(name: str) -> bool:
    """Whether a file belongs in the store as well as on this machine.

    Args:
        name: Its path relative to the camera's folder, with ``/``.
    """
    first, *others = name.split("/")
    hidden = any(part.startswith(".") for part in (first, *others))
    # W&B can make these again.
    if first == "wandb" and others and (others[0] == "cache" or others[0].startswith("staged-")):
        return False
    is_table = first.endswith(TABLE)
    return first not in _LOCAL and not hidden and not is_table and not name.endswith(".lock")


def is_mark(name: str) -> bool:
    """Whether a file marks the files beside it as complete."""
    return name.rsplit("/", 1)[-1] in _MARKS


def is_under_lock(name: str) -> bool:
    """Whether a file is made under the camera's lock, and so matches only the log of that time."""
    return _UNDER_LOCK.match(name) is not None
