"""Conformance of review queues.

A test of your own queue is one line::

    check_review_queue(MyQueue)
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from collabteam.catalog import Catalog, Crop, CropIndex, LabelEvent
from collabteam.catalog.records import REVIEW_PURPOSES
from collabteam.events import Listener
from collabteam.reviewing.review_queue import QueuedCrops, ReviewQueue, ReviewState
from collabteam.settings import UNKNOWN, UNUSABLE, CameraConfig, ReviewConfig
from collabteam.testing.labelled_camera import NAMES, encoded_picture

_CLASSES = ["car", "ship", "plane"]
_TRACKS = 60


def check_review_queue(
    queue_class: type[ReviewQueue], catalog: Catalog | None = None
) -> QueuedCrops:
    """Raise unless a review queue meets its contract.

    The checks: every crop occurs once; suggestions are labels; crops for training are not of tracks
    in the test set and at most one of each track; a queue for the test set or an audit has only its
    own crops; reading the queue changes nothing; a second preparation draws nothing more.

    Args:
        queue_class: The queue.
        catalog: A camera to check the queue on; the check adds answers to it. By default, a small
            camera without any round is made. Pass a trained camera if the queue needs a team.

    Returns:
        The crops of the prepared queue, for further checks.

    Raises:
        AssertionError: A check failed; the message says what was expected and found.
    """
    _check_texts(queue_class)
    with tempfile.TemporaryDirectory() as folder:
        if catalog is None:
            _check_empty_camera(queue_class, Path(folder))
            catalog = make_reviewed_camera(Path(folder))
        config = _config(catalog)
        queue = queue_class()
        before = _crops(queue, catalog, config)
        queue.prepare(catalog, config, Listener())
        version = catalog.log_version()
        crops = _crops(queue, catalog, config)
        assert len(before.rows) <= len(crops.rows), "preparing removed crops"
        queue.prepare(catalog, config, Listener())
        again = _crops(queue_class(), catalog, config)
        assert catalog.log_version() == version, "the second preparation changed the log"
        is_same = again.rows.tolist() == crops.rows.tolist() and list(again.suggested) == list(
            crops.suggested
        )
        assert is_same, "expected the same crops in the same order when asked again"
        _check_purpose(queue_class, catalog, crops)
        _check_answers(queue_class, catalog, config, crops)
        return crops


def make_reviewed_camera(root: Path) -> Catalog:
    """Make a camera with proposals, a test set, and labels of a team and two reviewers.

    Args:
        root: Folder under which the camera ``S1`` is made.
    """
    catalog = Catalog.register(root, "S1", _CLASSES)
    crops = [
        Crop(encoded_picture(n), NAMES[n // 2 % 7], str(n // 2), n, float(n))
        for n in range(2 * _TRACKS)
    ]
    catalog.add_crops(crops)
    events: list[LabelEvent] = []
    for number, crop in enumerate(crops):
        name, track, is_first = crop.crop_id, number // 2, number % 2 == 0
        proposed = [*_CLASSES, UNKNOWN][track % 4]
        events.append(LabelEvent(name, proposed, "detector", "proposal"))
        if track < 6 and is_first:
            events.append(LabelEvent(name, "", "ingest", "test"))
        elif 6 <= track < 12:
            event = LabelEvent(name, _CLASSES[track % 3], "team", "increment", 1, 0.9, "team")
            events.append(event)
        elif track == 12 and is_first:
            events.append(LabelEvent(name, UNUSABLE, "person", "seed", by="ana"))
        elif 13 <= track < 16 and is_first:
            events += [
                LabelEvent(name, label, "person", "seed", by=by)
                for by, label in (("ana", "car"), ("ben", "ship" if track < 15 else "car"))
            ]
    catalog.append_labels(events)
    return catalog


def _config(catalog: Catalog) -> ReviewConfig:
    return ReviewConfig(
        camera=CameraConfig(catalog.name, list(catalog.classes)),
        seed_per_class=4, seed_unknown=1, test_per_class=3, audit_per_class=3,
    )  # fmt: skip


def _check_texts(queue_class: type[ReviewQueue]) -> None:
    purpose = queue_class.purpose
    assert purpose in REVIEW_PURPOSES, (
        f"purpose: expected one of {', '.join(REVIEW_PURPOSES)}, got {purpose!r}"
    )
    for name, text in (
        ("title", queue_class.title), ("why_empty", queue_class().why_empty("S10-08"))
    ):  # fmt: skip
        is_line = bool(text.strip()) and len(text.splitlines()) == 1
        assert is_line, f"{name}: expected a text of one line, got {text!r}"


def _check_empty_camera(queue_class: type[ReviewQueue], root: Path) -> None:
    """Check that a camera without crops has an empty queue."""
    catalog = Catalog.register(root, "empty", _CLASSES)
    crops = _crops(queue_class(), catalog, _config(catalog))
    assert len(crops.rows) == 0, f"expected no crops of an empty camera, got {len(crops.rows)}"


def _crops(queue: ReviewQueue, catalog: Catalog, config: ReviewConfig) -> QueuedCrops:
    """Return the queue's crops after the checks that always apply."""
    version, index = catalog.log_version(), catalog.index()
    crops = queue.crops(ReviewState(catalog, index, catalog.annotations().answers(), config))
    assert catalog.log_version() == version, "reading the queue changed the log"
    rows = crops.rows
    assert rows.ndim == 1, f"rows: expected shape (Q,), got {rows.shape}"
    assert np.issubdtype(rows.dtype, np.integer), f"rows: expected integers, got {rows.dtype}"
    are_rows = bool(((rows >= 0) & (rows < len(index))).all())
    assert are_rows, f"rows: expected 0 to {len(index) - 1}, got {rows.min()} to {rows.max()}"
    twice = len(rows) - len(np.unique(rows))
    assert not twice, f"rows: {twice} crops are there twice"
    assert len(crops.suggested) == len(rows), (
        f"suggested: expected {len(rows)} labels, got {len(crops.suggested)}"
    )
    strange = set(crops.suggested) - {"", *catalog.classes, UNKNOWN, UNUSABLE}
    assert not strange, f"suggested: expected labels of the camera, got {sorted(strange)[0]!r}"
    assert len(crops.next.splitlines()) == 1, f"next: expected one line, got {crops.next!r}"
    assert crops.round >= -1, f"round: expected -1 or more, got {crops.round}"
    return crops


