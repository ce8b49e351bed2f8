"""Measure precision and recall of detection, fusion of riders, and the vote over tracks.

The folder holds a file NNNN.txt for each labelled frame (numbers from 0), with a line per object in
YOLO's format: class, then middle, width and height as fractions of the frame; 0 is a pedestrian, 1
a cyclist with the bicycle. Other frames are left out. A detection is correct if it has an IoU of at
least 0.5 with a labelled object of its kind; each object is matched once, in the order of
confidence. The row of all riders counts cyclists and motorcyclists as one kind. The first table
rates each frame by itself. In the second table, objects are tracked (StrongSORT, colour
histograms), each has one kind by a vote over its frames, and tracks of fewer than 5 frames are left
out.

    python benchmarks/riders.py VIDEO LABELS_FOLDER WEIGHTS [LABELS_AHEAD]

LABELS_AHEAD is the number of frames by which the labels are ahead of the pictures. In street3 (35
labelled frames) it is one to two, which matters only for the fast cyclist. Distant pedestrians have
no label there, so their precision cannot reach 1.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from collabteam.settings import CutConfig, DetectorConfig
from collabteam.video.detection import open_detector
from collabteam.video.footage import open_footage
from collabteam.video.linking import LinkedTrack, Linker, kind_of
from collabteam.video.objects import Objects, iou
from collabteam.video.riders import PARTS, fuse
from collabteam.video.tracking import open_tracker

KINDS = ("pedestrian", "cyclist", "motorcyclist")
ROWS = {**{kind: (kind,) for kind in KINDS}, "all riders": ("cyclist", "motorcyclist")}
IOU = 0.5


def read_labels(file: Path, width: int, height: int) -> Objects:
    """Read a file of labels, in pixels."""
    rows = []
    for line in file.read_text().splitlines():
        number, x, y, w, h = (float(word) for word in line.split())
        left, top = (x - w / 2) * width, (y - h / 2) * height
        rows.append((left, top, left + w * width, top + h * height, 1.0, KINDS[int(number)]))
    return Objects.of(rows)


def count_right(found: Objects, labelled: Objects) -> int:
    """Count the correct detections, with each label used once."""
    overlap = iou(found.box, labelled.box)
    right = 0
    for number in np.argsort(-found.score, kind="stable"):
        if overlap.shape[1] and overlap[number].max() >= IOU:
            right += 1
            overlap[:, overlap[number].argmax()] = 0
    return right


def main(video: str, labels: Path, weights: str, ahead: int = 0) -> None:
    detector = open_detector(DetectorConfig(weights=weights), PARTS)
    seen: dict[int, Objects] = {}
    tracked: dict[tuple[int, int], int] = {}
    found: list[LinkedTrack] = []
    with open_footage(video) as footage:
        tracker = open_tracker("strongsort", "", footage.rate)
        linker = Linker(tracker.max_distance)
        for frame in footage:
            objects = fuse(detector.detect([frame.image])[0])
            numbers, appearance = tracker.update(objects.followed, frame.image)
            found += linker.add(frame, objects.followed, numbers, appearance)
            seen[frame.number] = objects
            for row in np.flatnonzero(numbers >= 0):
                tracked[int(numbers[row]), frame.number] = int(row)
        found += linker.finish()
        size = footage.width, footage.height
    truth = {
        number: read_labels(labels / f"{number - ahead:04d}.txt", *size)
        for number in seen
        if (labels / f"{number - ahead:04d}.txt").exists()
    }
    print(f"{len(truth)} labelled frames of {video}, IoU {IOU}")
    print_table("each frame by itself", seen, truth)
    voted: dict[int, list[tuple[int, str]]] = {number: [] for number in seen}
    for one in found:
        if len(one) >= CutConfig().min_frames:
            kind = kind_of(one.kind, one.score)
            for number, at in zip(one.number.tolist(), one.frame.tolist(), strict=True):
                voted[at].append((tracked[number, at], kind))
    by_object = {
        number: replace(
            seen[number][np.array([row for row, _ in rows], np.int64)],
            kind=np.array([kind for _, kind in rows], object),
        )
        for number, rows in voted.items()
    }
    print_table("followed, kind by vote", by_object, truth)


def print_table(title: str, found: dict[int, Objects], labelled: dict[int, Objects]) -> None:
    """Print precision and recall over the labelled frames."""
    counts = {name: np.zeros(3, int) for name in ROWS}
    for number, truths in labelled.items():
        for name, kinds in ROWS.items():
            those = found[number][np.isin(found[number].kind, kinds)]
            truth = truths[np.isin(truths.kind, kinds)]
            counts[name] += (len(truth), len(those), count_right(those, truth))
    print(f"{title:24}{'labelled':>9}{'found':>9}{'right':>9}{'precision':>11}{'recall':>9}")
    for name, (truth_count, count, right) in counts.items():
        precision = f"{right / count:.3f}" if count else "-"
        recall = f"{right / truth_count:.3f}" if truth_count else "-"
        print(f"{name:24}{truth_count:9}{count:9}{right:9}{precision:>11}{recall:>9}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:5]))