def _check_purpose(queue_class: type[ReviewQueue], catalog: Catalog, crops: QueuedCrops) -> None:
    index, rows, purpose = catalog.index(), crops.rows, queue_class.purpose
    if purpose == "test":
        outside = int((~index.test[rows]).sum())
        assert not outside, f"{outside} crops are not in the test set, but would join it"
    elif purpose == "audit":
        unlabelled = [row for row, label in zip(rows, crops.suggested, strict=True) if not label]
        assert not unlabelled, f"{len(unlabelled)} crops have no label to audit"
    elif purpose in ("seed", "unsure"):
        _check_training(index, rows)
        assert purpose == "seed" or not len(rows) or crops.round >= 0, (
            "round: expected the round of the team that abstained on the crops"
        )


def _check_training(index: CropIndex, rows: NDArray[np.int64]) -> None:
    held_out = int(index.held_out[rows].sum())
    assert not held_out, f"{held_out} crops are of objects that the test set shows"
    left = rows[~index.verified()[rows]]
    same = len(left) - len(np.unique(index.track_code[left]))
    assert not same, f"{same} crops are of a track that is in the queue already"


def _check_answers(
    queue_class: type[ReviewQueue], catalog: Catalog, config: ReviewConfig, crops: QueuedCrops
) -> None:
    """Answer half of the crops, and check that none join the queue and none of the rest leave."""
    index = catalog.index()
    answered = crops.rows[::2]
    events = [
        LabelEvent(
            str(index.crop_id[row]), label or catalog.classes[0], "person", queue_class.purpose,
            crops.round, by="ana",
        )
        for row, label in zip(answered, list(crops.suggested)[::2], strict=True)
    ]  # fmt: skip
    catalog.append_labels(events)
    now = _crops(queue_class(), catalog, config)
    lost = set(crops.rows[1::2].tolist()) - set(now.rows.tolist())
    assert not lost, f"{len(lost)} crops left the queue when others were answered"
    more = set(now.rows.tolist()) - set(crops.rows.tolist())
    assert not more, f"{len(more)} crops came into the queue when others were answered"
